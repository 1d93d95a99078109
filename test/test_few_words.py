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

"""Test the search among the few words that an image may call for."""

from jetcap_ros.engine.settings import SHIPPED_CHECKPOINT
from jetcap_ros.models import few_words
from jetcap_ros.models.checkpoint import read_checkpoint
from jetcap_ros.models.decoder import Decoder, table_product
from jetcap_ros.models.errors import CheckpointError
from jetcap_ros.models.search import beam_search
from jetcap_ros.models.weight import quantize_rows, Weight
from jetcap_ros.models.word_detector import WordDetector
import numpy as np
import pytest

WORDS, CHANNELS, START, END, PAD = 60, 24, 4, 6, 3


def decoder(few_words, quantized):
    rng = np.random.default_rng(0)
    embed, hidden, attention = 13, 35, 17
    shapes = {
        'embedding.weight': (WORDS, embed), 'decode_step.weight_ih': (3 * hidden, embed + CHANNELS),
        'decode_step.weight_hh': (3 * hidden, hidden), 'decode_step.bias_ih': (3 * hidden,),
        'decode_step.bias_hh': (3 * hidden,), 'init_h.weight': (hidden, CHANNELS),
        'init_h.bias': (hidden,), 'fc.weight': (WORDS, hidden), 'fc.bias': (WORDS,),
        'encoder_att.weight': (attention, CHANNELS), 'encoder_att.bias': (attention,),
        'decoder_att.weight': (attention, hidden), 'decoder_att.bias': (attention,),
        'full_att.weight': (1, attention)}
    state = {
        name: rng.normal(0, 0.5, shape).astype(np.float32) for name, shape in shapes.items()}

    def read(name):
        values = state[name]
        return quantize_rows(values) if quantized and values.ndim > 1 else Weight(values)
    return Decoder(read, embed, hidden, attention, table_product, few_words=few_words)


class Masked:
    """A decoder that gives the logits of all but some words as if they could not be."""

    def __init__(self, decoder, words):
        self._decoder = decoder
        self._others = np.setdiff1d(np.arange(WORDS), words)
        self.start, self.select = decoder.start, decoder.select

    def step(self, words, state):
        logits, state, attention = self._decoder.step(words, state)
        logits = logits.copy()
        logits[:, self._others] = -np.inf
        return logits, state, attention


@pytest.mark.parametrize('quantized', [False, True])
@pytest.mark.parametrize('seed', range(4))
@pytest.mark.parametrize('count', [WORDS, 30, 9, 5])
def test_few_words_are_searched_as_if_there_were_no_others(monkeypatch, quantized, seed, count):
    monkeypatch.setattr(few_words, 'LIKELY', count)
    rng = np.random.default_rng(seed)
    cells = rng.normal(0, 2, (9, CHANNELS)).astype(np.float32)
    shares, least = rng.random((2, WORDS), np.float32)
    words = np.union1d(np.argsort(-shares)[:count], [START, END, PAD])
    gains = rng.exponential(1, WORDS).astype(np.float32)
    gains[END] = -3  # or captions end before they have begun
    relatives = {word: [word, (word + 7) % WORDS] for word in range(WORDS) if word != 20}
    options = {
        'forbidden': [PAD, START], 'length_penalty': 0.7, 'block_ngram': 2, 'gains': gains,
        'relatives': relatives}
    expected = beam_search(
        Masked(decoder(False, quantized), words), cells, START, END, 8, 3,
        worth=few_words.worth(shares, least), **options)
    found = few_words.few_words_search(
        decoder(True, quantized), shares, cells, START, END, 8, 3, least=least, **options)
    assert found.indices == expected.indices and len(found.indices) > 1
    assert found.log_probability == pytest.approx(expected.log_probability, abs=1e-4)
    np.testing.assert_allclose(found.attention, expected.attention, atol=1e-5)


def test_a_word_is_worth_something_from_its_own_least_part_on():
    shares, least = np.array([0.3, 0.3, 0.3], np.float32), np.array([0.2, 0.3, 0.4], np.float32)
    added = few_words.worth(shares, least)
    assert added[0] > 0 == added[1] > added[2]


def test_a_decoder_of_few_words_can_say_all():
    cells = np.random.default_rng(5).normal(0, 2, (9, CHANNELS)).astype(np.float32)
    one, other = (
        beam_search(decoder(few, False), cells, START, END, 8, 3) for few in (True, False))
    assert one.indices == other.indices
    assert one.log_probability == pytest.approx(other.log_probability, abs=1e-4)


def test_a_word_is_as_likely_as_the_image_and_what_is_usual_make_it():
    usual = np.array([0, -20, -2, 90], np.float32)
    weights = {
        'mean': np.zeros(2), 'deviation': np.ones(2), 'hidden.weight': np.eye(2),
        'hidden.bias': np.zeros(2), 'out.weight': np.array([[0, 0], [0, 20], [-1, 0], [0, 0]]),
        'out.bias': np.zeros(4), 'usual': usual}
    read = {name: Weight(values.astype(np.float32)) for name, values in weights.items()}
    detector = WordDetector(read.__getitem__, table_product, few_words=True)
    shares = detector.shares(detector(np.array([[2, 0], [0, 2]], np.float32)))
    np.testing.assert_allclose(shares, [0.5, 0.5, 1 / (1 + np.exp(3)), 1], atol=1e-6)
    assert WordDetector(read.__getitem__, table_product).shares(usual) is None


@pytest.mark.parametrize('wrong', [-0.1, 1.1, np.nan])
def test_parts_from_which_on_words_are_said_are_parts(wrong):
    weights = {
        'mean': np.zeros(2), 'deviation': np.ones(2), 'hidden.weight': np.eye(2),
        'hidden.bias': np.zeros(2), 'out.weight': np.eye(2), 'out.bias': np.zeros(2),
        'usual': np.zeros(2), 'least': np.array([0.2, wrong])}
    read = {name: Weight(values.astype(np.float32)) for name, values in weights.items()}
    with pytest.raises(CheckpointError, match=r'words\.least is not within 0 and 1'):
        WordDetector(read.__getitem__, table_product, few_words=True, least=True)


def test_the_shipped_checkpoint_chooses_few_words():
    assert read_checkpoint(SHIPPED_CHECKPOINT).few_words
