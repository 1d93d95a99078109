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
Learn which words a picture's captions hold, whatever their order.

Fang et al. 2015, "From Captions to Visual Concepts and Back".
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from .batches import Batch, OfPictures, PictureFeed
from .config import Stage
from .task import Task
from ..models.mobilenet import MobileNetCaptioningModel, WordLayers

STATISTICS_PICTURES, STATISTICS_BATCH = 4096, 64


class Words(OfPictures):
    """The objective of the stage `words`: the detector alone."""

    def __init__(
            self, task: Task, stage: Stage, model: MobileNetCaptioningModel,
            feed: PictureFeed) -> None:
        assert model.words is not None
        self._task, self._model, self._feed = task, model, feed
        self.learners: list[nn.Module] = [model.words.hidden, model.words.out]

    def loss(
            self, pictures: np.ndarray, random: np.random.Generator
    ) -> tuple[torch.Tensor, float]:
        """Return the loss on these pictures, and no reward."""
        return words_loss(self._task, self._model, self._feed.draw(pictures, random)), 0.0


def words_loss(task: Task, model: MobileNetCaptioningModel, batch: Batch) -> torch.Tensor:
    """Return the cross-entropy of each word: in which part of a picture's captions it is."""
    assert model.words is not None
    shares = task.train.shares(batch.pictures)
    shares[batch.mirrored] = shares[batch.mirrored][:, task.mirrored]
    wanted = torch.from_numpy(shares).to(batch.cells.device)
    logits = model.words(batch.cells.float()) + task.usual
    return functional.binary_cross_entropy_with_logits(
        logits, wanted, reduction='none').sum(dim=1).mean()


def add_word_layers(task: Task, model: MobileNetCaptioningModel, dim: int) -> None:
    """Give a model a word detector that knows nothing yet."""
    model.words = WordLayers(
        len(task.vocabulary), model.encoder.out_channels, dim).to(task.device)


def start_words(task: Task, model: MobileNetCaptioningModel, feed: PictureFeed) -> None:
    """Begin with what cells are like, and with every word as usual as it is."""
    assert model.words is not None
    random = np.random.default_rng(0)
    pictures = random.permutation(len(task.train.files))[:STATISTICS_PICTURES]
    with torch.no_grad():
        means = torch.cat([
            feed.draw(pictures[first:first + STATISTICS_BATCH], random).cells.float().mean(dim=1)
            for first in range(0, len(pictures), STATISTICS_BATCH)])
        deviation = means.std(dim=0, correction=0)
        model.words.mean.copy_(means.mean(dim=0))
        # No less than a part of what is common: a channel that was dead may wake a little.
        model.words.deviation.copy_(deviation + 0.01 * deviation.mean() + 1e-30)
        model.words.out.weight.mul_(0.1)
        model.words.out.bias.zero_()
