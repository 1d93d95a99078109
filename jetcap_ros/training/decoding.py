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
The decoder as training runs it: many captions a picture, as few matrix products as can be.

The same parameters and the same function as `AttentionDecoder.step`, in another order. The input
of the GRU is linear in the word and in the context, and the context is linear in the cells; so the
cells are multiplied with the GRU's input weights once a picture, not once a word, and the words of
all steps at once.
"""


import torch
from torch import nn
from torch.nn import functional

from ..models.mobilenet import AttentionDecoder


class _Steps:
    """The recurrence over the words of K captions for each of N pictures."""

    def __init__(self, decoder: AttentionDecoder, cells: torch.Tensor, k: int) -> None:
        self.decoder, self.k = decoder, k
        gru = decoder.decode_step
        embed_dim = decoder.embedding.embedding_dim
        self.word_weight = gru.weight_ih[:, :embed_dim]
        hidden, self.projected = decoder.start(cells)
        self.hidden = hidden.float().repeat_interleave(k, dim=0)
        self.projected = self.projected.unsqueeze(1)
        self.cell_gates = cells @ gru.weight_ih[:, embed_dim:].t()  # (N, L, 3H)
        self.state_weight = torch.cat([decoder.decoder_att.weight, gru.weight_hh])
        self.state_bias = torch.cat([decoder.decoder_att.bias, gru.bias_hh])

    def word_gates(self, words: torch.Tensor) -> torch.Tensor:
        """Return what words of any shape add to the gates of the GRU."""
        embedded = self.decoder.dropout(self.decoder.embedding(words))
        return functional.linear(embedded, self.word_weight, self.decoder.decode_step.bias_ih)

    def advance(self, word_gates: torch.Tensor) -> torch.Tensor:
        """Read one word of each caption; (N * K, 3H) gates to the (N * K, H) state."""
        decoder = self.decoder
        n, _, cells, attention_dim = self.projected.shape
        from_state = functional.linear(self.hidden, self.state_weight, self.state_bias)
        query, state_gates = from_state.split(
            [attention_dim, from_state.shape[1] - attention_dim], dim=1)
        scores = decoder.full_att(
            torch.relu(self.projected + query.view(n, self.k, 1, attention_dim)))
        attention = torch.softmax(scores.squeeze(3), dim=2)
        context_gates = torch.bmm(attention.to(self.cell_gates.dtype), self.cell_gates)
        inputs = (word_gates + context_gates.flatten(0, 1)).float()
        reset, update, new = inputs.chunk(3, dim=1)
        reset_h, update_h, new_h = state_gates.float().chunk(3, dim=1)
        new = torch.tanh(new + torch.sigmoid(reset + reset_h) * new_h)
        update = torch.sigmoid(update + update_h)
        self.hidden = new + update * (self.hidden - new)
        return self.hidden


def teacher_forcing(
        decoder: AttentionDecoder, cells: torch.Tensor, captions: torch.Tensor,
        ignored: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Return logits (M, V) and targets (M,) of K captions of each picture, read word by word.

    :param cells: (N, L, C) features; captions: (N, K, T) indices with <start> and <end>.
    :param ignored: indices that are no targets (padding, unknown words).
    """
    steps = _Steps(decoder, cells, captions.shape[1])
    word_gates = steps.word_gates(captions[:, :, :-1].flatten(0, 1))
    states = torch.stack([steps.advance(gates) for gates in word_gates.unbind(dim=1)], dim=1)
    targets = captions[:, :, 1:].flatten()
    wanted = ~torch.isin(targets, ignored)
    states = states.flatten(0, 1)[wanted]
    return decoder.fc(decoder.dropout(states)), targets[wanted]


def decode(
        decoder: AttentionDecoder, cells: torch.Tensor, k: int, start: int, end: int,
        forbidden: torch.Tensor | None = None, max_length: int = 20,
        greedy: bool = False,
        gains: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Write K captions for each picture, drawn from the model or (greedy) its most probable words.

    :param forbidden: indices that are never taken.
    :param gains: (N, V) what is added to the logits of words that a caption does not hold yet.
    :return: words (N, K, T), padded with `end`, and their log-probabilities (N, K, T), zero
        after <end>; these carry gradients.
    """
    steps = _Steps(decoder, cells, k)
    words = torch.full((len(cells) * k,), start, device=cells.device)
    alive = torch.ones(len(words), dtype=torch.bool, device=cells.device)
    sequence, log_probabilities = [], []
    if gains is not None:
        gains = gains.repeat_interleave(k, dim=0)
    for _ in range(max_length):
        state = steps.advance(steps.word_gates(words))
        logits = decoder.fc(decoder.dropout(state)).float()
        if gains is not None:
            logits = logits + gains
        if forbidden is not None:
            logits = logits.index_fill(1, forbidden, -1e9)
        scores = functional.log_softmax(logits, dim=1)
        with torch.no_grad():
            words = scores.argmax(1) if greedy else torch.multinomial(scores.exp(), 1).squeeze(1)
            words = words.masked_fill(~alive, end)
            if gains is not None:
                gains.scatter_(1, words.unsqueeze(1), 0.0)
        sequence.append(words)
        chosen = scores.gather(1, words.unsqueeze(1)).squeeze(1)
        log_probabilities.append(chosen.masked_fill(~alive, 0.0))
        alive = alive & (words != end)
        if not alive.any():
            break
    shape = (len(cells), k, len(sequence))
    return (torch.stack(sequence, dim=1).view(shape),
            torch.stack(log_probabilities, dim=1).view(shape))


def cut(words: list[int], end: int, with_end: bool = False) -> list[int]:
    """Return a caption up to its first <end>."""
    if end not in words:
        return words
    return words[:words.index(end) + with_end]


def initialize(decoder: AttentionDecoder, embedding: torch.Tensor | None = None) -> None:
    """Start from small embeddings, or from given ones, and an unbiased guess of words."""
    with torch.no_grad():
        if embedding is None:
            nn.init.uniform_(decoder.embedding.weight, -0.1, 0.1)
        else:
            decoder.embedding.weight.copy_(embedding)
        nn.init.zeros_(decoder.fc.bias)
