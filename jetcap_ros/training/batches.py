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

"""Batches of pictures as a stage sees them: cached features of some views, or new views."""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from .config import Stage
from .features import cache_features, cache_pictures, random_views
from .task import Task
from ..errors import UserError
from ..models.mobilenet import MobileNetCaptioningModel


@dataclass
class Batch:
    """Pictures of the training split and what the encoder says of them."""

    pictures: np.ndarray  # (N,) indices into the split
    cells: torch.Tensor  # (N, L, C)
    images: torch.Tensor | None  # (N, 3, size, size) normalized, where the views are new
    mirrored: np.ndarray  # (N,) which of them are


class PictureFeed:
    """
    Gives the pictures of a task to a stage.

    The blocks before `block` are frozen: what they give is computed once, or, for views that are
    new each time, without gradients.
    """

    def __init__(self, task: Task, stage: Stage, model: MobileNetCaptioningModel) -> None:
        self._task, self._stage = task, stage
        self._size = model.image_size
        self._encoder = model.encoder.eval().to(memory_format=torch.channels_last)
        blocks = len(model.encoder.blocks)
        self.block = blocks if stage.from_block is None else stage.from_block
        if self.block > blocks:
            raise UserError(f'from_block is {self.block}, but the encoder has {blocks} blocks')
        self._val = self._features(task.val.files, 1)
        if stage.views:
            self._train = self._features(task.train.files, stage.views)
        else:
            self._pictures = cache_pictures(
                task.cache, task.train.files, task.images, self._size)
            if task.device != 'cpu':  # a GPU holds them all
                self._on_gpu = torch.from_numpy(np.array(self._pictures)).to(task.device)

    def _features(self, files: list[str], views: int) -> np.ndarray:
        task = self._task
        return cache_features(
            task.cache, self._encoder, self.block, files, task.images, views,
            task.config.bfloat16, self._size)

    def draw(self, pictures: np.ndarray, random: np.random.Generator) -> Batch:
        """Return a view of each of these training pictures."""
        if self._stage.views:
            views = random.integers(self._stage.views, size=len(pictures))
            features = self._on_device(self._train[views, pictures])
            images, mirrored = None, views % 2 == 1
        else:
            images, mirrored = random_views(self._frames(pictures), random)
            with torch.no_grad():
                features = self._encoder.run_blocks(images, 0, self.block)
        cells = functional.dropout(self._cells(features), self._stage.feature_dropout)
        return Batch(pictures, cells, images, mirrored)

    def validation(self, part: slice) -> torch.Tensor:
        """Return the cells (N, L, C) of a part of the validation pictures."""
        return self._cells(self._on_device(self._val[0, part]))

    def _frames(self, pictures: np.ndarray) -> torch.Tensor:
        if self._task.device == 'cpu':
            return torch.from_numpy(self._pictures[pictures])
        return self._on_gpu[torch.from_numpy(pictures).to(self._task.device)]

    def _on_device(self, values: np.ndarray) -> torch.Tensor:
        x = torch.from_numpy(np.array(values)).to(self._task.device).float()
        return x.contiguous(memory_format=torch.channels_last)

    def _cells(self, features: torch.Tensor) -> torch.Tensor:
        """Return the cells of features, through the blocks that are trained."""
        cells: torch.Tensor = self._encoder.run_blocks(features, self.block)
        return cells.flatten(2).transpose(1, 2)


class OfPictures:
    """An objective whose items are the training pictures, as often as their sources count."""

    _task: Task

    def count(self) -> int:
        """Return the number of pictures of an epoch."""
        return self._task.train.count(self._task.config.source_weights)

    def order(self, random: np.random.Generator) -> np.ndarray:
        """Return the pictures of an epoch."""
        return self._task.train.order(self._task.config.source_weights, random)
