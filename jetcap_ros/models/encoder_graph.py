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

"""Write the ONNX graph of an encoder as OpenCV and other runtimes are fast with it."""

from collections.abc import Callable, Sequence
from typing import BinaryIO

import numpy as np

from .architectures import Block, Convolution, SqueezeExcitation
from .onnx_graph import Graph
from .weight import Weight

BY_ROWS = 8  # at most so high is what comes of such a depthwise convolution of 5x5
MAX_MAP = 1 << 18  # values of a feature map, if it can be had in parts
Read = Callable[[str], Weight]  # the parameter of a name


class _EncoderGraph(Graph):
    """A graph with activations, and maps of a least width for depthwise convolutions of 3x3."""

    def __init__(self, least_width: int) -> None:
        super().__init__()
        self.least_width = least_width

    def activation(self, kind: str, x: str) -> str:
        if kind == 'relu':
            return self.node('Relu', [x])
        if kind == 'relu6':
            return self.node('Clip', [x], min=0.0, max=6.0)
        if kind == 'hardswish':
            clipped = self.node('Clip', [self.node('Add', [x, self.constant(3.0)])],
                                min=0.0, max=6.0)
            return self.node('Div', [self.node('Mul', [x, clipped]), self.constant(6.0)])
        return x


def encoder_graph(
        blocks: list[Block], read: Read, size: int, least_width: int = 0) -> BinaryIO:
    """
    Return the file of an ONNX model, from 'image' (1, 3, size, size) to 'features' (1, C, h, w).

    :param blocks: the encoder, as `describe_encoder` gives it.
    :param read: gives the parameter of a name, batch normalization folded in.
    :param least_width: that a map is padded to for a depthwise convolution of 3x3.
    """
    graph = _EncoderGraph(least_width)
    x, side = 'image', size
    for block in blocks:
        plain = [layer for layer in block.layers if isinstance(layer, Convolution)]
        if len(block.layers) == 3 and [layer.depthwise for layer in plain] == [False, True, False]:
            # In groups of 16 channels, as kernels have them.
            channels = max(16, MAX_MAP // side ** 2 // 16 * 16)
            y = _bottleneck(graph, plain, x, read, channels, side)
        else:
            y = x
            for layer in block.layers:
                if isinstance(layer, SqueezeExcitation):
                    y = _squeeze_excitation(graph, layer, y, read)
                else:
                    y = _layer(graph, layer, y, *_parameters(layer.name, read), side)
        x = graph.node('Add', [x, y]) if block.residual else y
        for layer in block.layers:
            side //= getattr(layer, 'stride', 1)
    return graph.model({'image': (1, 3, size, size)}, x, 4)


def _parameters(name: str, read: Read) -> tuple[Weight, Weight]:
    return read(name + '.weight'), read(name + '.bias')


def _convolution(
        graph: _EncoderGraph, name: str, x: str, weight: Weight, bias: Weight | None = None,
        kernel: int = 1, stride: int = 1, groups: int = 1, padding: int = 0) -> str:
    inputs = [x, graph.weight(name + '.weight', weight)]
    if bias is not None:
        inputs.append(graph.weight(name + '.bias', bias))
    # OpenCV 5 keeps a second copy of the weights where it is told of a stride of 1, which is
    # no faster; it is the default.
    strides = {'strides': [stride] * 2} if stride > 1 else {}
    return graph.node(
        'Conv', inputs, group=groups, kernel_shape=[kernel] * 2, pads=[padding] * 4, **strides)


def _layer(
        graph: _EncoderGraph, layer: Convolution, x: str, weight: Weight, bias: Weight, side: int,
        part: str = '') -> str:
    """Return the output of a layer; `side` is that of its input."""
    if layer.depthwise and layer.kernel == 5 and graph.least_width:
        if side <= BY_ROWS * layer.stride:
            return _depthwise_by_rows(graph, layer, x, weight, bias, side, part)
        return _depthwise_5x5(graph, layer, x, weight, bias, side, part)
    narrow = layer.depthwise and layer.kernel == 3 and side + 2 < graph.least_width
    if narrow:
        x = graph.node('Pad', [x], pads=[0, 0, 1, 1, 0, 0, 1, graph.least_width - side - 1])
    y = _convolution(
        graph, layer.name + part, x, weight, bias, layer.kernel, layer.stride,
        len(weight.values) if layer.depthwise else 1, 0 if narrow else layer.kernel // 2)
    y = graph.activation(layer.activation, y)
    if narrow:
        y = graph.node('Slice', [y], axes=[3], starts=[0], ends=[-(-side // layer.stride)])
    return y


def _depthwise_5x5(
        graph: _EncoderGraph, layer: Convolution, x: str, weight: Weight, bias: Weight, side: int,
        part: str) -> str:
    """Return the output of a layer as the sum of four depthwise convolutions of 3x3."""
    out = -(-side // layer.stride)
    x = graph.node('Pad', [x], pads=[0, 0, 2, 2, 0, 0, 2, max(2, graph.least_width - side - 2)])
    kernel = weight.dequantized()
    total = ''
    for row in (0, 2):
        for column in (0, 2):
            corner = kernel[..., row:row + 3, column:column + 3].copy()
            # The middle row and column are those of the first.
            corner[..., :row // 2, :] = corner[..., :column // 2] = 0
            y = _convolution(
                graph, f'{layer.name}{part}.{row}{column}', x, Weight(corner),
                None if total else bias, 3, layer.stride, len(kernel))
            row_, column_ = row // layer.stride, column // layer.stride
            y = graph.node('Slice', [y], axes=[2, 3], starts=[row_, column_],
                           ends=[row_ + out, column_ + out])
            total = graph.node('Add', [total, y]) if total else y
    return graph.activation(layer.activation, total)


def _depthwise_by_rows(
        graph: _EncoderGraph, layer: Convolution, x: str, weight: Weight, bias: Weight, side: int,
        part: str) -> str:
    """
    Return the output of a layer; in the graph each row of a channel is a channel.

    Those of one make a group, and each row that comes of them is a convolution of 1xk. There are
    a multiple of eight, or OpenCV would arrange the weights a second time.
    """
    kernel = weight.dequantized()[:, 0]
    channels, size, _ = kernel.shape
    out, rows = -(-side // layer.stride), -(-side // 8) * 8
    bands = np.zeros((channels, out, rows, 1, size), np.float32)
    for row in range(out):
        first = row * layer.stride - size // 2
        taps = slice(max(0, -first), min(size, side - first))
        bands[:, row, first + taps.start:first + taps.stop, 0] = kernel[:, taps]
    x = graph.node('Pad', [x], pads=[0, 0, 0, 0, 0, 0, rows - side, 0])
    x = graph.node('Reshape', [x, graph.shape(1, channels * rows, 1, side)])
    y = graph.node('Conv', [
        x, graph.weight(f'{layer.name}{part}.weight', Weight(bands.reshape(-1, rows, 1, size))),
        graph.weight(f'{layer.name}{part}.bias', Weight(np.repeat(bias.values, out)))],
        group=channels, kernel_shape=[1, size], pads=[0, size // 2] * 2,
        strides=[1, layer.stride])
    y = graph.activation(layer.activation, y)
    return graph.node('Reshape', [y, graph.shape(1, channels, out, out)])


def _squeeze_excitation(
        graph: _EncoderGraph, layer: SqueezeExcitation, x: str, read: Read) -> str:
    gate = graph.node('GlobalAveragePool', [x])
    for name, activation in (('fc1', 'relu'), ('fc2', '')):
        name = f'{layer.name}.{name}'
        gate = _convolution(graph, name, gate, *_parameters(name, read))
        gate = graph.activation(activation, gate)
    gate = graph.node('Clip', [graph.node('Add', [gate, graph.constant(3.0)])], min=0.0, max=6.0)
    gate = graph.node('Div', [gate, graph.constant(6.0)])
    return graph.node('Mul', [x, gate])


def _bottleneck(
        graph: _EncoderGraph, layers: Sequence[Convolution], x: str, read: Read, channels: int,
        side: int) -> str:
    """
    Return the output of an inverted residual, with so many channels in its middle at a time.

    Its wide middle has the largest maps there are; what parts of it lead to only adds up.
    """
    expand, depthwise, project = layers
    (w1, b1), (w2, b2), (w3, b3) = (_parameters(layer.name, read) for layer in layers)
    total = ''
    for start in range(0, expand.out_channels, channels):
        part, name = slice(start, start + channels), f'.{start}'
        y = _layer(graph, expand, x, w1.rows(part), b1.rows(part), side, name)
        y = _layer(graph, depthwise, y, w2.rows(part), b2.rows(part), side, name)
        y = _convolution(
            graph, project.name + name, y, w3.columns(start, start + channels),
            None if total else b3)
        total = graph.node('Add', [total, y]) if total else y
    return graph.activation(project.activation, total)
