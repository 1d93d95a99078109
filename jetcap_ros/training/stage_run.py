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
One run of a stage: its losses, the moving average, validation, kill and resume.

Every batch draws its random numbers from the seed, the run, the stage, the epoch and its own
number, so a run that was killed and taken up again gives the weights of one that was not.
"""

import math
import os
import time
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from tqdm import tqdm

from . import journal
from .bleu import corpus_bleu4, sentence_bleu4
from .checkpoint import checkpoint_contents, load_weights, save_atomically
from .cider import CiderD
from .config import Stage
from .decoding import decode, teacher_forcing
from .features import cache_features, random_view
from .meteor import sentence_meteor
from ..errors import UserError
from ..images.picture import read_picture
from ..models.generation import WORD_GAIN
from ..models.mobilenet import WordLayers
from ..models.vocabulary import PAD

CLIP_NORM = 5.0
VALIDATION_BATCH = 64
LEAST_SHARE = 1e-4  # of the captions with a word, for its log-odds


class StageRun:
    """
    One run of a stage.

    :param trainer: the `Trainer` whose pictures, model and folders it uses.
    :param index: of the stage; run: of those that are averaged, from 0.
    :param state: what `Trainer.save_state` kept of it, to go on from.
    """

    def __init__(self, trainer, index: int, run: int, state: dict[str, Any] | None) -> None:
        self.trainer, self.index, self.number = trainer, index, run
        self.stage: Stage = trainer.config.stages[index]
        self.model = trainer.model
        if not state:
            before = torch.load(
                trainer.stage_path(index - 1), map_location=trainer.device, weights_only=True)
            load_weights(self.model, before)
        if self.stage.kind == 'words':
            self.model.words = WordLayers(
                len(trainer.vocabulary), self.model.encoder.out_channels,
                self.stage.words_dim).to(trainer.device)
        if state:
            self.model.load_state_dict(state['model'])
        blocks = len(self.model.encoder.blocks)
        self.block = blocks if self.stage.from_block is None else self.stage.from_block
        if self.block > blocks:
            raise UserError(f'from_block is {self.block}, but the encoder has {blocks} blocks')
        if self.stage.distillation and (self.stage.views or not trainer.teachers.models):
            raise UserError(
                f'{self.stage.name}: distillation needs a --teacher, and views: 0, so that the '
                'teacher sees what the model sees')
        encoder = self.model.encoder.eval().to(memory_format=torch.channels_last)
        self.features = {
            name: cache_features(
                trainer.cache, encoder, self.block, split.files, trainer.images, views,
                trainer.config.bfloat16)
            for name, split, views in (
                ('train', trainer.train, self.stage.views), ('val', trainer.val, 1)) if views}
        self.model.decoder.dropout.p = self.stage.dropout
        self.model.requires_grad_(False)
        if self.stage.kind == 'words':
            learners = [self.model.words.hidden, self.model.words.out]
            self.model.words.dropout.p = self.stage.dropout
            if not state:
                self._start_words()
        else:
            learners = [self.model.decoder]
        for module in learners:
            module.requires_grad_(True)
        tuned = [p for module in encoder.block_modules(self.block) for p in module.parameters()]
        groups = [{'params': [p for module in learners for p in module.parameters()],
                   'rate': self.stage.learning_rate}]
        if tuned:
            groups.append({'params': tuned, 'rate': self.stage.encoder_rate})
        for parameter in tuned:
            parameter.requires_grad_(True)
        self.optimizer = torch.optim.AdamW(
            groups, lr=0.0, weight_decay=self.stage.weight_decay)
        self.average = {
            name: parameter.detach().clone()
            for name, parameter in self.model.named_parameters() if parameter.requires_grad}
        self.epoch = self.batch = self.steps = 0
        self.best = -1.0
        self.totals = [0.0, 0.0, 0]  # loss, reward, batches of this epoch
        self.seconds = 0.0  # of this epoch, before the last kill
        if state:
            self.optimizer.load_state_dict(state['optimizer'])
            self.average = state['average']
            self.epoch, self.batch, self.steps = state['epoch'], state['batch'], state['steps']
            self.best, self.totals = state['best'], state['totals']
            self.seconds = state['seconds']
        self.batches = math.ceil(len(trainer.train.files) / self.stage.batch_pictures)
        if self.stage.kind == 'self-critical':
            self.references = trainer.train.references(with_end=True)
            self.scorer = CiderD(self.references)
        if self.stage.kind == 'words':
            pictures = np.arange(len(trainer.train.files))
            usual = torch.from_numpy(trainer.train.shares(len(trainer.vocabulary), pictures))
            self.usual = torch.logit(usual.mean(dim=0), LEAST_SHARE).to(trainer.device)

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
        seed = self.trainer.config.seed + self.number
        return np.random.default_rng((seed, self.index, *numbers))

    def _run_epoch(self) -> None:
        trainer, stage = self.trainer, self.stage
        order = self._random(self.epoch).permutation(len(trainer.train.files))
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
                if time.monotonic() - saved > trainer.save_every_s:
                    trainer.save_state(self._state())
                    saved = time.monotonic()
        self._end_epoch()

    def _step(self, pictures: np.ndarray) -> None:
        stage, config = self.stage, self.trainer.config
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
        with torch.autocast(self.trainer.device, torch.bfloat16, enabled=config.bfloat16):
            images, features, mirrored = self._features(pictures, random)
            cells = self._cells(features)
            cells = functional.dropout(cells, stage.feature_dropout)
            loss, reward, weight = 0.0, 0.0, 1.0
            if stage.kind == 'words':
                loss, weight = self._words_loss(cells, pictures, mirrored), 0.0
            if stage.kind == 'self-critical':
                loss, reward = self._self_critical_loss(cells, pictures, mirrored)
                weight = stage.likelihood_weight
            if weight:
                loss = loss + weight * self._likelihood_loss(
                    cells, images, pictures, mirrored, random)
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

    def _features(
            self, pictures: np.ndarray, random: np.random.Generator
    ) -> tuple[torch.Tensor | None, torch.Tensor, np.ndarray]:
        """Return fresh views, if any, what the frozen blocks give, and which are mirrored."""
        trainer = self.trainer
        if self.stage.views:
            views = random.integers(self.stage.views, size=len(pictures))
            return None, self._on_device(self.features['train'][views, pictures]), views % 2 == 1
        views = [random_view(read_picture(os.path.join(
            trainer.images, trainer.train.files[i])), random) for i in pictures]
        x = self._on_device(np.concatenate([image for image, _ in views]))
        with torch.no_grad():
            features = self.model.encoder.run_blocks(x, 0, self.block)
        return x, features, np.array([mirrored for _, mirrored in views])

    def _on_device(self, values: np.ndarray) -> torch.Tensor:
        x = torch.from_numpy(np.array(values)).to(self.trainer.device).float()
        return x.contiguous(memory_format=torch.channels_last)

    def _cells(self, features: torch.Tensor) -> torch.Tensor:
        """Return the cells (N, L, C) of features, through the blocks that are trained."""
        return self.model.encoder.run_blocks(features, self.block).flatten(2).transpose(1, 2)

    def _pad(self, captions: list[list[list[int]]]) -> np.ndarray:
        """Return (N, K, T) indices, filled up with <pad>."""
        length = max(len(caption) for group in captions for caption in group)
        pad = self.trainer.vocabulary.word_map[PAD]
        return np.array([
            [caption + [pad] * (length - len(caption)) for caption in group]
            for group in captions])

    def _likelihood_loss(self, cells, images, pictures, mirrored, random) -> torch.Tensor:
        k = self.trainer.config.captions_per_picture
        drawn = []
        for picture in pictures:
            captions = self.trainer.train.captions[picture]
            picks = random.permutation(len(captions))
            drawn.append([captions[picks[i % len(captions)]] for i in range(k)])
        captions = self._pad(drawn)
        captions[mirrored] = self.trainer.mirrored[captions[mirrored]]
        words = torch.from_numpy(captions).to(cells.device)
        logits, targets = teacher_forcing(
            self.model.decoder, cells, words, self.trainer.ignored)
        logits = logits.float()
        loss = functional.cross_entropy(
            logits, targets, label_smoothing=self.stage.label_smoothing)
        part = self.stage.distillation
        if part:
            probable = self.trainer.teachers.probabilities(images, words, self.trainer.ignored)
            loss = (1 - part) * loss + part * functional.cross_entropy(logits, probable)
        return loss

    def _self_critical_loss(self, cells, pictures, mirrored) -> tuple[torch.Tensor, float]:
        """
        Return the loss of REINFORCE and the mean reward.

        Rennie et al. 2017, with the mean of a picture's other samples as the baseline (Luo 2020).
        """
        stage, vocabulary = self.stage, self.trainer.vocabulary
        words, log_probabilities = decode(
            self.model.decoder, cells, stage.samples, vocabulary.start, vocabulary.end,
            self.trainer.forbidden, self.trainer.config.max_words)
        rewards = np.empty(words.shape[:2])
        for n, group in enumerate(words.cpu().numpy()):
            if mirrored[n]:
                group = self.trainer.mirrored[group]
            for k, row in enumerate(group):
                caption = cut(row.tolist(), vocabulary.end, with_end=True)
                rewards[n, k] = self.scorer.score(pictures[n], caption)
                references = self.references[pictures[n]]
                if stage.bleu_weight:
                    rewards[n, k] += stage.bleu_weight * sentence_bleu4(caption, references)
                if stage.meteor_weight:
                    rewards[n, k] += stage.meteor_weight * sentence_meteor(caption, references)
        others = (rewards.sum(1, keepdims=True) - rewards) / (stage.samples - 1)
        advantage = torch.from_numpy(rewards - others).float().to(cells.device)
        real = log_probabilities != 0
        loss = -(advantage.unsqueeze(2) * log_probabilities).sum() / real.sum()
        return loss, float(rewards.mean())

    def _start_words(self) -> None:
        """Begin with what cells are like, and with every word as usual as it is."""
        words, features = self.model.words, self.features['train']
        means = np.concatenate([
            self._cells(self._on_device(
                view[first:first + VALIDATION_BATCH])).mean(dim=1).cpu().numpy()
            for view in features for first in range(0, len(view), VALIDATION_BATCH)])
        deviation = means.std(axis=0)
        with torch.no_grad():
            words.mean.copy_(torch.from_numpy(means.mean(axis=0)))
            # No less than a part of what is common: a channel that was dead may wake a little.
            words.deviation.copy_(torch.from_numpy(deviation + 0.01 * deviation.mean() + 1e-30))
            words.out.weight.mul_(0.1)
            words.out.bias.zero_()

    def _words_loss(self, cells, pictures, mirrored) -> torch.Tensor:
        """Return the cross-entropy of each word: in which part of the captions it is."""
        shares = self.trainer.train.shares(len(self.trainer.vocabulary), pictures)
        shares[mirrored] = shares[mirrored][:, self.trainer.mirrored]
        wanted = torch.from_numpy(shares).to(cells.device)
        logits = self.model.words(cells.float()) + self.usual
        return functional.binary_cross_entropy_with_logits(
            logits, wanted, reduction='none').sum(dim=1).mean()

    def _end_epoch(self) -> None:
        self.seconds += time.monotonic() - self.started
        weights = {
            name: parameter.detach().clone()
            for name, parameter in self.model.named_parameters() if name in self.average}
        self._load(self.average)
        figures = self._validate()
        if figures['val_cider'] >= self.best:  # of equals the later, which learned more
            self.best = figures['val_cider']
            self._save_checkpoint()
        self._load(weights)
        loss, reward, batches = self.totals
        row = {
            'stage': self.stage.name, 'run': self.number + 1, 'epoch': self.epoch + 1,
            'steps': self.steps, 'learning_rate': self.optimizer.param_groups[0]['lr'],
            'seconds': self.seconds, **figures}
        if self.stage.kind == 'self-critical':
            row['reward'] = 100 * reward / batches
        else:
            row['train_loss'] = loss / batches
        path = os.path.join(self.trainer.out, 'log.csv')
        journal.append_row(path, row)
        journal.plot_journal(path, os.path.join(self.trainer.out, 'curves.png'))
        tqdm.write(f'{self.stage.name} {self.epoch + 1}/{self.stage.epochs}: ' + ', '.join(
            f'{name} {value:.4g}' for name, value in row.items() if isinstance(value, float)))
        self.epoch, self.batch, self.seconds = self.epoch + 1, 0, 0.0
        self.totals = [0.0, 0.0, 0]
        self.started = time.monotonic()
        self.trainer.save_state(self._state())

    def _load(self, parameters: dict[str, torch.Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                if name in parameters:
                    parameter.copy_(parameters[name])

    def _save_checkpoint(self) -> None:
        save_atomically(
            checkpoint_contents(self.model, self.trainer.vocabulary),
            self.trainer.run_path(self.index, self.number))

    def _validate(self) -> dict[str, float]:
        """Return cross-entropy, CIDEr-D and BLEU-4 (x 100, greedy, own tokens) of validation."""
        trainer, vocabulary = self.trainer, self.trainer.vocabulary
        self.model.decoder.eval()
        if self.model.words is not None:
            self.model.words.eval()
        loss, words, hypotheses = 0.0, 0, []
        count = len(trainer.val.files)
        with torch.no_grad(), torch.autocast(
                trainer.device, torch.bfloat16, enabled=trainer.config.bfloat16):
            for first in range(0, count, VALIDATION_BATCH):
                part = slice(first, first + VALIDATION_BATCH)
                cells = self._cells(self._on_device(self.features['val'][0, part]))
                group = trainer.val.captions[part]
                k = max(map(len, group))
                captions = self._pad([c + [[]] * (k - len(c)) for c in group])
                logits, targets = teacher_forcing(
                    self.model.decoder, cells, torch.from_numpy(captions).to(cells.device),
                    trainer.ignored)
                loss += functional.cross_entropy(
                    logits.float(), targets, reduction='sum').item()
                words += len(targets)
                gains = None
                if self.model.words is not None:
                    gains = WORD_GAIN * torch.relu(self.model.words(cells.float()))
                    gains[:, vocabulary.end] = 0
                drawn, _ = decode(
                    self.model.decoder, cells, 1, vocabulary.start, vocabulary.end,
                    trainer.forbidden, trainer.config.max_words, greedy=True, gains=gains)
                hypotheses += [cut(row, vocabulary.end) for row in drawn[:, 0].tolist()]
        scores = [trainer.val_scorer.score(i, words) for i, words in enumerate(hypotheses)]
        return {
            'val_loss': loss / max(1, words), 'val_cider': 100 * float(np.mean(scores)),
            'val_bleu4': 100 * corpus_bleu4(
                hypotheses, trainer.val.references(with_end=False))}


def cut(words: list[int], end: int, with_end: bool = False) -> list[int]:
    """Return a caption up to its first <end>."""
    if end not in words:
        return words
    return words[:words.index(end) + with_end]
