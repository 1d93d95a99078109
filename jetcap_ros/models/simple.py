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
The simple captioning model: OpenCV runs the encoder and the products, NumPy the rest.

The same weights, vocabulary and search as the full model, in a fraction of its memory, since no
deep learning framework is loaded.
"""

from typing import Any, BinaryIO

import cv2
import numpy as np

from .checkpoint import Checkpoint
from .decoder import Decoder, Product
from .errors import CheckpointError
from .generation import CaptioningModel
from .onnx_graph import encoder_graph, linear_graph, product_graph, ROWS
from .weight import Weight
from .weight_reader import WeightReader
from .word_detector import WordDetector
from ..images.preprocessing import SIZE
from ..memory.memory_utils import pre_cleanup

MAX_ROWS = 8192  # of a graph's weight


def opencv_product(weight: Weight, bias: np.ndarray) -> Product:
    """
    Return a product on OpenCV's DNN module.

    Three rows cost it as much as one, which NumPy's does not offer, and it shares the encoder's
    threads.
    """
    # To read a graph takes four times its size: a large vocabulary is read in parts.
    parts = [slice(start, start + MAX_ROWS) for start in range(0, len(bias), MAX_ROWS)]
    nets = [load_graph(linear_graph(weight.rows(part), bias[part])) for part in parts]

    def product(x: np.ndarray) -> np.ndarray:
        results = []
        for net in nets:
            net.setInput(np.ascontiguousarray(x))
            results.append(net.forward())
        return results[0] if len(results) == 1 else np.concatenate(results, axis=1)
    return product


def compact_product(weight: Weight, bias: np.ndarray) -> Product:
    """
    Return a product that keeps the weight as it is stored, for what is needed once an image.

    OpenCV would hold the weight twice, as it is and as its kernels want it, in float32. Here
    int8 values become float32 a few rows at a time.
    """
    count, inner = weight.values.shape
    rows = min(ROWS, count)
    block = np.empty((rows, inner), np.float32)
    net = load_graph(product_graph(rows, inner))

    def product(x: np.ndarray) -> np.ndarray:
        net.setInput(np.ascontiguousarray(x.T), 'b')
        result = np.empty((count, len(x)), np.float32)
        for start in range(0, count, rows):
            start = min(start, count - rows)  # all blocks of one shape
            np.copyto(block, weight.values[start:start + rows])
            net.setInput(block, 'a')
            result[start:start + rows] = net.forward()
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
        pre_cleanup()  # what reading took is several times what stays


class SimpleCaptioningModel(CaptioningModel):
    """
    Captions images of 224x224 without a deep learning framework.

    :param checkpoint: a packed one.
    :raises CheckpointError: if it is a `.pth`, or damaged.
    """

    name = 'simple'

    def __init__(self, checkpoint: Checkpoint) -> None:
        if not checkpoint.packed:
            raise CheckpointError(
                f'{checkpoint.path}: the simple model reads packed files only; make one with '
                f'`jetcap pack {checkpoint.path} --out FILE.safetensors`')
        super().__init__(checkpoint.vocabulary, checkpoint.score_calibration, checkpoint.search)
        # The largest graph first, while there is most room for what reading it takes.
        with WeightReader(checkpoint) as reader:
            self.decoder = Decoder(
                lambda name: reader.read(f'decoder.{name}'), checkpoint.embed_dim,
                checkpoint.decoder_dim, checkpoint.attention_dim, opencv_product, compact_product)
            if checkpoint.words:
                self.word_detector = WordDetector(
                    lambda name: reader.read(f'words.{name}'), compact_product)
            self._encoder = load_graph(encoder_graph(
                checkpoint.blocks, lambda name: reader.read(f'encoder.{name}'), SIZE))

    def cells(self, image: np.ndarray) -> np.ndarray:
        """Return the features (49, C) of a normalized image (1, 3, 224, 224)."""
        self._encoder.setInput(np.asarray(image, np.float32))
        features: np.ndarray = self._encoder.forward()[0]
        return features.reshape(len(features), -1).T
