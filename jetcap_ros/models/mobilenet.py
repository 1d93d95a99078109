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

"""The full captioning model, in torch: MobileNet encoder, GRU decoder with soft attention."""

import functools
from typing import Any
import warnings

import numpy as np
import torch
from torch import nn

from .checkpoint import Checkpoint
from .decoder import Decoder
from .encoder import MobileNetEncoder
from .generation import CaptioningModel
from .search import Hypothesis, SearchDecoder
from .torch_products import has_int8_engine, torch_product
from .weight_reader import WeightReader
from .word_detector import WordDetector


class AttentionDecoder(nn.Module):
    """
    A GRU that looks at the image again for every word.

    Soft attention as in Xu et al. 2015 (Show, Attend and Tell), with an additive score:
    full_att(relu(encoder_att(cells) + decoder_att(h))), softmax over the cells.
    """

    def __init__(
            self, vocab_size: int, embed_dim: int, decoder_dim: int, attention_dim: int,
            encoder_dim: int, dropout: float = 0.3) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, embed_dim)
        self.dropout = nn.Dropout(dropout)
        self.decode_step = nn.GRUCell(embed_dim + encoder_dim, decoder_dim)
        self.init_h = nn.Linear(encoder_dim, decoder_dim)
        self.fc = nn.Linear(decoder_dim, vocab_size)
        self.encoder_att = nn.Linear(encoder_dim, attention_dim)
        self.decoder_att = nn.Linear(decoder_dim, attention_dim)
        self.full_att = nn.Linear(attention_dim, 1)

    def start(self, cells: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the first state (N, decoder_dim) and the projected cells of (N, L, C) cells."""
        return self.init_h(cells.mean(dim=1)), self.encoder_att(cells)

    def step(
            self, words: torch.Tensor, hidden: torch.Tensor, cells: torch.Tensor,
            projected: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """
        Read one word each.

        :param words: (N,) indices.
        :return: logits (N, vocab_size), the new state and the attention (N, L).
        """
        scores = self.full_att(torch.relu(projected + self.decoder_att(hidden).unsqueeze(1)))
        attention = torch.softmax(scores.squeeze(2), dim=1)
        context = torch.bmm(attention.unsqueeze(1), cells).squeeze(1)
        hidden = self.decode_step(
            torch.cat([self.dropout(self.embedding(words)), context], dim=1), hidden)
        return self.fc(self.dropout(hidden)), hidden, attention

    def forward(
            self, cells: torch.Tensor, captions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Read whole captions (teacher forcing).

        :param cells: (N, L, C) features, captions: (N, T) indices with <start> and <end>.
        :return: logits (N, T - 1, vocab_size) and attention (N, T - 1, L).
        """
        hidden, projected = self.start(cells)
        logits, attention = [], []
        for words in captions[:, :-1].unbind(dim=1):
            scores, hidden, weights = self.step(words, hidden, cells, projected)
            logits.append(scores)
            attention.append(weights)
        return torch.stack(logits, dim=1), torch.stack(attention, dim=1)


class WordLayers(nn.Module):
    """The layers of a WordDetector, to train them."""

    def __init__(self, vocab_size: int, encoder_dim: int, words_dim: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(encoder_dim), requires_grad=False)
        self.deviation = nn.Parameter(torch.ones(encoder_dim), requires_grad=False)
        # The log-odds of each word in an image of which nothing is known; zeros: unknown.
        self.usual = nn.Parameter(torch.zeros(vocab_size), requires_grad=False)
        # The part of an image's captions from which on a word is to be said; zeros: unknown.
        self.least = nn.Parameter(torch.zeros(vocab_size), requires_grad=False)
        self.hidden = nn.Linear(encoder_dim, words_dim)
        self.out = nn.Linear(words_dim, vocab_size)
        self.dropout = nn.Dropout(0.5)

    def _load_from_state_dict(
            self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for name in ('usual', 'least'):
            state_dict.setdefault(prefix + name, torch.zeros_like(self.usual))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def forward(self, cells: torch.Tensor) -> torch.Tensor:
        """Return (N, V): by how much (N, L, C) cells raise or lower the log-odds of each word."""
        x = (cells.mean(dim=1) - self.mean) / self.deviation
        out: torch.Tensor = self.out(self.dropout(torch.relu(self.hidden(self.dropout(x)))))
        return out


class _StepByStep:
    """The plain decoder, as the search wants it."""

    def __init__(self, decoder: AttentionDecoder) -> None:
        self._decoder = decoder

    def start(self, cells: torch.Tensor) -> Any:
        hidden, projected = self._decoder.start(cells)
        return hidden, projected, cells

    def step(self, words: np.ndarray, state: Any) -> tuple[np.ndarray, Any, np.ndarray]:
        hidden, projected, cells = state
        rows = len(words)
        logits, hidden, attention = self._decoder.step(
            torch.from_numpy(words).to(cells.device), hidden, cells.expand(rows, -1, -1),
            projected.expand(rows, -1, -1))
        return (
            logits.float().cpu().numpy(), (hidden, projected, cells),
            attention.float().cpu().numpy())

    def select(self, state: Any, rows: np.ndarray) -> Any:
        hidden, projected, cells = state
        return hidden[torch.from_numpy(rows).to(hidden.device)], projected, cells


class MobileNetCaptioningModel(nn.Module, CaptioningModel):
    """
    Captions images.

    :param encoder: one of `architectures.ENCODERS`, or a MobileNetEncoder.
    :param decoder: instead of one of the sizes given; a Decoder for inference.
    :param options: of CaptioningModel: vocabulary, calibration, search_options, image_size.
    """

    name = 'mobilenet'

    def __init__(
            self, vocab_size: int, embed_dim: int = 256, decoder_dim: int = 512,
            attention_dim: int = 256, encoder: str | MobileNetEncoder = 'mobilenet_v3_small',
            dropout: float = 0.3, decoder: Any = None, **options: Any) -> None:
        nn.Module.__init__(self)
        CaptioningModel.__init__(self, **options)
        if isinstance(encoder, str):
            encoder = MobileNetEncoder(encoder)
        self.encoder = encoder
        self.words: WordLayers | None = None  # only where they are trained
        self.decoder = decoder if decoder is not None else AttentionDecoder(
            vocab_size, embed_dim, decoder_dim, attention_dim, encoder.out_channels, dropout)

    def cells(self, images: torch.Tensor) -> torch.Tensor:
        """Return the features of normalized images (N, 3, size, size) as (N, L, C)."""
        features: torch.Tensor = self.encoder(images)
        return features.flatten(2).transpose(1, 2)

    def forward(
            self, images: torch.Tensor,
            captions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits, attention = self.decoder(self.cells(images), captions)
        return logits, attention

    def search(self, image: Any, *args: Any, **kwargs: Any) -> Hypothesis:
        self.eval()
        parameter = next(self.encoder.parameters())
        image = torch.as_tensor(image).to(
            parameter.device, parameter.dtype, memory_format=torch.channels_last)
        with torch.inference_mode():
            return super().search(image, *args, **kwargs)

    def search_cells(self, image: Any) -> Any:
        cells = self.cells(image)
        if isinstance(self.decoder, AttentionDecoder):
            return cells
        return cells[0].float().cpu().numpy()

    @property
    def search_decoder(self) -> SearchDecoder:
        plain = isinstance(self.decoder, AttentionDecoder)
        return _StepByStep(self.decoder) if plain else super().search_decoder

    def place_weights(
            self, checkpoint: Checkpoint, quantize: str = 'int8', device: str = 'cpu') -> None:
        """
        Put the weights of a checkpoint into a network built on the meta device, one by one.

        :param quantize: 'int8' or 'none'; on the CPU of a torch without an int8 engine: a
            warning, and none.
        """
        dtype = torch.float32 if device == 'cpu' else torch.float16
        if quantize == 'int8' and device == 'cpu' and not has_int8_engine():
            warnings.warn('this torch has no quantized engine: quantize is none')
            quantize = 'none'
        product = functools.partial(torch_product, device=device)
        with WeightReader(checkpoint) as reader:
            for name, _ in list(self.encoder.named_parameters()):
                # Convolutions run in floating point. In int8 mode their values are those of
                # int8, so that all models of a checkpoint are one network.
                values = torch.tensor(
                    reader.read(f'encoder.{name}', quantize).dequantized()).to(device, dtype)
                if values.ndim == 4:
                    values = values.contiguous(memory_format=torch.channels_last)
                module, _, kind = name.rpartition('.')
                setattr(
                    self.encoder.get_submodule(module), kind,
                    nn.Parameter(values, requires_grad=False))
            self.decoder = Decoder(
                lambda name: reader.read(f'decoder.{name}', quantize), checkpoint.embed_dim,
                checkpoint.decoder_dim, checkpoint.attention_dim, product,
                few_words=checkpoint.few_words)
            if checkpoint.words:
                self.word_detector = WordDetector(
                    lambda name: reader.read(f'words.{name}', quantize), product,
                    checkpoint.few_words, 'least' in checkpoint.words)
