# Copyright 2026 jetcap_ros maintainers
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""Quantize a torch model in hand. Importing this file imports no framework."""

from typing import TYPE_CHECKING
import warnings

from .decoder import Decoder
from .weight import quantize_rows, Weight

if TYPE_CHECKING:
    from .mobilenet import MobileNetCaptioningModel


def apply_dynamic_quantization(model: 'MobileNetCaptioningModel') -> 'MobileNetCaptioningModel':
    """
    Quantize a torch captioning model in hand: int8 weights, inputs quantized as they come.

    The decoder is replaced by an int8 one, layer by layer; the encoder keeps float32, in which
    its convolutions run. Without an int8 engine in this torch the model is left as it is.

    :param model: a MobileNetCaptioningModel on the CPU.
    :return: the same model.
    """
    from .torch_products import has_int8_engine, torch_product
    if isinstance(model.decoder, Decoder):
        return model
    if not has_int8_engine():
        warnings.warn('this torch has no quantized engine: the model stays in float32')
        return model
    parameters = dict(model.decoder.named_parameters())
    embed_dim = parameters['embedding.weight'].shape[1]
    decoder_dim = parameters['init_h.weight'].shape[0]

    def read(name: str) -> Weight:
        values = parameters[name].detach().float().cpu().numpy()
        return quantize_rows(values) if values.ndim > 1 else Weight(values)

    attention_dim = parameters['encoder_att.weight'].shape[0]
    # Not a module: it has no parameters that training could move.
    del model.decoder
    model.decoder = Decoder(read, embed_dim, decoder_dim, attention_dim, torch_product)
    return model.eval()
