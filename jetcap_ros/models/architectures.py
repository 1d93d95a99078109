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
The MobileNet feature extractors as plain data: one description, several interpreters.

`encoder.py` builds a torch module from it and `encoder_graph.py` the graph that OpenCV runs, so
this file must not import a framework. Names of parameters are torchvision's
(`mobilenet_*().features`), sizes are read from a checkpoint or taken from the papers' tables.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

# Sandler et al. 2018, table 2: kernel, expansion, channels, repeats, stride of the first repeat.
MOBILENET_V2 = (
    (3, 1, 16, 1, 1), (3, 6, 24, 2, 2), (3, 6, 32, 3, 2), (3, 6, 64, 4, 2),
    (3, 6, 96, 3, 1), (3, 6, 160, 3, 2), (3, 6, 320, 1, 1))
# The same layers in other sizes: Tan and Le 2019, in the edition without squeeze and excitation,
# and scaled to 1.1 times the width and 1.2 times the depth.
EFFICIENTNET_LITE0 = (
    (3, 1, 16, 1, 1), (3, 6, 24, 2, 2), (5, 6, 40, 2, 2), (3, 6, 80, 3, 2),
    (5, 6, 112, 3, 1), (5, 6, 192, 4, 2), (3, 6, 320, 1, 1))
EFFICIENTNET_LITE2 = (
    (3, 1, 16, 1, 1), (3, 6, 24, 3, 2), (5, 6, 48, 3, 2), (3, 6, 88, 4, 2),
    (5, 6, 120, 4, 1), (5, 6, 208, 5, 2), (3, 6, 352, 1, 1))
# Howard et al. 2019, tables 1 and 2: kernel, expanded, channels, squeeze, activation, stride.
MOBILENET_V3_LARGE = (
    (3, 16, 16, False, 'relu', 1), (3, 64, 24, False, 'relu', 2), (3, 72, 24, False, 'relu', 1),
    (5, 72, 40, True, 'relu', 2), (5, 120, 40, True, 'relu', 1), (5, 120, 40, True, 'relu', 1),
    (3, 240, 80, False, 'hardswish', 2), (3, 200, 80, False, 'hardswish', 1),
    (3, 184, 80, False, 'hardswish', 1), (3, 184, 80, False, 'hardswish', 1),
    (3, 480, 112, True, 'hardswish', 1), (3, 672, 112, True, 'hardswish', 1),
    (5, 672, 160, True, 'hardswish', 2), (5, 960, 160, True, 'hardswish', 1),
    (5, 960, 160, True, 'hardswish', 1))
MOBILENET_V3_SMALL = (
    (3, 16, 16, True, 'relu', 2), (3, 72, 24, False, 'relu', 2), (3, 88, 24, False, 'relu', 1),
    (5, 96, 40, True, 'hardswish', 2), (5, 240, 40, True, 'hardswish', 1),
    (5, 240, 40, True, 'hardswish', 1), (5, 120, 48, True, 'hardswish', 1),
    (5, 144, 48, True, 'hardswish', 1), (5, 288, 96, True, 'hardswish', 2),
    (5, 576, 96, True, 'hardswish', 1), (5, 576, 96, True, 'hardswish', 1))

Sizes = Mapping[str, tuple[int, ...]]  # shapes by the name of a parameter
ENCODERS = (
    'mobilenet_v3_small', 'mobilenet_v2', 'mobilenet_v3_large', 'efficientnet_lite0',
    'efficientnet_lite2')


@dataclass(frozen=True)
class Convolution:
    """A convolution, its batch normalization and its activation."""

    name: str
    norm: str
    in_channels: int
    out_channels: int
    kernel: int
    stride: int
    depthwise: bool
    activation: str  # '', 'relu', 'relu6' or 'hardswish'


@dataclass(frozen=True)
class SqueezeExcitation:
    """A gate per channel, from the mean of the channel (hard sigmoid)."""

    name: str
    channels: int
    squeezed: int

    @property
    def out_channels(self) -> int:
        """Return as many channels as come in."""
        return self.channels


@dataclass(frozen=True)
class Block:
    """Layers in a row; the input is added to their output where `residual`."""

    layers: tuple[Convolution | SqueezeExcitation, ...]
    residual: bool


def norm_epsilon(architecture: str) -> float:
    """Return the batch normalization epsilon that this encoder is trained with."""
    return 1e-5 if architecture == 'mobilenet_v2' else 1e-3


def describe_encoder(
        architecture: str, sizes: Sizes | None = None) -> list[Block]:
    """
    Return the blocks of an encoder.

    :param architecture: one of ENCODERS.
    :param sizes: shapes of the weights by parameter name (without the `encoder.` in front), for
        checkpoints of other widths, pruned ones say; None: the sizes of the paper.
    :raises ValueError: for an unknown architecture or for shapes that do not fit it.
    """
    if architecture not in ENCODERS:
        raise ValueError(
            f'unknown encoder {architecture!r}: this package knows {", ".join(ENCODERS)}')
    describe = _describe_v3 if architecture.startswith('mobilenet_v3') else _describe_v2
    return describe(architecture, sizes)


def recognize_encoder(names: Iterable[str]) -> str:
    """Return the architecture that parameters of these names belong to, or raise ValueError."""
    names = frozenset(names)
    for architecture, first, last in (
            ('mobilenet_v2', '1.conv', 18), ('efficientnet_lite0', '1.conv', 17),
            ('efficientnet_lite2', '1.conv', 22),
            ('mobilenet_v3_small', '1.block', 12), ('mobilenet_v3_large', '1.block', 16)):
        if f'{first}.0.0.weight' in names and f'{last}.0.weight' in names \
                and f'{last + 1}.0.weight' not in names:
            return architecture
    raise ValueError(
        f'the encoder is none of {", ".join(ENCODERS)} (no parameters of their names)')


class _Builder:
    """Adds layers and follows the number of channels through them."""

    def __init__(self, sizes: Sizes | None) -> None:
        self.sizes = sizes
        self.channels = 3

    def shape(self, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
        if self.sizes is None:
            return default
        shape = self.sizes.get(name)
        if shape is None:
            raise ValueError(f'the encoder has no parameter {name}')
        if len(shape) != 4 or min(shape) < 1 or shape[2] != shape[3] or shape[2] != default[2]:
            raise ValueError(f'encoder.{name} has shape {tuple(shape)}, expected {default}')
        return tuple(shape)

    def convolution(
            self, name: str, norm: str, out_channels: int, kernel: int, stride: int,
            activation: str, depthwise: bool = False) -> Convolution:
        inputs = 1 if depthwise else self.channels
        shape = self.shape(
            name + '.weight', (self.channels if depthwise else out_channels, inputs, kernel,
                               kernel))
        if shape[1] != inputs or (depthwise and shape[0] != self.channels):
            raise ValueError(
                f'encoder.{name}.weight has shape {shape}, but {self.channels} channels come in')
        layer = Convolution(
            name, norm, self.channels, shape[0], kernel, stride, depthwise, activation)
        self.channels = shape[0]
        return layer

    def squeeze_excitation(self, name: str, squeezed: int) -> SqueezeExcitation:
        shape = self.shape(name + '.fc1.weight', (squeezed, self.channels, 1, 1))
        if shape[1] != self.channels:
            raise ValueError(
                f'encoder.{name}.fc1.weight has shape {shape}, but {self.channels} channels '
                'come in')
        return SqueezeExcitation(name, self.channels, shape[0])


def _divisible(channels: float) -> int:
    """Round to a multiple of 8, never down by more than a tenth (both papers)."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def _describe_v2(architecture: str, sizes: Sizes | None) -> list[Block]:
    table = {
        'mobilenet_v2': MOBILENET_V2, 'efficientnet_lite0': EFFICIENTNET_LITE0,
        'efficientnet_lite2': EFFICIENTNET_LITE2}[architecture]
    add = _Builder(sizes)
    blocks = [Block((add.convolution('0.0', '0.1', 32, 3, 2, 'relu6'),), False)]
    for kernel, expansion, channels, repeats, first_stride in table:
        for repeat in range(repeats):
            stride = first_stride if repeat == 0 else 1
            prefix = f'{len(blocks)}.conv'
            inputs = add.channels
            layers: list[Convolution | SqueezeExcitation] = []
            if expansion != 1:
                layers.append(add.convolution(
                    f'{prefix}.0.0', f'{prefix}.0.1', inputs * expansion, 1, 1, 'relu6'))
            n = len(layers)
            layers.append(add.convolution(
                f'{prefix}.{n}.0', f'{prefix}.{n}.1', 0, kernel, stride, 'relu6', depthwise=True))
            layers.append(add.convolution(
                f'{prefix}.{n + 1}', f'{prefix}.{n + 2}', channels, 1, 1, ''))
            blocks.append(Block(tuple(layers), stride == 1 and inputs == add.channels))
    last = len(blocks)
    blocks.append(Block((add.convolution(f'{last}.0', f'{last}.1', 1280, 1, 1, 'relu6'),), False))
    return blocks


def _describe_v3(architecture: str, sizes: Sizes | None) -> list[Block]:
    table = MOBILENET_V3_SMALL if architecture == 'mobilenet_v3_small' else MOBILENET_V3_LARGE
    add = _Builder(sizes)
    blocks = [Block((add.convolution('0.0', '0.1', 16, 3, 2, 'hardswish'),), False)]
    nominal = 16  # a pruned checkpoint keeps the layers of the table's widths
    for kernel, expanded, channels, squeeze, activation, stride in table:
        prefix = f'{len(blocks)}.block'
        inputs = add.channels
        layers: list[Convolution | SqueezeExcitation] = []
        if expanded != nominal:
            layers.append(add.convolution(
                f'{prefix}.0.0', f'{prefix}.0.1', expanded, 1, 1, activation))
        n = len(layers)
        layers.append(add.convolution(
            f'{prefix}.{n}.0', f'{prefix}.{n}.1', 0, kernel, stride, activation, depthwise=True))
        if squeeze:
            n += 1
            layers.append(add.squeeze_excitation(f'{prefix}.{n}', _divisible(expanded // 4)))
        layers.append(add.convolution(
            f'{prefix}.{n + 1}.0', f'{prefix}.{n + 1}.1', channels, 1, 1, ''))
        blocks.append(Block(tuple(layers), stride == 1 and inputs == add.channels))
        nominal = channels
    last = len(blocks)
    blocks.append(Block(
        (add.convolution(f'{last}.0', f'{last}.1', 6 * nominal, 1, 1, 'hardswish'),), False))
    return blocks


def parameter_shapes(
        blocks: list[Block], folded: bool = False) -> dict[str, tuple[int, ...]]:
    """
    Return the shape of every parameter and running statistic of an encoder, by name.

    :param folded: batch normalization is folded into the convolutions, which then have a bias.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in (layer for block in blocks for layer in block.layers):
        if isinstance(layer, SqueezeExcitation):
            for name, out, inputs in (
                    ('fc1', layer.squeezed, layer.channels),
                    ('fc2', layer.channels, layer.squeezed)):
                shapes[f'{layer.name}.{name}.weight'] = (out, inputs, 1, 1)
                shapes[f'{layer.name}.{name}.bias'] = (out,)
            continue
        shapes[f'{layer.name}.weight'] = (
            layer.out_channels, 1 if layer.depthwise else layer.in_channels, layer.kernel,
            layer.kernel)
        vectors = [f'{layer.name}.bias'] if folded else [
            f'{layer.norm}.{name}' for name in ('weight', 'bias', 'running_mean', 'running_var')]
        shapes.update((name, (layer.out_channels,)) for name in vectors)
    return shapes
