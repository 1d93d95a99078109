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

"""Learn the words that people wrote: cross-entropy, beside that of teachers."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from .batches import Batch, OfPictures, PictureFeed
from .config import Stage
from .decoding import teacher_forcing
from .task import Task
from .words import words_loss
from ..errors import UserError
from ..models.mobilenet import MobileNetCaptioningModel


class Likelihood(OfPictures):
    """The objective of the stages `frozen` and `fine-tune`."""

    def __init__(
            self, task: Task, stage: Stage, model: MobileNetCaptioningModel,
            feed: PictureFeed) -> None:
        if stage.distillation and (stage.views or not task.teachers.models):
            raise UserError(
                f'{stage.name}: distillation needs a --teacher, and views: 0, so that the '
                'teacher sees what the model sees')
        self._task, self._stage, self._model, self._feed = task, stage, model, feed
        self.learners: list[nn.Module] = [model.decoder]
        if stage.words_weight and model.words is not None:
            self.learners += [model.words.hidden, model.words.out]

    def loss(
            self, pictures: np.ndarray, random: np.random.Generator
    ) -> tuple[torch.Tensor, float]:
        """Return the loss on these pictures, and no reward."""
        batch = self._feed.draw(pictures, random)
        loss = likelihood_loss(self._task, self._stage, self._model, batch, random)
        if self._stage.words_weight:
            loss = loss + self._stage.words_weight * words_loss(self._task, self._model, batch)
        return loss, 0.0


def likelihood_loss(
        task: Task, stage: Stage, model: MobileNetCaptioningModel, batch: Batch,
        random: np.random.Generator, weights: np.ndarray | None = None) -> torch.Tensor:
    """
    Return the cross-entropy of a word of captions drawn for each picture.

    :param weights: (N,) of the pictures; None: all count alike.
    """
    k = task.config.captions_per_picture
    drawn: list[list[list[int]]] = []
    for picture in batch.pictures:
        written = task.train.captions[picture]
        picks = random.permutation(len(written))
        drawn.append([written[picks[i % len(written)]] for i in range(k)])
    captions = task.pad(drawn)
    captions[batch.mirrored] = task.mirrored[captions[batch.mirrored]]
    words = torch.from_numpy(captions).to(batch.cells.device)
    logits, targets = teacher_forcing(model.decoder, batch.cells, words, task.ignored)
    logits = logits.float()
    if weights is None:
        loss = functional.cross_entropy(
            logits, targets, label_smoothing=stage.label_smoothing)
    else:
        each = functional.cross_entropy(
            logits, targets, label_smoothing=stage.label_smoothing, reduction='none')
        wanted = ~torch.isin(words[:, :, 1:], task.ignored)
        rows = torch.from_numpy(weights).to(each.device, each.dtype)
        loss = (each * rows[:, None, None].expand(wanted.shape)[wanted]).sum() / len(each)
    if stage.distillation:
        assert batch.images is not None  # new views, as the constructor checks
        probable = task.teachers.probabilities(batch.images, words, task.ignored)
        part = stage.distillation
        loss = (1 - part) * loss + part * functional.cross_entropy(logits, probable)
    return loss
