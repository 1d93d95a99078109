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
Learn from the scores of captions that the model itself has drawn.

Rennie et al. 2017, "Self-critical Sequence Training for Image Captioning", with the mean of a
picture's other samples as the baseline (Luo 2020).
"""

from collections.abc import Sequence

import numpy as np
import torch

from .batches import Batch, PictureFeed
from .config import Stage
from .decoding import cut, decode
from .likelihood import Likelihood, likelihood_loss
from .rewards import Rewards
from .task import Task
from .words import words_loss
from ..models.mobilenet import MobileNetCaptioningModel
from ..models.repetition import DOGS, PEOPLE, relatives
from ..models.vocabulary import Vocabulary

REWARD_PROCESSES = 4  # beside a GPU


class SelfCritical(Likelihood):
    """
    The objective of the stage `self-critical`.

    Pictures with fewer captions than `min_references` say too little of what is a good caption:
    from them, likelihood is learned.
    """

    def __init__(
            self, task: Task, stage: Stage, model: MobileNetCaptioningModel,
            feed: PictureFeed) -> None:
        super().__init__(task, stage, model, feed)
        references = task.train.references(with_end=True)
        self._rich = np.array([len(r) >= stage.min_references for r in references])
        self._rewards = Rewards(
            references, stage.bleu_weight, stage.meteor_weight, stage.repeat_weight,
            stage.invented_weight, _kin(task.vocabulary),
            0 if task.device == 'cpu' else REWARD_PROCESSES)

    def loss(
            self, pictures: np.ndarray, random: np.random.Generator
    ) -> tuple[torch.Tensor, float]:
        """Return the loss on these pictures and the mean reward."""
        stage = self._stage
        batch = self._feed.draw(pictures, random)
        rich = self._rich[pictures]
        loss, reward = batch.cells.new_zeros(()).float(), 0.0
        if rich.any():
            rows = torch.from_numpy(np.flatnonzero(rich)).to(batch.cells.device)
            part = Batch(pictures[rich], batch.cells[rows], None, batch.mirrored[rich])
            loss, reward = self._reinforce(part)
            loss = loss * float(rich.mean())
        weights = np.where(rich, stage.likelihood_weight, 1.0).astype(np.float32)
        if weights.any():
            loss = loss + likelihood_loss(
                self._task, stage, self._model, batch, random, weights)
        if stage.words_weight:
            loss = loss + stage.words_weight * words_loss(self._task, self._model, batch)
        return loss, reward

    def _reinforce(self, batch: Batch) -> tuple[torch.Tensor, float]:
        stage, task, vocabulary = self._stage, self._task, self._task.vocabulary
        words, log_probabilities = decode(
            self._model.decoder, batch.cells, stage.samples, vocabulary.start, vocabulary.end,
            task.forbidden, task.config.max_words)
        pictures, captions = [], []
        for n, group in enumerate(words.cpu().numpy()):
            if batch.mirrored[n]:
                group = task.mirrored[group]
            pictures += [int(batch.pictures[n])] * len(group)
            captions += [cut(row.tolist(), vocabulary.end, with_end=True) for row in group]
        rewards = np.array(self._rewards(pictures, captions)).reshape(words.shape[:2])
        others = (rewards.sum(1, keepdims=True) - rewards) / (stage.samples - 1)
        advantage = torch.from_numpy(rewards - others).float().to(batch.cells.device)
        real = log_probabilities != 0
        loss = -(advantage.unsqueeze(2) * log_probabilities).sum() / real.sum()
        return loss, float(rewards.mean())


def _kin(vocabulary: Vocabulary) -> dict[int, Sequence[int]]:
    """Return what each word of meaning may stand for; whom one calls a boy, another a man."""
    kin: dict[int, Sequence[int]] = dict(relatives(vocabulary.words))
    for family in (PEOPLE, DOGS):
        members = [vocabulary.word_map[w] for w in family if w in vocabulary.word_map]
        kin.update(dict.fromkeys(members, members))
    return kin
