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
The simple captioning model: the same weights, vocabulary and search as the full one.

It takes a fraction of the full model's memory, since no deep learning framework is loaded: a
runtime made for inference has the encoder and the products, NumPy the rest.
"""

import numpy as np

from .beside import Beside
from .checkpoint import Checkpoint
from .decoder import Decoder
from .errors import CheckpointError
from .generation import CaptioningModel
from .runtimes.blas import row_product
from .runtimes.fastest import Fastest
from .weight_reader import WeightReader
from .word_detector import WordDetector


class SimpleCaptioningModel(CaptioningModel):
    """
    Captions images without a deep learning framework.

    :param checkpoint: a packed one.
    :param runtimes: what it runs in.
    :raises CheckpointError: if it is a `.pth`, or damaged.
    """

    name = 'simple'

    def __init__(self, checkpoint: Checkpoint, runtimes: Fastest) -> None:
        if not checkpoint.packed:
            raise CheckpointError(
                f'{checkpoint.path}: the simple model reads packed files only; make one with '
                f'`jetcap pack {checkpoint.path} --out FILE.safetensors`')
        super().__init__(
            checkpoint.vocabulary, checkpoint.score_calibration, checkpoint.search,
            checkpoint.image_size)
        with WeightReader(checkpoint) as reader:
            # The decoder's few weights fill pages of 2 MB by themselves; the many small ones of the
            # encoder are given them in the main thread's heap alone.
            decoder = Beside(lambda: self._load_decoder(checkpoint, reader, runtimes))
            if not runtimes.timed:  # what is timed runs alone
                decoder.wait()
            self._encoder = runtimes.encoder(
                checkpoint.blocks, lambda name: reader.read(f'encoder.{name}'),
                self.image_size)
            decoder.result()

    def _load_decoder(
            self, checkpoint: Checkpoint, reader: WeightReader, runtimes: Fastest) -> None:
        self.decoder = Decoder(
            lambda name: reader.read(f'decoder.{name}'), checkpoint.embed_dim,
            checkpoint.decoder_dim, checkpoint.attention_dim, runtimes.product,
            runtimes.image_product, row_product, checkpoint.few_words)
        if checkpoint.words:
            self.word_detector = WordDetector(
                lambda name: reader.read(f'words.{name}'), row_product,
                checkpoint.few_words, 'least' in checkpoint.words)

    def cells(self, image: np.ndarray) -> np.ndarray:
        """Return the features (L, C) of a normalized image (1, 3, size, size)."""
        features: np.ndarray = self._encoder(np.asarray(image, np.float32))[0]
        return features.reshape(len(features), -1).T
