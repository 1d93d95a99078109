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

"""The folder of a run: the checkpoint of each stage, and the state to go on from."""

import os
from typing import Any

import torch

from .checkpoint import average_checkpoints, save_atomically
from .config import TrainingConfig
from ..errors import UserError
from ..models.vocabulary import Vocabulary


class RunFolder:
    """
    Knows where a run keeps its files.

    :param out: the folder; a run found there is taken up.
    """

    def __init__(
            self, out: str, config: TrainingConfig, vocabulary: Vocabulary, device: str,
            save_every_s: float) -> None:
        self.out, self.save_every_s = out, save_every_s
        self._config, self._vocabulary, self._device = config, vocabulary, device
        self._state_path = os.path.join(out, 'state.pth')

    def path(self, name: str) -> str:
        """Return the path of a file in it."""
        return os.path.join(self.out, name)

    def stage_path(self, index: int) -> str:
        """Return the path of the checkpoint that a stage leaves; -1: of what came in."""
        name = 'initial' if index < 0 else self._config.stages[index].name.replace(' ', '_')
        return self.path(f'{index + 1}_{name}.pth')

    def run_path(self, index: int, run: int) -> str:
        """Return the path of the best checkpoint of a stage's run."""
        path = self.stage_path(index)
        return path.replace('.pth', f'.run{run + 1}.pth') if self._averages(index) else path

    def _averages(self, index: int) -> bool:
        stage = self._config.stages[index]
        return stage.runs > 1 or stage.pull_back > 0

    def average_runs(self, index: int) -> None:
        """Write the checkpoint of a stage from those of its runs, and what came before."""
        stage = self._config.stages[index]
        if self._averages(index):
            paths = [self.run_path(index, run) for run in range(stage.runs)]
            parts = [(1 - stage.pull_back) / stage.runs] * stage.runs
            if stage.pull_back:
                paths.append(self.stage_path(index - 1))
                parts.append(stage.pull_back)
            average_checkpoints(paths, parts, self.stage_path(index))

    def load_state(self) -> dict[str, Any] | None:
        """Return what `save_state` kept, None if the run is new; UserError if it is another's."""
        if not os.path.exists(self._state_path):
            return None
        state: dict[str, Any] = torch.load(
            self._state_path, map_location=self._device, weights_only=True)
        if state['words'] != self._vocabulary.words:
            raise UserError(
                f'{self.out} holds a run on other captions: choose another --out, or delete it')
        return state

    def save_state(self, state: dict[str, Any]) -> None:
        """Write what a later process needs to go on from here."""
        save_atomically({**state, 'words': self._vocabulary.words}, self._state_path)
