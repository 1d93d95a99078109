"""The decoder of the full model for inference: fewer, larger products, int8 where it can be."""

from typing import Callable, NamedTuple

import numpy as np
import torch
from torch import nn

from .int8_linear import linear
from .quantization import Weight, concatenate


class State(NamedTuple):
    """Where the decoder stands; rows are the beams."""

    hidden: torch.Tensor  # (K, H)
    context: torch.Tensor  # (L, 3H): what each cell adds to the gates
    scores: torch.Tensor  # (L, A): what each cell adds to the attention's hidden layer


class FusedDecoder(nn.Module):
    """
    The GRU with soft attention of `AttentionDecoder`, arranged for one image at a time.

    What a cell contributes to the gates and to the attention is projected once an image, and
    what the state contributes to both comes from one product a word.

    :param read: gives the parameter of a name, as the plain decoder calls it; each is asked for
        once, so that no more than one need be in memory besides those already placed.
    """

    def __init__(
            self, read: Callable[[str], Weight], embed_dim: int, decoder_dim: int,
            device: torch.device, dtype: torch.dtype) -> None:
        super().__init__()
        self._h = decoder_dim

        def place(weight, bias):
            return linear(weight, bias, device, dtype)

        self.embedding = read('embedding.weight')
        inputs = read('decode_step.weight_ih')
        self.from_word = place(
            inputs.columns(0, embed_dim), read('decode_step.bias_ih').values)
        attention_bias = read('encoder_att.bias').values
        self.from_cell = place(
            concatenate([inputs.columns(embed_dim, None), read('encoder_att.weight')]),
            np.concatenate([np.zeros(3 * decoder_dim, np.float32), attention_bias]))
        del inputs
        self.from_hidden = place(
            concatenate([read('decode_step.weight_hh'), read('decoder_att.weight')]),
            np.concatenate([read('decode_step.bias_hh').values, read('decoder_att.bias').values]))
        # The bias of full_att moves all scores alike.
        self.full_att = torch.from_numpy(
            read('full_att.weight').dequantized()[0].copy()).to(device, dtype)
        self.init_h = place(read('init_h.weight'), read('init_h.bias').values)
        self.fc = place(read('fc.weight'), read('fc.bias').values)

    def start(self, cells: torch.Tensor) -> State:
        """Return the first state for (1, L, C) cells."""
        cells = cells[0]
        projected = self.from_cell(cells)
        return State(
            self.init_h(cells.mean(dim=0, keepdim=True)), projected[:, :3 * self._h],
            projected[:, 3 * self._h:])

    def step(self, words: np.ndarray, state: State):
        """Return logits (K, V), the new state and the attention (K, L) after reading (K,) words."""
        h = self._h
        from_hidden = self.from_hidden(state.hidden)
        scores = torch.relu(from_hidden[:, None, 3 * h:] + state.scores) @ self.full_att
        attention = torch.softmax(scores, dim=1)
        from_input = self.from_word(self._embed(words)).addmm_(attention, state.context)
        gates = torch.sigmoid(from_input[:, :2 * h].add_(from_hidden[:, :2 * h]))
        new = torch.addcmul(
            from_input[:, 2 * h:], gates[:, :h], from_hidden[:, 2 * h:3 * h]).tanh_()
        hidden = torch.lerp(new, state.hidden, gates[:, h:])
        return (
            self.fc(hidden).float().cpu().numpy(), state._replace(hidden=hidden),
            attention.float().cpu().numpy())

    def _embed(self, words: np.ndarray) -> torch.Tensor:
        rows = torch.from_numpy(self.embedding.rows(words).dequantized())
        return rows.to(self.full_att.device, self.full_att.dtype)

    def select(self, state: State, rows: np.ndarray) -> State:
        """Return the state whose beams are these rows of this one."""
        rows = torch.from_numpy(rows).to(state.hidden.device)
        return state._replace(hidden=state.hidden[rows])
