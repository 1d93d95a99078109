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
Write ONNX graphs in memory, for OpenCV's DNN module: encoders, and products.

A packed checkpoint holds each weight once, as int8; the graph is written when a model is loaded.
Only the few fields of the format that a chain of convolutions needs are written, so no ONNX
library is required on the robot. Field numbers: onnx.proto, operator set 9, which OpenCV reads
from 4.5 on.
"""

import struct
from typing import Callable, Dict, List, Sequence

import numpy as np

from .architectures import Block, SqueezeExcitation

OPERATOR_SET = 9
FLOAT, ATTRIBUTE_FLOAT, ATTRIBUTE_INT, ATTRIBUTE_INTS = 1, 1, 2, 7


def _varint(value: int) -> bytes:
    data = bytearray()
    while value > 0x7f:
        data.append(value & 0x7f | 0x80)
        value >>= 7
    data.append(value)
    return bytes(data)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value) -> bytes:
    value = value.encode() if isinstance(value, str) else value
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _attribute(name: str, value) -> bytes:
    if isinstance(value, float):
        body = _varint(2 << 3 | 5) + struct.pack('<f', value) + _number(20, ATTRIBUTE_FLOAT)
    elif isinstance(value, int):
        body = _number(3, value) + _number(20, ATTRIBUTE_INT)
    else:
        body = b''.join(_number(8, item) for item in value) + _number(20, ATTRIBUTE_INTS)
    return _bytes(5, _bytes(1, name) + body)


def _value_info(name: str, shape: Sequence[int]) -> bytes:
    dimensions = b''.join(_bytes(1, _number(1, size)) for size in shape)
    tensor = _number(1, FLOAT) + _bytes(2, dimensions)
    return _bytes(1, name) + _bytes(2, _bytes(1, tensor))


class _Graph:
    """Collects the nodes and weights of a graph with one value flowing through it."""

    def __init__(self) -> None:
        self.nodes: List[bytes] = []
        self.weights: List[bytes] = []
        self.shared: Dict[float, str] = {}

    def node(self, operator: str, inputs: Sequence[str], **attributes) -> str:
        output = f'{operator}_{len(self.nodes)}'
        self.nodes.append(_bytes(
            1, b''.join(_bytes(1, name) for name in inputs) + _bytes(2, output)
            + _bytes(3, output) + _bytes(4, operator)
            + b''.join(_attribute(name, value) for name, value in attributes.items())))
        return output

    def weight(self, name: str, values: np.ndarray) -> str:
        self.weights.append(_bytes(
            5, b''.join(_number(1, size) for size in values.shape) + _number(2, FLOAT)
            + _bytes(8, name) + _bytes(9, np.ascontiguousarray(values, '<f4').tobytes())))
        return name

    def constant(self, value: float) -> str:
        if value not in self.shared:
            self.shared[value] = self.weight(f'constant_{value}', np.array([value]))
        return self.shared[value]

    def model(self, source: str, shape: Sequence[int], output: str) -> bytes:
        body = b''.join(self.nodes) + _bytes(2, 'graph') + b''.join(self.weights)
        body += _bytes(11, _value_info(source, shape)) + _bytes(12, _value_info(output, ()))
        operators = _bytes(8, _bytes(1, '') + _number(2, OPERATOR_SET))
        return _number(1, 7) + operators + _bytes(7, body)

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


def encoder_graph(blocks: List[Block], read: Callable[[str], np.ndarray], size: int) -> bytes:
    """
    Return a serialized ONNX model, from 'image' (1, 3, size, size) to 'features' (1, C, h, w).

    :param blocks: the encoder, as `describe_encoder` gives it.
    :param read: gives the float32 parameter of a name, batch normalization folded in.
    """
    graph = _Graph()
    x = 'image'
    for block in blocks:
        y = x
        for layer in block.layers:
            if isinstance(layer, SqueezeExcitation):
                gate = graph.node('GlobalAveragePool', [y])
                for name, activation in (('fc1', 'relu'), ('fc2', '')):
                    gate = _convolution(graph, f'{layer.name}.{name}', gate, read)
                    gate = graph.activation(activation, gate)
                gate = graph.node('Clip', [graph.node('Add', [gate, graph.constant(3.0)])],
                                  min=0.0, max=6.0)
                gate = graph.node('Div', [gate, graph.constant(6.0)])
                y = graph.node('Mul', [y, gate])
                continue
            y = _convolution(
                graph, layer.name, y, read, layer.kernel, layer.stride,
                layer.in_channels if layer.depthwise else 1)
            y = graph.activation(layer.activation, y)
        x = graph.node('Add', [x, y]) if block.residual else y
    return graph.model('image', (1, 3, size, size), x)


def linear_graph(weight: np.ndarray, bias: np.ndarray) -> bytes:
    """Return a serialized ONNX model of x @ weight.T + bias, for any number of rows."""
    graph = _Graph()
    inputs = ['x', graph.weight('weight', weight), graph.weight('bias', bias)]
    return graph.model('x', (1, weight.shape[1]), graph.node(
        'Gemm', inputs, alpha=1.0, beta=1.0, transA=0, transB=1))


def _convolution(graph, name, x, read, kernel=1, stride=1, groups=1) -> str:
    weight = graph.weight(name + '.weight', read(name + '.weight'))
    bias = graph.weight(name + '.bias', read(name + '.bias'))
    return graph.node(
        'Conv', [x, weight, bias], dilations=[1, 1], group=groups, kernel_shape=[kernel] * 2,
        pads=[kernel // 2] * 4, strides=[stride] * 2)
