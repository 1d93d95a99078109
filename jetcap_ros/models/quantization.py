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

"""
int8 weights with one scale a row (output channel), symmetric.

Importing this file imports no framework: the weights of a checkpoint are quantized with NumPy,
one tensor at a time. Torch is needed only to run them on its int8 kernels.
"""

from dataclasses import dataclass
import math
from typing import List, Optional, Sequence
import warnings

import numpy as np

FEW_VALUES = 64


@dataclass
class Weight:
    """A parameter: float32 values, or int8 values with a scale for each row."""

    values: np.ndarray
    scale: Optional[np.ndarray] = None

    def dequantized(self) -> np.ndarray:
        """Return the values as float32."""
        if self.scale is None:
            return self.values
        values = self.values.astype(np.float32)
        values *= self.scale.reshape(-1, *[1] * (values.ndim - 1))
        return values

    def rows(self, indices) -> 'Weight':
        """Return these rows of it."""
        scale = None if self.scale is None else self.scale[indices]
        return Weight(self.values[indices], scale)

    def columns(self, start: int, end: Optional[int]) -> 'Weight':
        """Return these columns of it."""
        return Weight(self.values[:, start:end], self.scale)


def concatenate(weights: List[Weight]) -> Weight:
    """Return the rows of several weights, all of one kind, as one."""
    scales = [weight.scale for weight in weights]
    return Weight(
        np.concatenate([weight.values for weight in weights]),
        None if scales[0] is None else np.concatenate(scales))


def is_quantized(shape: Sequence[int]) -> bool:
    """
    Say whether int8 mode quantizes a parameter of this shape.

    Convolutions with few values a channel, the depthwise ones above all, stay float32: they are a
    hundredth of the weights, and lose most by it.
    """
    return len(shape) == 2 or len(shape) == 4 and math.prod(shape[1:]) >= FEW_VALUES


def quantize_rows(values: np.ndarray) -> Weight:
    """Return the weight as int8 -127..127 with the scale of each row (first axis)."""
    rows = values.reshape(len(values), -1)
    scale = np.abs(rows).max(axis=1).astype(np.float32) / 127
    scale[scale == 0] = 1
    quantized = np.rint(rows / scale[:, None]).clip(-127, 127).astype(np.int8)
    return Weight(quantized.reshape(values.shape), scale)


def apply_dynamic_quantization(model):
    """
    Quantize a torch captioning model in hand: int8 weights, inputs quantized as they come.

    The decoder is replaced by an int8 one, layer by layer; the encoder keeps float32, in which
    its convolutions run. Without an int8 engine in this torch the model is left as it is.

    :param model: a MobileNetCaptioningModel on the CPU.
    :return: the same model.
    """
    from .decoder import Decoder
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
