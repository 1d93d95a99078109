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
Write ONNX graphs in memory, for the runtimes that read them; here are those of products.

A packed checkpoint holds each weight once, as int8; the graph is written when a model is loaded.
Only the few fields of the format that a chain of convolutions needs are written, so no ONNX
library is required on the robot. Field numbers: onnx.proto, operator set 9, which OpenCV reads
from 4.5 on, but for the products of whole numbers, which came with 10.
"""

from collections.abc import Mapping, Sequence
import functools
import os
import struct
from typing import BinaryIO

import numpy as np

from .weight import Weight

OPERATOR_SET = 9
FLOAT, UINT8, INT8, INT32, INT64 = 1, 2, 3, 6, 7
ATTRIBUTE_FLOAT, ATTRIBUTE_INT, ATTRIBUTE_INTS = 1, 2, 7
ROWS = 128  # of a weight that are in float32 at a time while it is written
Attribute = float | int | Sequence[int]


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


class Graph:
    """
    Writes a graph with one value flowing through it.

    The format's readers merge the parts of a message that comes in parts, so each node and weight
    is written as a part of its own, as soon as it is known. The file is one in memory: OpenCV
    makes a copy less of a file than of bytes.
    """

    def __init__(self, operator_set: int = OPERATOR_SET) -> None:
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


def linear_graph(weight: Weight, bias: np.ndarray) -> BinaryIO:
    """Return the file of an ONNX model of x @ weight.T + bias, for any number of rows."""
    graph = Graph()
    inputs = ['x', graph.weight('weight', weight), graph.weight('bias', Weight(bias))]
    y = graph.node('Gemm', inputs, alpha=1.0, beta=1.0, transA=0, transB=1)
    return graph.model({'x': (0, weight.values.shape[1])}, y, 2)


def product_graph(rows: int, inner: int) -> BinaryIO:
    """Return the file of an ONNX model of a @ b for a (rows, inner) and any b (inner, columns)."""
    graph = Graph()
    return graph.model({'a': (rows, inner), 'b': (inner, 1)}, graph.node('MatMul', ['a', 'b']), 2)


def convolution_graph(rows: int, inner: int) -> BinaryIO:
    """Return the file of an ONNX model: the same, of (1, inner, columns, 1) and a weight."""
    graph = Graph()
    return graph.model(
        {'x': (1, inner, 1, 1), 'weight': (rows, inner, 1, 1)},
        graph.node('Conv', ['x', 'weight'], kernel_shape=[1, 1]), 4)


def integer_graph(values: np.ndarray, zero: int) -> BinaryIO:
    """Return the file of an ONNX model of (x - zero) @ values.T: uint8 x, int8 values, int32."""
    graph = Graph(operator_set=10)
    inputs = ['x', graph.integers('weight', np.ascontiguousarray(values.T)),
              graph.integers('zero', np.array(zero, np.uint8))]
    return graph.model(
        {'x': (0, values.shape[1])}, graph.node('MatMulInteger', inputs), 2, (UINT8, INT32))
