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
Learn to speak from sentences without pictures.

Each sentence gets cells as its words would have them: for every word, what pictures whose
captions hold it have more of than others (ridge regression from words to mean cells). The decoder
so learns to put what is seen into sentences, of which there are far more than captioned pictures.
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from .batches import PictureFeed
from .config import Stage
from .decoding import teacher_forcing
from .task import Task
from ..errors import UserError
from ..models.mobilenet import MobileNetCaptioningModel

CELLS = 16  # of a sentence
COMMON = 0.1  # words in a larger part of all captions say nothing of a picture
PART = 0.4  # of a sentence's words in each of its cells
LOST = 0.2  # of its words, none of the cells has any
NOISE = 0.5  # of a cell, in deviations of the pictures' cells
RIDGE = 10.0
BATCH = 64


class Text:
    """The objective of the stage `text`."""

    def __init__(
            self, task: Task, stage: Stage, model: MobileNetCaptioningModel,
            feed: PictureFeed) -> None:
        if not task.sentences:
            raise UserError('text: give the sentences with --text FILE')
        self._task, self._stage, self._model = task, stage, model
        self.learners: list[nn.Module] = [model.decoder]
        usual, self._mean, self._deviation, self._cells_of_word = _regress(task, feed)
        self._telling = usual < COMMON

    def count(self) -> int:
        """Return the number of sentences of an epoch, in groups of a picture's captions."""
        return len(self._task.sentences) // self._task.config.captions_per_picture

    def order(self, random: np.random.Generator) -> np.ndarray:
        """Return the groups of sentences of an epoch."""
        return random.permutation(self.count())

    def loss(
            self, groups: np.ndarray, random: np.random.Generator
    ) -> tuple[torch.Tensor, float]:
        """Return the loss on these groups of sentences, and no reward."""
        k = self._task.config.captions_per_picture
        sentences = [self._task.sentences[group * k + i] for group in groups for i in range(k)]
        words = torch.from_numpy(self._task.pad([[s] for s in sentences])).to(self._mean.device)
        logits, targets = teacher_forcing(
            self._model.decoder, self._cells(words[:, 0]), words, self._task.ignored)
        return functional.cross_entropy(
            logits.float(), targets, label_smoothing=self._stage.label_smoothing), 0.0

    def _cells(self, words: torch.Tensor) -> torch.Tensor:
        """Return cells (N, L, C) for (N, T) sentences."""
        kept = self._telling[words] & (torch.rand(words.shape, device=words.device) > LOST)
        each = torch.rand(len(words), CELLS, words.shape[1], device=words.device) < PART
        parts = (each & kept[:, None]).float() / PART
        cells = self._mean + torch.bmm(parts, self._cells_of_word[words])
        cells = cells + NOISE * self._deviation * torch.randn_like(cells)
        return cells.clamp(min=0)


def _regress(task: Task, feed: PictureFeed) -> tuple[torch.Tensor, ...]:
    """Return the words' shares (V,), mean and deviation of the cells (C,), and (V, C) of words."""
    random = np.random.default_rng(0)
    count, size = len(task.train.files), len(task.vocabulary)
    device = task.device
    gram, shares = torch.zeros(size, size, device=device), torch.zeros(size, device=device)
    moment = means = squares = torch.zeros((), device=device)
    with torch.no_grad():
        for first in range(0, count, BATCH):
            pictures = np.arange(first, min(first + BATCH, count))
            cells = feed.draw(pictures, random).cells.float()
            mean = cells.mean(dim=1)
            x = torch.from_numpy(task.train.shares(pictures)).to(device)
            gram += x.t() @ x
            moment = moment + x.t() @ mean
            shares += x.sum(dim=0)
            means = means + mean.sum(dim=0)
            squares = squares + (cells ** 2).mean(dim=1).sum(dim=0)
        shares, mean = shares / count, means / count
        deviation = (squares / count - mean ** 2).clamp(min=0).sqrt()
        centred = moment - count * shares[:, None] * mean
        gram -= count * shares[:, None] * shares
        gram += RIDGE * torch.eye(size, device=device)
        return shares, mean, deviation, torch.linalg.solve(gram, centred)
