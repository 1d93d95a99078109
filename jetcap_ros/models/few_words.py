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
The beam search among the few words that an image can call for.

Most of a vocabulary has no place in a caption of one image, and the word detector knows which
part: the logits of the rest need not be computed. L'Hostis et al. 2016, "Vocabulary Selection
Strategies for Neural Machine Translation", choose target words by what a sentence says.
"""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

import numpy as np

from .checkpoint import LIKELY
from .decoder import Decoder, State
from .search import beam_search, Hypothesis

# How much likely words count, in which part of the captions a word has to be to add anything if
# the checkpoint does not say, and what is added to each part, lest a word that is seen nowhere
# decides alone. Chosen on validation pictures.
PREFERENCE, LEAST_SHARE, FLOOR = 0.2, 0.12, 0.02


class _Few:
    """A decoder that knows few words, each called by its place among them."""

    def __init__(self, decoder: Decoder, words: np.ndarray) -> None:
        self._decoder = decoder
        self._words = words
        self._logits = decoder.to_few(words)
        self.start = decoder.start
        self.select = decoder.select

    def step(
            self, words: np.ndarray, state: State) -> tuple[np.ndarray, State, np.ndarray]:
        state, attention = self._decoder.advance(self._words[words], state)
        return self._logits(state.hidden), state, attention


def worth(shares: np.ndarray, least: np.ndarray | float = LEAST_SHARE) -> np.ndarray:
    """
    Return what words add to the value of a finished caption that holds them, the same shape.

    :param shares: in which part of the image's captions each word is.
    :param least: in which part each has to be to add anything; in less it takes away.
    """
    added: np.ndarray = PREFERENCE * np.log((shares + FLOOR) / (least + FLOOR))
    return added


def few_words_search(
        decoder: Decoder, shares: np.ndarray, cells: np.ndarray, start: int, end: int,
        max_length: int, beam_size: int, *, gains: np.ndarray, least: np.ndarray | None = None,
        forbidden: Sequence[int] = (), relatives: Mapping[int, Sequence[int]] | None = None,
        **options: Any) -> Hypothesis:
    """
    Return what `beam_search` finds if there are no words but the likely ones.

    Of the captions that come to an end, those are preferred whose words are likely: the detector
    has seen them in the image as a whole, whatever the words before them are.

    :param shares: (V,) in which part of the image's captions each word is; least: (V,) for
        `worth`.
    """
    words = np.union1d(
        np.argpartition(shares, -LIKELY)[-LIKELY:], [start, end, *forbidden])
    known = words.tolist()
    place = {word: index for index, word in enumerate(known)}

    def places(some: Sequence[int]) -> list[int]:
        return [place[word] for word in some if word in place]

    relatives = relatives or {}
    found = beam_search(
        _Few(decoder, words), cells, place[start], place[end], max_length, beam_size,
        gains=gains[words], forbidden=places(forbidden),
        worth=worth(shares[words], LEAST_SHARE if least is None else least[words]),
        relatives={index: places(relatives.get(word, ())) for word, index in place.items()},
        **options)
    return dataclasses.replace(found, indices=[known[index] for index in found.indices])
