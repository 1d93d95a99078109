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

"""The decoder for inference, the same for all models; only the products differ."""

from collections.abc import Callable
import functools
from typing import NamedTuple

import numpy as np

from .weight import concatenate, Weight

# A product: gives (rows, N) for (rows, M) float32.
Product = Callable[[np.ndarray], np.ndarray]
MakeProduct = Callable[[Weight, np.ndarray], Product]
CACHED_WORDS = 512


def table_product(weight: Weight, bias: np.ndarray) -> Product:
    """
    Return a product with the weight as a table in float32, for few rows.

    NumPy's `einsum` is as fast as a BLAS for them, and needs none.
    """
    table = np.ascontiguousarray(weight.values.T).astype(np.float32, copy=False)
    if weight.scale is not None:
        table *= weight.scale
    return lambda x: np.einsum('ki,in->kn', x, table) + bias


class State(NamedTuple):
    """Where the decoder stands; rows are the beams."""

    hidden: np.ndarray  # (K, H)
    projected: np.ndarray  # (K, A + 3H): what the state says to attention and gates; V: to words
    cell_scores: np.ndarray  # (L, A): what each cell says to the attention
    cell_gates: np.ndarray  # (L, 3H): what each cell says to the gates


class Decoder:
    """
    The GRU with soft attention of `AttentionDecoder`, arranged for one image at a time.

    A word's time goes into reading weights, so they are read in two products: of the cells once
    an image, and of the state once a word. The latter gives the words' logits, unless few words
    are asked for, and what the next step needs. A word's own part is remembered: a robot repeats
    its words.

    :param read: gives the parameter of a name, as the plain decoder calls it; each is asked for
        once, so no more than one need be in memory besides those already placed.
    :param product: makes the product x @ weight.T + bias from a Weight and its bias.
    :param image_product: the same, for that of the cells, of which there is one an image.
    :param row_product: the same, for that of the mean cell.
    :param few_words: `to_few` will be asked for; what the state says to all words is then slow.
    """

    def __init__(
            self, read: Callable[[str], Weight], embed_dim: int, decoder_dim: int,
            attention_dim: int, product: MakeProduct,
            image_product: MakeProduct | None = None,
            row_product: MakeProduct | None = None, few_words: bool = False) -> None:
        image_product = image_product or product
        row_product = row_product or product
        self._h = decoder_dim
        self._a = attention_dim
        layers = ['decoder_att.{}', 'decode_step.{}_hh'] + ['fc.{}'] * (not few_words)
        self._from_state = product(
            concatenate([read(layer.format('weight')) for layer in layers]),
            np.concatenate([read(layer.format('bias')).values for layer in layers]))
        self._image_product = image_product
        self._words_apart = (read('fc.weight'), read('fc.bias').values) if few_words else None
        inputs = read('decode_step.weight_ih')
        self._from_word = Weight(
            np.ascontiguousarray(inputs.values[:, :embed_dim]), inputs.scale)
        self._word_bias = read('decode_step.bias_ih').values
        self._embedding = read('embedding.weight')
        self._words: dict[int, np.ndarray] = {}
        self._from_cells = image_product(
            concatenate([read('encoder_att.weight'), inputs.columns(embed_dim, None)]),
            np.concatenate([read('encoder_att.bias').values,
                            np.zeros(3 * decoder_dim, np.float32)]))
        del inputs
        self._first_state = row_product(read('init_h.weight'), read('init_h.bias').values)
        # Its bias moves all scores alike, and softmax does not see it.
        self._half_att = read('full_att.weight').dequantized()[0] / 2

    def start(self, cells: np.ndarray) -> State:
        """Return the first state for (L, C) cells."""
        hidden = self._first_state(cells.mean(axis=0, keepdims=True))
        projected = self._from_cells(cells)
        return State(
            hidden, self._from_state(hidden), np.ascontiguousarray(projected[:, :self._a]),
            np.ascontiguousarray(projected[:, self._a:]))

    def step(
            self, words: np.ndarray, state: State) -> tuple[np.ndarray, State, np.ndarray]:
        """Return logits (K, V), the new state and the attention (K, L) after reading (K,) words."""
        state, attention = self.advance(words, state)
        if self._words_apart is None:
            return state.projected[:, self._a + 3 * self._h:], state, attention
        return self._to_all(state.hidden), state, attention

    @functools.cached_property
    def _to_all(self) -> Product:
        assert self._words_apart is not None
        return self._image_product(*self._words_apart)

    def to_few(self, words: np.ndarray) -> Product:
        """Return what (K, H) states say to (N,) words: (K, N); for a decoder of `few_words`."""
        assert self._words_apart is not None
        weight, bias = self._words_apart
        return table_product(weight.rows(words), bias[words])

    def advance(self, words: np.ndarray, state: State) -> tuple[State, np.ndarray]:
        """Return the new state and the attention (K, L) after reading (K,) words."""
        h, a = self._h, self._a
        projected = state.projected
        scores = state.cell_scores + projected[:, None, :a]
        # Twice the larger of x and 0: NumPy's maximum is slow before 1.22.
        scores += np.abs(scores)
        attention = scores @ self._half_att
        attention -= attention.max(axis=1, keepdims=True)
        np.exp(attention, out=attention)
        attention /= attention.sum(axis=1, keepdims=True)

        # As fast as the best BLAS for so few rows, and four times as fast as the reference one.
        inputs = np.einsum('kl,lg->kg', attention, state.cell_gates)
        for row, word in enumerate(words):
            inputs[row] += self._word(int(word))
        # Both sigmoids in one: 1 / (1 + exp(-x)) = (1 + tanh(x / 2)) / 2.
        gates = inputs[:, :2 * h]
        gates += projected[:, a:a + 2 * h]
        gates *= 0.5
        np.tanh(gates, out=gates)
        gates += 1
        gates *= 0.5
        new = gates[:, :h] * projected[:, a + 2 * h:a + 3 * h]
        new += inputs[:, 2 * h:]
        np.tanh(new, out=new)
        hidden = state.hidden - new
        hidden *= gates[:, h:]
        hidden += new
        return state._replace(hidden=hidden, projected=self._from_state(hidden)), attention

    def select(self, state: State, rows: np.ndarray) -> State:
        """Return the state whose beams are these rows of this one."""
        return state._replace(hidden=state.hidden[rows], projected=state.projected[rows])

    def _word(self, word: int) -> np.ndarray:
        """Return what a word says to the gates, (3H,)."""
        known = self._words.get(word)
        if known is None:
            if len(self._words) >= CACHED_WORDS:
                self._words.clear()
            values = self._embedding.rows(np.array([word])).dequantized()[0]
            known = self._from_word.times(values) + self._word_bias
            self._words[word] = known
        return known
