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

import os
import shutil

from .checkpoint import checkpoint_contents, save_atomically
from .run_folder import RunFolder
from .stage_run import StageRun
from .task import Task
from ..models.mobilenet import MobileNetCaptioningModel


def run_stages(task: Task, model: MobileNetCaptioningModel, folder: RunFolder) -> str:
    """
    Run what is left of the stages and return the path of the trained checkpoint.

    :param model: to start from, its encoder folded; its decoder fits the task's vocabulary.
    """
    model = model.to(task.device)
    stages = task.config.stages
    state = folder.load_state()
    if not state:
        save_atomically(checkpoint_contents(model, task.vocabulary), folder.stage_path(-1))
    for index in range(state['stage'] if state else 0, len(stages)):
        for run in range(state['run'] if state else 0, stages[index].runs):
            StageRun(task, model, folder, index, run, state).run()
            state = None
        folder.average_runs(index)
    final = folder.path('model.pth')
    shutil.copyfile(folder.stage_path(len(stages) - 1), final + '.new')
    os.replace(final + '.new', final)
    return final
