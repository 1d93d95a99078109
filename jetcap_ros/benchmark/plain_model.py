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
The captioner as it is written without this package, to compare with.

torchvision's MobileNetV3-Small, and a decoder whose `generate` is a Python loop that computes
everything anew for each word, in float32. Same parameter names, so the same checkpoints load.
"""

from typing import Any

import torch
from torch import nn
from torchvision.models import mobilenet_v3_small

ENCODER_DIM = 576


class PlainDecoder(nn.Module):
    """A GRU cell with soft attention over the cells of the image."""

    def __init__(
            self, vocab_size: int, embed_dim: int, decoder_dim: int, attention_dim: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, embed_dim)
        self.decode_step = nn.GRUCell(embed_dim + ENCODER_DIM, decoder_dim)
        self.init_h = nn.Linear(ENCODER_DIM, decoder_dim)
        self.fc = nn.Linear(decoder_dim, vocab_size)
        self.encoder_att = nn.Linear(ENCODER_DIM, attention_dim)
        self.decoder_att = nn.Linear(decoder_dim, attention_dim)
        self.full_att = nn.Linear(attention_dim, 1)


class PlainModel(nn.Module):
    """Encoder and decoder."""

    def __init__(
            self, vocab_size: int, embed_dim: int = 256, decoder_dim: int = 512,
            attention_dim: int = 256) -> None:
        super().__init__()
        self.encoder = mobilenet_v3_small(weights=None).features
        self.decoder = PlainDecoder(vocab_size, embed_dim, decoder_dim, attention_dim)

    @torch.no_grad()
    def generate(self, image: torch.Tensor, start: int, end: int, max_length: int) -> list[int]:
        """Return the word indices of a normalized (1, 3, 224, 224) image, greedily."""
        cells = self.encoder(image).flatten(2).permute(0, 2, 1)
        decoder = self.decoder
        hidden = decoder.init_h(cells.mean(dim=1))
        word, words = torch.tensor([start]), []
        for _ in range(max_length):
            score = decoder.full_att(torch.relu(
                decoder.encoder_att(cells) + decoder.decoder_att(hidden).unsqueeze(1)))
            attention = torch.softmax(score, dim=1)
            context = (attention * cells).sum(dim=1)
            hidden = decoder.decode_step(
                torch.cat([decoder.embedding(word), context], dim=1), hidden)
            word = decoder.fc(hidden).argmax(dim=1)
            words.append(word.item())
            if words[-1] == end:
                break
        return words


def load_plain_model(path: str) -> tuple[PlainModel, dict[str, Any]]:
    """Return the model of a `.pth` checkpoint, and the checkpoint, read as a whole."""
    checkpoint = torch.load(path, map_location='cpu', weights_only=True)
    state = checkpoint['model_state_dict']
    decoder_dim, _ = state['decoder.init_h.weight'].shape
    model = PlainModel(
        checkpoint['vocab_size'], state['decoder.embedding.weight'].shape[1], decoder_dim,
        state['decoder.encoder_att.weight'].shape[0])
    model.load_state_dict(state)
    return model.eval(), checkpoint
