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
What a picture as a whole says of each word, beside the decoder that writes them in order.

Fang et al. 2015, "From Captions to Visual Concepts and Back", detect words to build and rank
captions of; here they raise the logits of the search.
"""

from collections.abc import Callable

import numpy as np

from .decoder import MakeProduct
from .errors import CheckpointError
from .weight import Weight


class WordDetector:
    """
    Two layers on the mean cell of an image.

    :param read: gives the parameter of a name, each asked for once.
    :param product: makes the product x @ weight.T + bias from a Weight and its bias.
    :param few_words: it will be asked in which part of the captions words are.
    :param least: its weights say from which part on each word is to be said.
    :raises CheckpointError: if its weights are damaged.
    """

    def __init__(
            self, read: Callable[[str], Weight], product: MakeProduct,
            few_words: bool = False, least: bool = False) -> None:
        # The log-odds of each word in an image of which nothing is known.
        self._usual = read('usual').values if few_words else None
        self.least = read('least').values if few_words and least else None  # (V,)
        if self.least is not None and not ((self.least >= 0) & (self.least <= 1)).all():
            raise CheckpointError('words.least is not within 0 and 1: the weights are damaged')
        self._mean = read('mean').values
        self._deviation = read('deviation').values
        if not (self._deviation > 0).all():
            raise CheckpointError('words.deviation is not above 0: the weights are damaged')
        self._hidden = product(read('hidden.weight'), read('hidden.bias').values)
        self._out = product(read('out.weight'), read('out.bias').values)

    def __call__(self, cells: np.ndarray) -> np.ndarray:
        """Return (V,): by how much (L, C) cells raise or lower the log-odds of each word."""
        x = (cells.mean(axis=0, keepdims=True) - self._mean) / self._deviation
        evidence: np.ndarray = self._out(np.maximum(self._hidden(x), 0))[0]
        return evidence

    def shares(self, evidence: np.ndarray) -> np.ndarray | None:
        """Return (V,): in which part of an image's captions each word is; None if not known."""
        if self._usual is None:
            return None
        shares: np.ndarray = 1 / (1 + np.exp(-np.clip(evidence + self._usual, -30, 30)))
        return shares
