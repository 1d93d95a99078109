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

"""What all captioning models have in common: from an image to a caption."""

from collections.abc import Mapping
from dataclasses import dataclass
import functools
import math
from typing import Any

import numpy as np

from .few_words import few_words_search
from .repetition import relatives
from .search import beam_search, greedy_search, Hypothesis, SearchDecoder
from .vocabulary import END, START, Vocabulary
from .word_detector import WordDetector
from ..images.limits import SIZE
from ..images.preprocessing import normalize, squash


WORD_GAIN = 0.3  # where the checkpoint says nothing of it


@dataclass
class GeneratedCaption:
    """A caption and what can be said of it."""

    text: str
    indices: list[int]
    log_probability: float  # mean of a token, in nats
    value: float  # the same and what its words are worth: the score comes of it
    score: float  # 0..1, calibrated where the checkpoint says how
    attention: np.ndarray  # (cells, cells), sums to 1: where the words looked, on average


class CaptioningModel:
    """
    Base of the models, which provide `cells(image)` and a `decoder`.

    An image is a NumPy array, or a tensor where the model knows them.

    :param calibration: 'slope' and 'intercept' of the logistic curve from a caption's value to the
        score; without them the score is the mean probability of a token.
    :param search_options: 'length_penalty' and 'block_ngram' of the beam search, 'say_once' (1: no
        word but small ones comes twice), and 'word_gain', the part that the word detector, if there
        is one, has in it.
    :param image_size: pixels, of both sides of what the encoder sees.
    """

    name = ''
    decoder: Any
    word_detector: WordDetector | None = None

    def __init__(
            self, vocabulary: Vocabulary | None = None,
            calibration: Mapping[str, float] | None = None,
            search_options: Mapping[str, float] | None = None, image_size: int = SIZE) -> None:
        self.vocabulary = vocabulary
        self.calibration = dict(calibration or {})
        self.search_options = dict(search_options or {})
        self.image_size = image_size

    def cells(self, image: Any) -> Any:
        """Return the features of a normalized image (1, 3, size, size), a row each cell."""
        raise NotImplementedError

    def search_cells(self, image: Any) -> Any:
        """Return the features in the form that the search's decoder wants."""
        return self.cells(image)

    @property
    def search_decoder(self) -> SearchDecoder:
        """Return the decoder, in the form that the search wants."""
        decoder: SearchDecoder = self.decoder
        return decoder

    def search(
            self, image: Any, start: int, end: int, max_length: int, beam_size: int = 1,
            word_gain: float = 0.0, **options: Any) -> Hypothesis:
        """
        Return the best caption of a normalized image.

        :param options: of `beam_search`; a beam of 1 without any is greedy decoding.
        """
        cells = self.search_cells(image)
        gains = None
        if word_gain and self.word_detector:
            evidence = self.word_detector(cells)
            gains = word_gain * np.maximum(evidence, 0)
            gains[end] = 0
            shares = self.word_detector.shares(evidence)
            if shares is not None:
                return few_words_search(
                    self.decoder, shares, cells, start, end, max_length, beam_size, gains=gains,
                    least=self.word_detector.least, **options)
        if beam_size == 1 and gains is None and not any(options.values()):
            return greedy_search(self.search_decoder, cells, start, end, max_length)
        return beam_search(
            self.search_decoder, cells, start, end, max_length, beam_size, gains=gains, **options)

    def generate(
            self, image: Any, word_map: Mapping[str, int], rev_word_map: Mapping[int, str],
            max_len: int = 20) -> list[str]:
        """
        Caption an image greedily.

        :param image: normalized (1, 3, size, size), or an (H, W, 3) uint8 RGB picture.
        :return: the words, with <end> last if the caption came to its end.
        """
        found = self.search(self.as_input(image), word_map[START], word_map[END], max_len)
        return [rev_word_map[index] for index in found.indices]

    def caption(
            self, image: np.ndarray, beam_size: int = 5, max_length: int = 20) -> GeneratedCaption:
        """Caption an (H, W, 3) uint8 RGB picture; special tokens are never chosen."""
        vocabulary = self.vocabulary
        if vocabulary is None:
            raise ValueError('this model was made without a vocabulary')
        found = self.search(
            self.as_input(image), vocabulary.start, vocabulary.end, max_length,
            beam_size, forbidden=vocabulary.special,
            length_penalty=self.search_options.get('length_penalty', 0.0),
            block_ngram=int(self.search_options.get('block_ngram', 0)),
            relatives=self._relatives if self.search_options.get('say_once') else None,
            word_gain=self.search_options.get('word_gain', WORD_GAIN))
        attention = found.attention.mean(axis=0)
        side = math.isqrt(len(attention))
        return GeneratedCaption(
            vocabulary.sentence(found.indices), found.indices, found.mean_log_probability,
            found.value, self.score(found), attention.reshape(side, side))

    @functools.cached_property
    def _relatives(self) -> Mapping[int, list[int]]:
        return relatives(self.vocabulary.words if self.vocabulary else ())

    def score(self, found: Hypothesis) -> float:
        """Return how far a caption can be trusted, 0..1."""
        if not self.calibration:
            return math.exp(found.mean_log_probability)
        logit = self.calibration['slope'] * found.value + self.calibration['intercept']
        return 1 / (1 + math.exp(-max(-30.0, min(30.0, logit))))

    def as_input(self, image: Any) -> Any:
        """Return the normalized image of a picture; one that is normalized stays as it is."""
        if isinstance(image, np.ndarray) and image.dtype == np.uint8:
            return normalize(squash(image, self.image_size))
        if tuple(image.shape) != (1, 3, self.image_size, self.image_size):
            raise ValueError(
                f'expected a normalized (1, 3, {self.image_size}, {self.image_size}) image or an '
                f'(H, W, 3) uint8 picture, got {tuple(image.shape)} {image.dtype}')
        return image
