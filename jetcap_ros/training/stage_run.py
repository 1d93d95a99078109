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
One run of a stage: its steps, the moving average, validation, kill and resume.

Every batch draws its random numbers from the seed, the run, the stage, the epoch and its own
number, so a run that was killed and taken up again gives the weights of one that was not.
"""

import math
import time
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from . import journal
from .batches import PictureFeed
from .checkpoint import (
    checkpoint_contents, load_weights, save_atomically, without_words)
from .config import Stage
from .likelihood import Likelihood
from .run_folder import RunFolder
from .self_critical import SelfCritical
from .task import Task
from .text import Text
from .validation import validate
from .words import add_word_layers, start_words, Words
from ..models.mobilenet import MobileNetCaptioningModel

CLIP_NORM = 5.0
PLOT_EVERY_S = 30.0


class Objective(Protocol):
    """What a stage learns, and from which items (pictures, say)."""

    learners: list[nn.Module]

    def count(self) -> int:
        """Return the number of items of an epoch."""

    def order(self, random: np.random.Generator) -> np.ndarray:
        """Return the items of an epoch."""

    def loss(
            self, items: np.ndarray, random: np.random.Generator) -> tuple[torch.Tensor, float]:
        """Return the loss on items, and the mean reward if there is one."""


OBJECTIVES: dict[str, type[Any]] = {
    'text': Text, 'frozen': Likelihood, 'fine-tune': Likelihood, 'self-critical': SelfCritical,
    'words': Words}


class StageRun:
    """
    One run of a stage.

    :param index: of the stage; number: of the run, of those that are averaged, from 0.
    :param state: what `RunFolder.save_state` kept of it, to go on from.
    """

    def __init__(
            self, task: Task, model: MobileNetCaptioningModel, folder: RunFolder, index: int,
            number: int, state: dict[str, Any] | None) -> None:
        self.task, self.model, self.folder = task, model, folder
        self.index, self.number = index, number
        self.stage: Stage = task.config.stages[index]
        fresh_words = self._load_weights(state)
        self.model.decoder.dropout.p = self.stage.dropout
        if self.model.words is not None:
            self.model.words.dropout.p = self.stage.dropout
        self.model.requires_grad_(False)
        self.feed = PictureFeed(task, self.stage, model)
        if fresh_words and not state:
            start_words(task, model, self.feed)
        self.objective: Objective = OBJECTIVES[self.stage.kind](
            task, self.stage, model, self.feed)
        self.optimizer = self._make_optimizer()
        self.average = self._trained()
        self.epoch = self.batch = self.steps = 0
        self.best = -1.0
        self.totals = [0.0, 0.0, 0]  # loss, reward, batches of this epoch
        self.seconds = 0.0  # of this epoch, before the last kill
        self.plotted = time.monotonic()
        if state:
            self._take_up(state)
        self.batches = math.ceil(self.objective.count() / self.stage.batch_pictures)

    def _load_weights(self, state: dict[str, Any] | None) -> bool:
        """Load what the stage goes on from; say whether its word detector is a new one."""
        before = torch.load(
            self.folder.stage_path(self.index - 1), map_location=self.task.device,
            weights_only=True)
        # What a word detector learned fits the encoder as it was.
        if self.stage.kind == 'words' or (
                self.stage.from_block is not None and not self.stage.words_weight):
            without_words(before)
        hidden = before['model_state_dict'].get('words.hidden.bias')
        self.model.words = None
        if hidden is not None:
            add_word_layers(self.task, self.model, len(hidden))
        load_weights(self.model, before)
        fresh = self.stage.kind == 'words' or (
            self.stage.words_weight > 0 and self.model.words is None)
        if fresh:
            add_word_layers(self.task, self.model, self.stage.words_dim)
        if state:
            self.model.load_state_dict(state['model'])
        if self.model.words is not None:
            self.model.words.usual.data.copy_(self.task.usual)
            self.model.words.least.data.copy_(self.task.least)
        return fresh

    def _make_optimizer(self) -> torch.optim.Optimizer:
        learners = [p for module in self.objective.learners for p in module.parameters()]
        tuned = [
            p for module in self.model.encoder.block_modules(self.feed.block)
            for p in module.parameters()]
        groups = [{'params': learners, 'rate': self.stage.learning_rate}]
        if tuned:
            groups.append({'params': tuned, 'rate': self.stage.encoder_rate})
        for parameter in learners + tuned:
            parameter.requires_grad_(True)
        return torch.optim.AdamW(groups, lr=0.0, weight_decay=self.stage.weight_decay)

    def _trained(self) -> dict[str, torch.Tensor]:
        """Return a copy of the parameters that are trained."""
        return {
            name: parameter.detach().clone()
            for name, parameter in self.model.named_parameters() if parameter.requires_grad}

    def _take_up(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state['optimizer'])
        self.average = state['average']
        self.epoch, self.batch, self.steps = state['epoch'], state['batch'], state['steps']
        self.best, self.totals = state['best'], state['totals']
        self.seconds = state['seconds']

    def run(self) -> None:
        """Train to the last epoch; the best averaged weights are in the run's checkpoint."""
        while self.epoch < self.stage.epochs:
            self._run_epoch()
        if self.best < 0:  # no epochs: what came in goes out
            self._save_checkpoint()

    def _state(self) -> dict[str, Any]:
        return {
            'stage': self.index, 'run': self.number, 'epoch': self.epoch, 'batch': self.batch,
            'steps': self.steps, 'best': self.best, 'totals': self.totals,
            'seconds': self.seconds + time.monotonic() - self.started,
            'model': self.model.state_dict(), 'optimizer': self.optimizer.state_dict(),
            'average': self.average}

    def _random(self, *numbers: int) -> np.random.Generator:
        seed = self.task.config.seed + self.number
        return np.random.default_rng((seed, self.index, *numbers))

    def _run_epoch(self) -> None:
        stage = self.stage
        order = self.objective.order(self._random(self.epoch))
        self.started = saved = time.monotonic()
        with tqdm(
                total=self.batches, initial=self.batch, leave=False,
                desc=f'{stage.name} {self.epoch + 1}/{stage.epochs}', unit='batches') as bar:
            while self.batch < self.batches:
                first = self.batch * stage.batch_pictures
                self._step(np.sort(order[first:first + stage.batch_pictures]))
                self.batch += 1
                bar.update()
                if self.totals[2]:
                    bar.set_postfix_str(
                        f'loss {self.totals[0] / self.totals[2]:.3f}'
                        + (f' reward {self.totals[1] / self.totals[2]:.3f}'
                           if stage.kind == 'self-critical' else ''))
                if time.monotonic() - saved > self.folder.save_every_s:
                    self.folder.save_state(self._state())
                    saved = time.monotonic()
        self._end_epoch()

    def _step(self, items: np.ndarray) -> None:
        stage, config = self.stage, self.task.config
        random = self._random(self.epoch, self.batch)
        torch.manual_seed(int(random.integers(2 ** 62)))
        done = self.steps / max(1, self.batches * stage.epochs)
        factor = min(1.0, (done + 1e-3) / max(stage.warm_up, 1e-3))
        factor *= stage.final_rate + (1 - stage.final_rate) * (1 + math.cos(math.pi * done)) / 2
        for group in self.optimizer.param_groups:
            group['lr'] = group['rate'] * factor
        self.model.decoder.train()
        if self.model.words is not None:
            self.model.words.train()
        with torch.autocast(self.task.device, torch.bfloat16, enabled=config.bfloat16):
            loss, reward = self.objective.loss(items, random)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(
            [p for group in self.optimizer.param_groups for p in group['params']], CLIP_NORM)
        self.optimizer.step()
        self.steps += 1
        decay = min(stage.average, (1 + self.steps) / (10 + self.steps))
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                if name in self.average:
                    self.average[name].lerp_(parameter, 1 - decay)
        self.totals = [
            self.totals[0] + loss.item(), self.totals[1] + reward, self.totals[2] + 1]

    def _end_epoch(self) -> None:
        self.seconds += time.monotonic() - self.started
        weights = self._trained()
        self._load(self.average)
        figures = validate(self.model, self.task, self.feed)
        if figures['val_cider'] >= self.best:  # of equals the later, which learned more
            self.best = figures['val_cider']
            self._save_checkpoint()
        self._load(weights)
        self._log(figures)
        self.epoch, self.batch, self.seconds = self.epoch + 1, 0, 0.0
        self.totals = [0.0, 0.0, 0]
        self.started = time.monotonic()
        self.folder.save_state(self._state())

    def _log(self, figures: dict[str, float]) -> None:
        loss, reward, batches = self.totals
        row = {
            'stage': self.stage.name, 'run': self.number + 1, 'epoch': self.epoch + 1,
            'steps': self.steps, 'learning_rate': self.optimizer.param_groups[0]['lr'],
            'seconds': self.seconds, **figures}
        if self.stage.kind == 'self-critical':
            row['reward'] = 100 * reward / batches
        else:
            row['train_loss'] = loss / batches
        path = self.folder.path('log.csv')
        journal.append_row(path, row)
        last = self.epoch + 1 == self.stage.epochs
        if last or time.monotonic() - self.plotted > PLOT_EVERY_S:
            journal.plot_journal(path, self.folder.path('curves.png'))
            self.plotted = time.monotonic()
        tqdm.write(f'{self.stage.name} {self.epoch + 1}/{self.stage.epochs}: ' + ', '.join(
            f'{name} {value:.4g}' for name, value in row.items() if isinstance(value, float)))

    def _load(self, parameters: dict[str, torch.Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                if name in parameters:
                    parameter.copy_(parameters[name])

    def _save_checkpoint(self) -> None:
        save_atomically(
            checkpoint_contents(self.model, self.task.vocabulary),
            self.folder.run_path(self.index, self.number))
