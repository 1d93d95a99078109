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
CIDEr-D over tokens (words or their indices), fast enough to be a reward.

Vedantam, Zitnick and Parikh 2015, "CIDEr: Consensus-based Image Description Evaluation", in the
variant D: counts clipped, a Gaussian penalty on the difference of lengths, stems not taken.
"""

from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
import math

MAX_NGRAM = 4
SIGMA = 6.0  # of the penalty on length, in words

Gram = tuple[Hashable, ...]
Grams = dict[Gram, int]


def ngrams(words: Sequence[Hashable]) -> list[Grams]:
    """Return the counts of the n-grams, one map for each n of 1..4."""
    words = tuple(words)
    return [
        Counter(words[i:i + n] for i in range(len(words) - n + 1))
        for n in range(1, MAX_NGRAM + 1)]


class CiderD:
    """
    Scores captions against the references of their picture, 0..10.

    :param references: for each picture, its captions as sequences of tokens. How much an
        n-gram weighs comes from the number of pictures that have it in a caption.
    """

    def __init__(self, references: Sequence[Sequence[Sequence[Hashable]]]) -> None:
        counts = [[ngrams(caption) for caption in captions] for captions in references]
        self._frequency: Grams = defaultdict(int)
        for picture in counts:
            for gram in {g for caption in picture for grams in caption for g in grams}:
                self._frequency[gram] += 1
        self._log_pictures = math.log(max(len(references), 2))
        self._references = [
            [(self._weigh(caption), len(words)) for caption, words in zip(picture, captions)]
            for picture, captions in zip(counts, references)]

    def _weigh(self, counts: list[Grams]) -> list[tuple[dict[Gram, float], float]]:
        """Return the tf-idf vectors of a caption and their norms."""
        vectors = []
        for grams in counts:
            vector = {
                gram: count * (self._log_pictures - math.log(max(1, self._frequency.get(gram, 0))))
                for gram, count in grams.items()}
            vectors.append((vector, math.sqrt(sum(v * v for v in vector.values()))))
        return vectors

    def score(
            self, picture: int, words: Sequence[Hashable],
            without: int | None = None) -> float:
        """
        Return the score of a caption of a picture.

        :param words: its tokens, no special ones.
        :param without: the index of a reference that is left out, if it is the caption itself.
        """
        vectors = self._weigh(ngrams(words))
        references = self._references[picture]
        if without is not None:
            references = references[:without] + references[without + 1:]
        total = 0.0
        for reference, length in references:
            similarity = 0.0
            for (vector, norm), (other, other_norm) in zip(vectors, reference):
                if norm and other_norm:
                    product = sum(
                        min(value, other[gram]) * other[gram]
                        for gram, value in vector.items() if gram in other)
                    similarity += product / (norm * other_norm)
            total += similarity * math.exp(-(len(words) - length) ** 2 / (2 * SIGMA ** 2))
        return 10.0 * total / (MAX_NGRAM * max(1, len(references)))
