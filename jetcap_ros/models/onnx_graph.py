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
Write ONNX graphs in memory, for the runtimes that read them: encoders, and products.

A packed checkpoint holds each weight once, as int8; the graph is written when a model is loaded.
Only the few fields of the format that a chain of convolutions needs are written, so no ONNX
library is required on the robot. Field numbers: onnx.proto, operator set 9, which OpenCV reads
from 4.5 on, but for the products of whole numbers, which came with 10.
"""

from collections.abc import Callable, Mapping, Sequence
import functools
import os
import struct
from typing import BinaryIO

import numpy as np

from .architectures import Block, Convolution, SqueezeExcitation
from .weight import Weight

OPERATOR_SET = 9
FLOAT, UINT8, INT8, INT32, INT64 = 1, 2, 3, 6, 7
ATTRIBUTE_FLOAT, ATTRIBUTE_INT, ATTRIBUTE_INTS = 1, 2, 7
BY_ROWS = 7  # at most so high is what comes of such a depthwise convolution of 5x5
MAX_MAP = 1 << 18  # values of a feature map, if it can be had in parts
ROWS = 128  # of a weight that are in float32 at a time while it is written


Attribute = float | int | Sequence[int]
Read = Callable[[str], Weight]  # the parameter of a name


@functools.lru_cache(maxsize=1024)
def _varint(value: int) -> bytes:
    data = bytearray()
    while value > 0x7f:
        data.append(value & 0x7f | 0x80)
        value >>= 7
    data.append(value)
    return bytes(data)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _begin(field: int, size: int) -> bytes:
    return _varint(field << 3 | 2) + _varint(size)


def _bytes(field: int, value: bytes | str) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return _begin(field, len(data)) + data


def _attribute(name: str, value: Attribute) -> bytes:
    if isinstance(value, float):
        body = _varint(2 << 3 | 5) + struct.pack('<f', value) + _number(20, ATTRIBUTE_FLOAT)
    elif isinstance(value, int):
        body = _number(3, value) + _number(20, ATTRIBUTE_INT)
    else:
        body = b''.join(_number(8, item) for item in value) + _number(20, ATTRIBUTE_INTS)
    return _bytes(5, _bytes(1, name) + body)


def _value_info(name: str, shape: Sequence[int], kind: int) -> bytes:
    dimensions = b''.join(_bytes(1, _number(1, size) if size else b'') for size in shape)
    tensor = _number(1, kind) + _bytes(2, dimensions)
    return _bytes(1, name) + _bytes(2, _bytes(1, tensor))


class _Graph:
    """
    Writes a graph with one value flowing through it.

    The format's readers merge the parts of a message that comes in parts, so each node and weight
    is written as a part of its own, as soon as it is known. The file is one in memory: OpenCV
    makes a copy less of a file than of bytes.
    """

    def __init__(self, least_width: int = 0, operator_set: int = OPERATOR_SET) -> None:
        self.least_width = least_width
        self.file = os.fdopen(os.memfd_create('graph'), 'wb')
        self.file.write(_number(1, 7) + _bytes(8, _bytes(1, '') + _number(2, operator_set)))
        self._add(_bytes(2, 'graph'))
        self._nodes = 0
        self._shared: dict[float, str] = {}
        self._shapes: set[str] = set()

    def _add(self, field: bytes) -> None:
        self.file.write(_bytes(7, field))

    def node(self, operator: str, inputs: Sequence[str], **attributes: Attribute) -> str:
        output = f'{operator}_{self._nodes}'
        self._nodes += 1
        self._add(_bytes(
            1, b''.join(_bytes(1, name) for name in inputs) + _bytes(2, output)
            + _bytes(3, output) + _bytes(4, operator)
            + b''.join(_attribute(name, value) for name, value in attributes.items())))
        return output

    def weight(self, name: str, weight: Weight) -> str:
        shape = weight.values.shape
        tensor = (b''.join(_number(1, size) for size in shape) + _number(2, FLOAT)
                  + _bytes(8, name) + _begin(9, 4 * weight.values.size))
        size = len(tensor) + 4 * weight.values.size
        tensor = _begin(5, size) + tensor
        self.file.write(_begin(7, len(_begin(5, size)) + size) + tensor)
        for start in range(0, len(weight.values), ROWS):
            values = weight.rows(slice(start, start + ROWS)).dequantized()
            self.file.write(np.ascontiguousarray(values, '<f4').data)
        return name

    def integers(self, name: str, values: np.ndarray) -> str:
        """Write (u)int8 or int64 values; like a weight, which is written as float32."""
        kind = {'uint8': UINT8, 'int8': INT8, 'int64': INT64}[values.dtype.name]
        self._add(_bytes(
            5, b''.join(_number(1, size) for size in values.shape) + _number(2, kind)
            + _bytes(8, name) + _bytes(9, values.tobytes())))
        return name

    def shape(self, *sizes: int) -> str:
        name = f'shape_{sizes}'
        if name not in self._shapes:
            self._shapes.add(self.integers(name, np.array(sizes, np.int64)))
        return name

    def constant(self, value: float) -> str:
        if value not in self._shared:
            self._shared[value] = self.weight(
                f'constant_{value}', Weight(np.array([value], np.float32)))
        return self._shared[value]

    def model(
            self, inputs: Mapping[str, Sequence[int]], output: str, output_rank: int,
            kinds: tuple[int, int] = (FLOAT, FLOAT)) -> BinaryIO:
        """Return the file; a size of 0 is any, kinds are those of all inputs and of the output."""
        for name, shape in inputs.items():
            self._add(_bytes(11, _value_info(name, shape, kinds[0])))
        self._add(_bytes(12, _value_info(output, (0,) * output_rank, kinds[1])))
        self.file.flush()
        return self.file

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
    graph = _Graph(least_width)
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


def linear_graph(weight: Weight, bias: np.ndarray) -> BinaryIO:
    """Return the file of an ONNX model of x @ weight.T + bias, for any number of rows."""
    graph = _Graph()
    inputs = ['x', graph.weight('weight', weight), graph.weight('bias', Weight(bias))]
    y = graph.node('Gemm', inputs, alpha=1.0, beta=1.0, transA=0, transB=1)
    return graph.model({'x': (0, weight.values.shape[1])}, y, 2)


def product_graph(rows: int, inner: int) -> BinaryIO:
    """Return the file of an ONNX model of a @ b for a (rows, inner) and any b (inner, columns)."""
    graph = _Graph()
    return graph.model({'a': (rows, inner), 'b': (inner, 1)}, graph.node('MatMul', ['a', 'b']), 2)


def convolution_graph(rows: int, inner: int) -> BinaryIO:
    """Return the file of an ONNX model: the same, of (1, inner, columns, 1) and a weight."""
    graph = _Graph()
    return graph.model(
        {'x': (1, inner, 1, 1), 'weight': (rows, inner, 1, 1)},
        graph.node('Conv', ['x', 'weight'], kernel_shape=[1, 1]), 4)


def integer_graph(values: np.ndarray, zero: int) -> BinaryIO:
    """Return the file of an ONNX model of (x - zero) @ values.T: uint8 x, int8 values, int32."""
    graph = _Graph(operator_set=10)
    inputs = ['x', graph.integers('weight', np.ascontiguousarray(values.T)),
              graph.integers('zero', np.array(zero, np.uint8))]
    return graph.model(
        {'x': (0, values.shape[1])}, graph.node('MatMulInteger', inputs), 2, (UINT8, INT32))


def _parameters(name: str, read: Read) -> tuple[Weight, Weight]:
    return read(name + '.weight'), read(name + '.bias')


def _convolution(
        graph: _Graph, name: str, x: str, weight: Weight, bias: Weight | None = None,
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
        graph: _Graph, layer: Convolution, x: str, weight: Weight, bias: Weight, side: int,
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
        graph: _Graph, layer: Convolution, x: str, weight: Weight, bias: Weight, side: int,
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
        graph: _Graph, layer: Convolution, x: str, weight: Weight, bias: Weight, side: int,
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
        graph: _Graph, layer: SqueezeExcitation, x: str, read: Read) -> str:
    gate = graph.node('GlobalAveragePool', [x])
    for name, activation in (('fc1', 'relu'), ('fc2', '')):
        name = f'{layer.name}.{name}'
        gate = _convolution(graph, name, gate, *_parameters(name, read))
        gate = graph.activation(activation, gate)
    gate = graph.node('Clip', [graph.node('Add', [gate, graph.constant(3.0)])], min=0.0, max=6.0)
    gate = graph.node('Div', [gate, graph.constant(6.0)])
    return graph.node('Mul', [x, gate])


def _bottleneck(
        graph: _Graph, layers: Sequence[Convolution], x: str, read: Read, channels: int,
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
