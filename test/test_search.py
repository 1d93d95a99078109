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

"""Test greedy decoding and beam search on decoders small enough to try every caption."""

import itertools

from hypothesis import given, settings, strategies as st
from jetcap_ros.models.repetition import relatives
from jetcap_ros.models.search import beam_search, greedy_search, log_softmax
from jetcap_ros.models.search_options import MAX_BEAM_SIZE, MAX_LENGTH
import numpy as np
import pytest

START, END = 0, 1


class TableDecoder:
    """Gives random logits that depend on all words read so far."""

    def __init__(self, seed, words=5, spread=2.0):
        self.seed = seed
        self.words = words
        self.spread = spread

    def start(self, cells):
        return [()]

    def step(self, words, state):
        state = [read + (int(word),) for read, word in zip(state, words)]
        logits = np.stack([self.logits(read) for read in state])
        attention = np.array([[len(read), read[-1]] for read in state], np.float32)
        return logits, state, attention

    def select(self, state, rows):
        return [state[row] for row in rows]

    def logits(self, read):
        rng = np.random.default_rng((self.seed, *read))
        return rng.normal(0, self.spread, self.words).astype(np.float32)

    def log_probability(self, indices, start=START):
        read, total = (start,), 0.0
        for word in indices:
            total += float(log_softmax(self.logits(read)[None])[0, word])
            read += (word,)
        return total


def all_captions(words, length, forbidden=()):
    """Yield every caption that comes to its end within a length."""
    others = [w for w in range(words) if w != END and w not in forbidden]
    for count in range(length):
        for beginning in itertools.product(others, repeat=count):
            yield [*beginning, END]


def plain_beam_search(
        decoder, length, beam_size, forbidden=(), length_penalty=0.0, block_ngram=0):
    """Return the scores of all captions that a beam search to the very end finishes."""
    beams, finished = [([], 0.0)], []
    for _ in range(length):
        candidates = []
        for words, total in beams:
            row = log_softmax(decoder.logits((START, *words))[None])[0]
            for word in range(decoder.words):
                longer = words + [word]
                grams = [tuple(longer[i:i + block_ngram])
                         for i in range(len(longer) - block_ngram + 1)]
                if word not in forbidden and not (
                        block_ngram and len(set(grams)) < len(grams)):
                    candidates.append((total + float(row[word]), longer))
        candidates.sort(key=lambda item: -item[0])
        finished += [(total / len(words) ** length_penalty, words)
                     for total, words in candidates[:beam_size] if words[-1] == END]
        beams = [(words, total) for total, words in candidates if words[-1] != END][:beam_size]
    return finished or [(total / len(words) ** length_penalty, words) for words, total in beams]


@pytest.mark.parametrize('seed', range(10))
def test_greedy_takes_the_most_probable_word_each_time(seed):
    decoder = TableDecoder(seed)
    found = greedy_search(decoder, None, START, END, 7)
    read = (START,)
    for word in found.indices:
        assert word == decoder.logits(read).argmax()
        read += (word,)
    assert found.indices[-1] == END or len(found.indices) == 7
    assert END not in found.indices[:-1]
    assert found.log_probability == pytest.approx(
        decoder.log_probability(found.indices), abs=1e-5)
    assert found.mean_log_probability == found.log_probability / len(found.indices)
    assert [row[0] for row in found.attention] == list(range(1, len(found.indices) + 1))


@pytest.mark.parametrize('length_penalty', [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize('seed', range(25))
def test_a_beam_as_wide_as_the_tree_finds_the_best_caption(seed, length_penalty):
    decoder = TableDecoder(seed, words=4)
    found = beam_search(  # 4 beginnings of 2 words, 12 captions of 3
        decoder, None, START, END, 3, 12, forbidden=[START], length_penalty=length_penalty)
    best = max(
        (decoder.log_probability(caption) / len(caption) ** length_penalty, caption)
        for caption in all_captions(4, 3, forbidden=[START]))
    assert found.indices == best[1]
    assert found.log_probability == pytest.approx(
        best[0] * len(best[1]) ** length_penalty, abs=1e-5)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6), beam_size=st.integers(1, 5), length=st.integers(1, 7),
    length_penalty=st.sampled_from([0, 0.3, 0.7, 1, 1.7, 5]), block_ngram=st.integers(0, 3),
    forbidden=st.lists(st.sampled_from([0, 3]), unique=True), words=st.integers(4, 7),
    spread=st.sampled_from([0.1, 1, 4]))
def test_stopping_early_loses_nothing(
        seed, beam_size, length, length_penalty, block_ngram, forbidden, words, spread):
    decoder = TableDecoder(seed, words, spread)
    options = {'forbidden': forbidden, 'length_penalty': length_penalty,
               'block_ngram': block_ngram}
    found = beam_search(decoder, None, START, END, length, beam_size, **options)
    score, _ = max(plain_beam_search(decoder, length, beam_size, **options))
    value = found.log_probability / len(found.indices) ** length_penalty
    assert value == pytest.approx(score, abs=1e-4)
    assert found.log_probability == pytest.approx(
        decoder.log_probability(found.indices), abs=1e-4)
    assert not set(found.indices) & set(forbidden)
    assert len(found.indices) <= length
    if block_ngram:
        runs = [tuple(found.indices[i:i + block_ngram])
                for i in range(len(found.indices) - block_ngram + 1)]
        assert len(set(runs)) == len(runs)
    # Each word comes with the attention it was chosen with.
    assert found.attention[:, 0].tolist() == list(range(1, len(found.indices) + 1))
    assert found.attention[1:, 1].tolist() == found.indices[:-1]


@pytest.mark.parametrize('seed', range(8))
def test_gains_raise_words_until_they_are_said(seed):
    """The search is that of a decoder whose logits are raised where a caption lacks the word."""
    gains = np.array([0, 0, 3, 0.5, 1.5], np.float32)
    decoder, raised = TableDecoder(seed), TableDecoder(seed)

    def logits(read):
        lacking = [word not in read[1:] for word in range(raised.words)]
        return decoder.logits(read) + gains * lacking

    raised.logits = logits
    found = beam_search(decoder, None, START, END, 6, 3, gains=gains)
    wanted = beam_search(raised, None, START, END, 6, 3)
    assert found.indices == wanted.indices
    assert found.log_probability == pytest.approx(wanted.log_probability, abs=1e-4)


@pytest.mark.parametrize('seed', range(10))
def test_a_finished_caption_is_worth_what_its_words_are(seed):
    worth = np.array([0, 0, 0.4, -0.3, 0.9], np.float32)
    found = beam_search(
        TableDecoder(seed), None, START, END, 5, 4, length_penalty=1, worth=worth)

    def value(item):
        return item[0] + sum(worth[word] for word in set(item[1]))

    expected = plain_beam_search(TableDecoder(seed), 5, 4, length_penalty=1)
    early = beam_search(TableDecoder(seed), None, START, END, 5, 4, length_penalty=1)
    assert found.indices in [words for _, words in expected]
    assert value((found.mean_log_probability, found.indices)) >= value(
        (early.mean_log_probability, early.indices))


def test_a_long_good_caption_beats_a_short_one_only_with_a_penalty():
    class Decoder(TableDecoder):

        def logits(self, read):
            if len(read) == 1:  # a short caption of probability 0.5
                return np.log(np.array([1e-9, 0.5, 0.5, 1e-9], np.float32))
            ends = 0.998 if len(read) == 6 else 1e-3
            rest = np.array([1e-4, ends, 0.999 - ends, 1e-4], np.float32)
            return np.log(rest / rest.sum())

    short = beam_search(Decoder(0, 4), None, START, END, 10, 3)
    long = beam_search(Decoder(0, 4), None, START, END, 10, 3, length_penalty=1)
    assert short.indices == [END]
    assert long.indices == [2, 2, 2, 2, 2, END]


@pytest.mark.parametrize('beam_size', [1, 2, MAX_BEAM_SIZE])
def test_a_vocabulary_smaller_than_the_beam(beam_size):
    found = beam_search(TableDecoder(0, words=2), None, START, END, 4, beam_size, forbidden=[0])
    assert found.indices == [END]


def test_the_longest_caption_is_cut_off():
    class Endless(TableDecoder):

        def logits(self, read):
            return np.array([0, -np.inf, 1, 0], np.float32)

    for search in (greedy_search, beam_search):
        assert search(Endless(0, 4), None, START, END, MAX_LENGTH).indices == [2] * MAX_LENGTH


@pytest.mark.parametrize('value', [np.nan, np.inf])
@pytest.mark.parametrize('search', [greedy_search, beam_search])
@pytest.mark.filterwarnings('ignore:invalid value')
def test_logits_that_are_no_numbers_are_refused(search, value):
    class Broken(TableDecoder):

        def logits(self, read):
            return np.array([0, 0, value if len(read) == 2 else 1, 0], np.float32)

    with pytest.raises(ValueError, match='not numbers'):
        search(Broken(0, 4), None, START, END, 5)


@pytest.mark.parametrize('options', [
    {'beam_size': 0}, {'beam_size': -1}, {'beam_size': MAX_BEAM_SIZE + 1}, {'max_length': 0},
    {'max_length': MAX_LENGTH + 1}, {'length_penalty': -0.1}, {'length_penalty': 1e6},
    {'length_penalty': np.nan}, {'block_ngram': -1}, {'block_ngram': 1.5},
    {'block_ngram': 10**9}])
def test_absurd_options_are_refused(options):
    name = next(iter(options))
    with pytest.raises(ValueError, match=name):
        beam_search(TableDecoder(0), None, START, END, **options)
    if name == 'max_length':
        with pytest.raises(ValueError, match=name):
            greedy_search(TableDecoder(0), None, START, END, **options)


def test_words_and_their_plurals_are_said_once_but_for_small_ones():
    words = ['<start>', '<end>', 'a', 'shelf', 'shelves', 'box', 'boxes', 'city', 'cities', 'men']
    found = {
        words[index]: sorted(words[other] for other in others)
        for index, others in relatives(words).items()}
    for pair in (['shelf', 'shelves'], ['box', 'boxes'], ['cities', 'city']):
        assert found[pair[0]] == found[pair[1]] == pair
    assert 'a' not in found and 'men' not in found
    said_twice = 0
    for seed in range(40):
        decoder = TableDecoder(seed, len(words))
        for kept in (None, relatives(words)):
            indices = beam_search(
                decoder, None, START, END, max_length=8, forbidden=[START], relatives=kept).indices
            said = [other for index in indices for other in relatives(words).get(index, [])[:1]]
            stems = [min(relatives(words)[index]) for index in said]
            if kept is None:
                said_twice += len(stems) != len(set(stems))
            else:
                assert len(stems) == len(set(stems))
    assert said_twice


def test_one_thing_is_not_said_by_another_word_again():
    words = ['a', 'bicycle', 'tv', 'bike', 'television', 'sofa']
    found = {words[index]: {words[k] for k in others} for index, others in relatives(words).items()}
    assert found['bike'] == found['bicycle'] == {'bike', 'bicycle'}
    assert found['tv'] == found['television'] == {'tv', 'television'}
    assert found['sofa'] == {'sofa'} and 'a' not in found
