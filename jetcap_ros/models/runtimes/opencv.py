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

"""The simple model in OpenCV's DNN module."""

from collections.abc import Callable
import re
from typing import Any, BinaryIO

import cv2
import numpy as np

from .runtime import Encoder, Runtime
from ..architectures import Block
from ..decoder import Product
from ..encoder_graph import encoder_graph, Read
from ..onnx_graph import convolution_graph, linear_graph, product_graph
from ..weight import Weight
from ...memory.memory_utils import trim_heap

ROWS = 128  # of a weight that are in float32 at a time
# Before 4.7, depthwise convolutions of maps narrower than this run without vector instructions,
# matrix products of two inputs in a BLAS, which may be the slow reference one, and those with a
# constant weight read it anew for each row: parts of it stay in the processor's cache meanwhile.
IS_OLD = tuple(map(int, re.findall(r'\d+', cv2.__version__)[:2])) < (4, 7)
WIDE_ENOUGH = 18
LEAST_WIDTH = WIDE_ENOUGH if IS_OLD else 0
# To read a graph takes four times its size: a large vocabulary is read in parts.
MAX_ROWS = 1024 if IS_OLD else 8192


def opencv_runtime(num_threads: int) -> Runtime:
    """Return OpenCV; it has one number of threads for all, 0: as many as there are cores."""
    cv2.setNumThreads(num_threads or -1)
    return Runtime(
        f'OpenCV {cv2.__version__}', opencv_encoder, opencv_product,
        convolution_product if IS_OLD else matrix_product)


def opencv_encoder(blocks: list[Block], read: Read, size: int) -> Encoder:
    """Return an encoder."""
    net = load_graph(encoder_graph(blocks, read, size, LEAST_WIDTH))

    def encoder(image: np.ndarray) -> np.ndarray:
        net.setInput(image)
        features: np.ndarray = net.forward()
        return features
    return encoder


def opencv_product(weight: Weight, bias: np.ndarray) -> Product:
    """
    Return a product with the weight in float32, twice: as it is, and as kernels want it.

    Three rows cost it little more than one, which NumPy's does not offer, and it shares the
    encoder's threads.
    """
    parts = [slice(start, start + MAX_ROWS) for start in range(0, len(bias), MAX_ROWS)]
    nets = [load_graph(linear_graph(weight.rows(part), bias[part])) for part in parts]

    def product(x: np.ndarray) -> np.ndarray:
        results = []
        for net in nets:
            net.setInput(np.ascontiguousarray(x))
            results.append(net.forward())
        return results[0] if len(results) == 1 else np.concatenate(results, axis=1)
    return product


def matrix_product(weight: Weight, bias: np.ndarray) -> Product:
    """Return a product that keeps the weight as it is stored, by a product of two inputs."""
    def forward(net: Any, columns: np.ndarray, block: np.ndarray) -> np.ndarray:
        net.setInput(columns, 'b')
        net.setInput(block, 'a')
        result: np.ndarray = net.forward()
        return result
    return _in_blocks(weight, bias, product_graph, forward)


def convolution_product(weight: Weight, bias: np.ndarray) -> Product:
    """Return a product that keeps the weight as it is stored, by a 1x1 convolution."""
    def forward(net: Any, columns: np.ndarray, block: np.ndarray) -> np.ndarray:
        net.setInput(columns[None, :, :, None], 'x')
        net.setInput(block[:, :, None, None], 'weight')
        result: np.ndarray = net.forward()[0, :, :, 0]
        return result
    return _in_blocks(weight, bias, convolution_graph, forward)


def _in_blocks(
        weight: Weight, bias: np.ndarray, graph: Callable[[int, int], BinaryIO],
        forward: Callable[[Any, np.ndarray, np.ndarray], np.ndarray]) -> Product:
    """Return a product for which int8 values become float32 a few rows at a time."""
    count, inner = weight.values.shape
    rows = min(ROWS, count)
    block = np.empty((rows, inner), np.float32)
    net = load_graph(graph(rows, inner))

    def product(x: np.ndarray) -> np.ndarray:
        columns = np.ascontiguousarray(x.T)
        result = np.empty((count, len(x)), np.float32)
        for start in range(0, count, rows):
            start = min(start, count - rows)  # all blocks of one shape
            np.copyto(block, weight.values[start:start + rows])
            result[start:start + rows] = forward(net, columns, block)
        if weight.scale is not None:
            result *= weight.scale[:, None]
        result += bias[:, None]
        return result.T
    return product


def load_graph(graph: BinaryIO) -> Any:
    """Return the OpenCV network of a file, which is closed; RuntimeError if it cannot be built."""
    try:
        with graph:
            return cv2.dnn.readNetFromONNX(f'/proc/self/fd/{graph.fileno()}')
    except cv2.error as error:
        raise RuntimeError(f'OpenCV {cv2.__version__} cannot build the model: {error}') from error
    finally:
        trim_heap()  # what reading took is several times what stays
