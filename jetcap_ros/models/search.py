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

"""Greedy decoding and beam search, the same for every model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
import math
from typing import Any, NamedTuple, Protocol

import numpy as np

from .search_options import check_bounds, check_options


class SearchDecoder(Protocol):
    """What the search wants of a decoder; cells and states are its own business."""

    def start(self, cells: Any) -> Any:
        """Return the first state of an image."""

    def step(self, words: np.ndarray, state: Any) -> tuple[np.ndarray, Any, np.ndarray]:
        """Return logits (K, V), the new state and the attention (K, L) after (K,) words."""

    def select(self, state: Any, rows: np.ndarray) -> Any:
        """Return the state whose beams are these rows of this one."""


@dataclass
class Hypothesis:
    """A caption as the search found it."""

    indices: list[int]  # with <end>, if it came to an end; without <start>
    log_probability: float  # the sum over the indices
    attention: np.ndarray  # (T, L): where each word looked
    worth: float = 0.0  # what its words add to its value, see `beam_search`

    @property
    def value(self) -> float:
        """Return what tells good captions from others."""
        return self.mean_log_probability + self.worth

    @property
    def mean_log_probability(self) -> float:
        """Return the mean log-probability of a token, <end> included; in nats, at most 0."""
        return self.log_probability / max(1, len(self.indices))


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Return the log-probabilities of (K, V) logits."""
    result: np.ndarray = logits - _log_sum(logits)
    return result


def _log_sum(logits: np.ndarray) -> np.ndarray:
    """Return (K, 1): what (K, V) logits lie above their log-probabilities."""
    top = logits.max(axis=1, keepdims=True)
    result: np.ndarray = top + np.log(np.exp(logits - top).sum(axis=1, keepdims=True))
    return result


def greedy_search(
        decoder: SearchDecoder, cells: Any, start: int, end: int,
        max_length: int = 20) -> Hypothesis:
    """Take the most probable word each time, until <end> or `max_length` words."""
    check_bounds(1, max_length)
    state = decoder.start(cells)
    word, indices, attention, total = start, [], [], 0.0
    for _ in range(max_length):
        logits, state, weights = decoder.step(np.array([word]), state)
        row = logits[0]
        word = int(row.argmax())
        top = row[word]
        total -= float(np.log(np.exp(row - top).sum()))
        indices.append(word)
        attention.append(weights[0])
        if word == end:
            break
    _check_finite(total)
    return Hypothesis(indices, total, np.array(attention))


class _Beam(NamedTuple):
    """A beginning of a caption."""

    words: list[int]
    total: float  # log-probability
    attention: list[np.ndarray]

    def value(self, length_penalty: float) -> float:
        """Return what captions are compared by."""
        return self.total / math.pow(len(self.words), length_penalty)

    def worth(self, of_words: np.ndarray | None) -> float:
        """Return what its words, each once, are worth."""
        return 0.0 if of_words is None else float(of_words[list(set(self.words))].sum())


def beam_search(
        decoder: SearchDecoder, cells: Any, start: int, end: int, max_length: int = 20,
        beam_size: int = 3, forbidden: Sequence[int] = (), length_penalty: float = 0.0,
        block_ngram: int = 0, gains: np.ndarray | None = None,
        relatives: Mapping[int, Sequence[int]] | None = None,
        worth: np.ndarray | None = None) -> Hypothesis:
    """
    Follow the `beam_size` most probable beginnings of a caption.

    :param forbidden: indices that are never chosen (<pad>, <start>, <unk>).
    :param length_penalty: hypotheses compare by log-probability / length ** length_penalty.
    :param block_ngram: no run of this many words comes twice; 0 allows it.
    :param gains: (V,) what is added to the logits of the words that a caption does not hold yet.
    :param relatives: of a word, those that do not come once it is said.
    :param worth: (V,) what each word adds to the value of a finished caption that holds it.
    :raises ValueError: for an absurd beam size or length.
    """
    check_bounds(beam_size, max_length)
    check_options(length_penalty, block_ngram)
    state = decoder.start(cells)
    words = np.array([start])
    beams = [_Beam([], 0.0, [])]
    finished: list[_Beam] = []
    best = -math.inf

    for position in range(1, max_length + 1):
        logits, state, attention = decoder.step(words, state)
        scores = _scores(logits, beams, forbidden, block_ngram, gains, relatives or {})
        longer: list[_Beam] = []
        rows: list[int] = []
        for rank, (row, word) in enumerate(_best(scores, 2 * beam_size)):
            total = float(scores[row, word])
            _check_finite(total)
            if total == -math.inf:
                continue
            beam = _Beam(
                beams[row].words + [word], total, beams[row].attention + [attention[row]])
            if word == end:
                # Only an ending among the best beam_size counts, as if it took a place there.
                if rank < beam_size:
                    finished.append(beam)
                    best = max(best, beam.value(length_penalty))
            elif len(longer) < beam_size:
                longer.append(beam)
                rows.append(row)
        if not longer:
            break
        beams = longer
        # A longer caption only loses probability: stop when none can still win.
        reach = max(position + 1, max_length if length_penalty else 0) ** length_penalty
        if beams[0].total / reach <= best:
            break
        words = np.array([beam.words[-1] for beam in beams])
        state = decoder.select(state, np.array(rows))
    # None has finished where all were cut off at max_length.
    found = max(
        finished or beams, key=lambda beam: beam.value(length_penalty) + beam.worth(worth))
    return Hypothesis(
        found.words, found.total, np.array(found.attention), found.worth(worth))


def _scores(
        logits: np.ndarray, beams: list[_Beam], forbidden: Sequence[int], block_ngram: int,
        gains: np.ndarray | None, relatives: Mapping[int, Sequence[int]]) -> np.ndarray:
    """Return (K, V): the log-probability of each beam with each word after it."""
    if gains is not None:
        logits = logits + gains
        for row, beam in enumerate(beams):
            logits[row, beam.words] -= gains[beam.words]
    totals = np.array([[beam.total] for beam in beams])
    scores: np.ndarray = logits - (_log_sum(logits) - totals).astype(logits.dtype)
    if len(forbidden):
        scores[:, forbidden] = -np.inf
    for row, beam in enumerate(beams):
        if block_ngram:
            scores[row, _completions(beam.words, block_ngram)] = -np.inf
        if relatives:
            said = [other for word in beam.words for other in relatives.get(word, ())]
            scores[row, said] = -np.inf
    return scores


def _best(scores: np.ndarray, count: int) -> list[tuple[int, int]]:
    """Return row and column of the `count` highest scores, the highest first."""
    flat = scores.ravel()
    count = min(count, flat.size)
    found = np.argpartition(flat, -count)[-count:]
    found = found[np.argsort(-flat[found], kind='stable')]
    return [divmod(index, scores.shape[1]) for index in found.tolist()]


def _check_finite(total: float) -> None:
    if math.isnan(total):
        raise ValueError('the model gives values that are not numbers: its weights are damaged')


def _completions(beam: list[int], size: int) -> list[int]:
    """Return the words that would repeat a run of `size` words of the beam."""
    if len(beam) < size:
        return []
    tail = beam[len(beam) - size + 1:]
    return [
        beam[i + size - 1] for i in range(len(beam) - size + 1)
        if beam[i:i + size - 1] == tail]
