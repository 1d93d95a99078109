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

"""BLEU-4 over token indices (Papineni et al. 2002), of a corpus and of one caption."""

from collections.abc import Sequence
import math

from .cider import MAX_NGRAM, ngrams


def _statistics(
        words: Sequence[int],
        references: Sequence[Sequence[int]]) -> tuple[list[int], list[int], int]:
    """Return matches and totals for n of 1..4 and the closest length of a reference."""
    grams = ngrams(words)
    others = [ngrams(reference) for reference in references]
    matches = [
        sum(min(count, max(other[n].get(gram, 0) for other in others))
            for gram, count in grams[n].items())
        for n in range(MAX_NGRAM)]
    totals = [max(0, len(words) - n) for n in range(MAX_NGRAM)]
    closest = min((len(r) for r in references), key=lambda size: (abs(size - len(words)), size))
    return matches, totals, closest


def _combine(
        matches: list[int], totals: list[int], length: int, closest: int, smooth: float) -> float:
    if not length or not smooth and min(matches) == 0:
        return 0.0
    logs = sum(
        math.log((m + (smooth if n else 0)) / (t + (smooth if n else 0)))
        for n, (m, t) in enumerate(zip(matches, totals))) if matches[0] else -math.inf
    return math.exp(logs / MAX_NGRAM + min(0.0, 1 - closest / length))


def corpus_bleu4(
        captions: Sequence[Sequence[int]],
        references: Sequence[Sequence[Sequence[int]]]) -> float:
    """Return the BLEU-4 of captions, 0..1; `references` holds those of each caption."""
    matches, totals, length, closest = [0] * MAX_NGRAM, [0] * MAX_NGRAM, 0, 0
    for words, others in zip(captions, references):
        m, t, c = _statistics(words, others)
        matches = [a + b for a, b in zip(matches, m)]
        totals = [a + b for a, b in zip(totals, t)]
        length, closest = length + len(words), closest + c
    return _combine(matches, totals, length, closest, 0.0)


def sentence_bleu4(words: Sequence[int], references: Sequence[Sequence[int]]) -> float:
    """Return the BLEU-4 of one caption, one added to the counts of n > 1 (Lin and Och 2004)."""
    if not len(words):
        return 0.0
    matches, totals, closest = _statistics(words, references)
    return _combine(matches, totals, len(words), closest, 1.0)
