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

"""A whole training run: the stages of a configuration, one after the other."""

from collections.abc import Sequence
import os
import shutil
from typing import Any

import numpy as np
import torch

from .caption_files import CaptionedPicture
from .checkpoint import average_checkpoints, checkpoint_contents, save_atomically
from .cider import CiderD
from .config import TrainingConfig
from .dataset import build_vocabulary, encode, tokenize
from .stage_run import StageRun
from .teachers import Teachers
from ..errors import UserError
from ..models.mobilenet import MobileNetCaptioningModel
from ..models.vocabulary import PAD, UNKNOWN, Vocabulary


class Split:
    """The pictures of one split, their captions as indices."""

    def __init__(
            self, pictures: Sequence[CaptionedPicture], config: TrainingConfig,
            vocabulary: Vocabulary) -> None:
        self.files = [picture.file for picture in pictures]
        self.captions: list[list[list[int]]] = []
        for picture in pictures:
            tokens = [tokenize(caption) for caption in picture.captions]
            kept = [words for words in tokens if len(words) >= config.min_words]
            self.captions.append([
                encode(words, vocabulary, config.max_words) for words in kept or tokens])

    def shares(self, vocabulary_size: int, pictures: np.ndarray) -> np.ndarray:
        """Return (N, V): the part of the captions of each of these pictures that holds a word."""
        shares = np.zeros((len(pictures), vocabulary_size), np.float32)
        for row, picture in enumerate(pictures):
            captions = self.captions[picture]
            for caption in captions:
                shares[row, sorted({*caption})] += 1 / len(captions)
        return shares

    def references(self, with_end: bool) -> list[list[list[int]]]:
        """Return the captions without <start>, and without <end> unless it is wanted."""
        return [
            [caption[1:] if with_end else caption[1:-1] for caption in captions]
            for captions in self.captions]


class Trainer:
    """
    Runs the stages of a configuration.

    :param pictures: of the splits 'train' and 'val'; others are left alone.
    :param model: to start from, its encoder folded; its decoder fits `vocabulary`.
    :param out: folder of everything the run writes; a run found there is taken up.
    :param teachers: checkpoints that stages with `distillation` learn from.
    """

    def __init__(
            self, config: TrainingConfig, pictures: Sequence[CaptionedPicture], images: str,
            vocabulary: Vocabulary, model: MobileNetCaptioningModel, out: str, cache: str,
            teachers: Sequence[str] = (), device: str = 'cpu', save_every_s: float = 60.0) -> None:
        self.config, self.images, self.vocabulary = config, images, vocabulary
        self.model = model.to(device)
        self.device, self.out, self.cache = device, out, cache
        self.save_every_s = save_every_s
        self.teachers = Teachers(teachers, vocabulary, device)
        self.train = Split([p for p in pictures if p.split == 'train'], config, vocabulary)
        self.val = Split([p for p in pictures if p.split == 'val'], config, vocabulary)
        self.val_scorer = CiderD(self.val.references(with_end=False))
        word_map = vocabulary.word_map
        self.ignored = torch.tensor([word_map[PAD], word_map[UNKNOWN]], device=device)
        self.forbidden = torch.tensor(vocabulary.special, device=device)
        # A mirrored picture's left is its right.
        self.mirrored = np.arange(len(vocabulary))
        if 'left' in word_map and 'right' in word_map:
            left, right = word_map['left'], word_map['right']
            self.mirrored[[left, right]] = right, left
        self._path = os.path.join(out, 'state.pth')

    def run(self) -> str:
        """Run what is left of the stages and return the path of the trained checkpoint."""
        state = self._load_state()
        if not state:
            save_atomically(checkpoint_contents(self.model, self.vocabulary), self.stage_path(-1))
        for index in range(state['stage'] if state else 0, len(self.config.stages)):
            for run in range(state['run'] if state else 0, self.config.stages[index].runs):
                StageRun(self, index, run, state).run()
                state = None
            self._average_runs(index)
        final = os.path.join(self.out, 'model.pth')
        last = self.stage_path(len(self.config.stages) - 1)
        shutil.copyfile(last, final + '.new')
        os.replace(final + '.new', final)
        return final

    def stage_path(self, index: int) -> str:
        """Return the path of the checkpoint that a stage leaves; -1: of what came in."""
        name = 'initial' if index < 0 else self.config.stages[index].name.replace(' ', '_')
        return os.path.join(self.out, f'{index + 1}_{name}.pth')

    def run_path(self, index: int, run: int) -> str:
        """Return the path of the best checkpoint of a stage's run."""
        path = self.stage_path(index)
        return path.replace('.pth', f'.run{run + 1}.pth') if self._averages(index) else path

    def _averages(self, index: int) -> bool:
        stage = self.config.stages[index]
        return stage.runs > 1 or stage.pull_back > 0

    def _average_runs(self, index: int) -> None:
        stage = self.config.stages[index]
        if self._averages(index):
            paths = [self.run_path(index, run) for run in range(stage.runs)]
            parts = [(1 - stage.pull_back) / stage.runs] * stage.runs
            if stage.pull_back:
                paths.append(self.stage_path(index - 1))
                parts.append(stage.pull_back)
            average_checkpoints(paths, parts, self.stage_path(index))

    def _load_state(self) -> dict[str, Any] | None:
        if not os.path.exists(self._path):
            return None
        state = torch.load(self._path, map_location=self.device, weights_only=True)
        if state['words'] != self.vocabulary.words:
            raise UserError(
                f'{self.out} holds a run on other captions: choose another --out, or delete it')
        return state

    def save_state(self, state: dict[str, Any]) -> None:
        """Write what a later process needs to go on from here."""
        save_atomically({**state, 'words': self.vocabulary.words}, self._path)


def prepare_vocabulary(
        pictures: Sequence[CaptionedPicture], config: TrainingConfig) -> Vocabulary:
    """Return the vocabulary of the training captions."""
    tokens = (tokenize(c) for p in pictures if p.split == 'train' for c in p.captions)
    return build_vocabulary((t for t in tokens if len(t) >= config.min_words), config.min_count)
