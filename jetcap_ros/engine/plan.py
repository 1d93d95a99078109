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
What would happen if a model were loaded now: which stages fit the memory, and which do not.

Nothing is loaded for it. The needs are those that the loader asks for (`stages.py`), in its order.
"""

from dataclasses import dataclass, field
import importlib.util
import math
import os
from typing import Any

from .settings import CaptionerSettings
from .stages import kept_mb, need_mb, STAGES, stages_of, WORKER_KEPT_MB, WORKER_NEED_MB
from ..memory.memory_utils import available_memory, MB, memory_pressure, process_memory

# By the stage that imports them.
LIBRARIES = {'torch': 'torch', 'opencv': 'cv2', 'onnxruntime': 'onnxruntime'}


@dataclass
class Step:
    """A memory check on the way to a loaded model."""

    name: str
    need_mb: float
    required_mb: float  # the need, and what must stay free beside it
    available_mb: float  # what there will be before it

    @property
    def fits(self) -> bool:
        """Say whether it would pass."""
        return self.available_mb >= self.required_mb


@dataclass
class ModelPlan:
    """What loading one model would come to."""

    model: str
    checkpoint: str
    steps: list[Step] = field(default_factory=list)
    remaining_mb: float = 0.0  # available after it
    problem: str = ''  # why it would be refused
    advice: str = ''  # the smallest change that would let it in
    is_mistake: bool = False  # the problem is one to correct: no other model makes up for it

    @property
    def fits(self) -> bool:
        """Say whether it would be loaded."""
        return not self.problem


@dataclass
class Plan:
    """What configuring would come to: the model asked for, and its stand-in."""

    settings: CaptionerSettings
    available_mb: float
    limited_by: str  # 'machine', or the path of a cgroup
    pressure: float | None
    models: list[ModelPlan]

    @property
    def choice(self) -> ModelPlan | None:
        """Return the model that would be loaded."""
        return next((model for model in self.models if model.fits), None)

    @property
    def verdict(self) -> str:
        """Return 'full', 'simple' or 'refused'."""
        choice = self.choice
        if choice is None:
            return 'refused'
        return 'full' if choice.model == 'mobilenet' else choice.model

    @property
    def exit_code(self) -> int:
        """Return 0 if the model asked for fits, 3 if only its stand-in does, 4 if neither."""
        return 4 if self.choice is None else 0 if self.choice is self.models[0] else 3

    def sentence(self) -> str:
        """Return the plan in one line."""
        choice = self.choice
        verdict = (
            f'the {choice.model} model fits, {choice.remaining_mb:.0f} MB would remain'
            if choice else 'no model fits')
        refused = ''.join(f'; {m.model}: {m.problem}' for m in self.models if not m.fits)
        return f'{self.available_mb:.0f} MB available ({self.limited_by}): {verdict}{refused}'


def make_plan(settings: CaptionerSettings, own_mb: float = 0.0, read: bool = True) -> Plan:
    """
    Return what configuring with these settings would come to now.

    :param own_mb: memory of this process that will be free by then.
    :param read: also read what the checkpoints say of themselves, as loading would.
    """
    available, limited_by = available_memory()
    available += own_mb
    models = [_plan_model(settings.model, settings, available, read)]
    if not models[0].is_mistake:
        models += [
            _plan_model(model, settings, available, read)
            for model in settings.stand_ins(settings.model) if model != settings.model]
    return Plan(settings, available, limited_by, memory_pressure(), models)


def held_by_this_process_mb() -> float:
    """Return the memory that is free when this process has ended, in MB."""
    return process_memory().anonymous_mb


def _plan_model(
        model: str, settings: CaptionerSettings, available: float, read: bool) -> ModelPlan:
    if model == 'server':
        return _plan_server(settings, available)
    plan = ModelPlan(model, settings.checkpoint_for(model))
    reserve = settings.reserve_memory_mb
    try:
        size = os.path.getsize(plan.checkpoint) / MB
    except OSError as error:
        plan.problem, plan.is_mistake = f'{plan.checkpoint}: {error.strerror}', True
        return plan
    left = available
    if model == 'mobilenet':
        minimum = settings.min_available_memory_mb
        plan.steps.append(Step('min_available_memory_mb', minimum, minimum, left))
    plan.steps.append(Step('worker', WORKER_NEED_MB, WORKER_NEED_MB + reserve, left))
    left -= WORKER_KEPT_MB
    for stage in stages_of(model, settings.runtime):
        # Of the checkpoint nothing is known before its metadata are read.
        known = size if 'metadata' in [step.name for step in plan.steps] else 0
        need = need_mb(model, stage, known, settings.device)
        step = Step(stage, need, need + reserve, left)
        if stage == 'onnxruntime' and settings.runtime == 'auto' and not step.fits:
            continue  # OpenCV does without it
        plan.steps.append(step)
        left -= kept_mb(model, stage, size, settings.device)
    plan.remaining_mb = left
    refused = next((step for step in plan.steps if not step.fits), None)
    before = [step.name for step in plan.steps[:plan.steps.index(refused)]] if refused else None
    plan.problem = _other_problem(plan, settings, before, read)
    plan.is_mistake = plan.problem.startswith(plan.checkpoint)
    if refused and not plan.problem:
        _refuse(plan, refused, settings)
    return plan


def _plan_server(settings: CaptionerSettings, available: float) -> ModelPlan:
    from ..models.errors import CheckpointError
    from ..models.server.errors import ServerError, ServerOptionError
    from ..models.server.model import ServerCaptioningModel, ServerOptions
    plan = ModelPlan('server', settings.server_url or settings.server_command
                     or settings.checkpoint_for('server'))
    server = ServerCaptioningModel(
        ServerOptions(**settings.server_options), settings.checkpoint_for('server'),
        settings.checkpoint_sha256)
    try:
        server.read_files()
    except (CheckpointError, ServerError) as error:
        plan.problem = f'stage server_files: {error}'
        plan.is_mistake = isinstance(error, (CheckpointError, ServerOptionError))
        return plan
    reserve, left = settings.reserve_memory_mb, available
    plan.steps.append(Step('worker', WORKER_NEED_MB, WORKER_NEED_MB + reserve, left))
    left -= WORKER_KEPT_MB
    for stage in STAGES['server']:
        need = server.need_mb if stage == 'server_start' else need_mb('server', stage)
        plan.steps.append(Step(stage, need, need + reserve, left))
        left -= server.need_mb if stage == 'server_start' else 0
    plan.remaining_mb = left
    refused = next((step for step in plan.steps if not step.fits), None)
    if refused:
        _refuse(plan, refused, settings)
    return plan


def _refuse(plan: ModelPlan, step: Step, settings: CaptionerSettings) -> None:
    plan.problem = (
        f'stage {step.name}: {step.required_mb:.0f} MB needed with the reserve, '
        f'{step.available_mb:.0f} MB would be available')
    plan.advice = _advice(plan, settings)


def _other_problem(
        plan: ModelPlan, settings: CaptionerSettings, before: list[str] | None,
        read: bool) -> str:
    """Return what but memory would end the loading, at a stage in `before` (None: at any)."""
    def reached(stage: str) -> bool:
        return before is None or stage in before

    for stage, library in LIBRARIES.items():
        if stage in stages_of(plan.model, settings.runtime) and reached(stage) \
                and importlib.util.find_spec(library) is None:
            return f'stage {stage}: {library} is not installed'
    if read and reached('metadata'):
        from ..models.checkpoint import read_checkpoint
        from ..models.errors import CheckpointError
        try:
            checkpoint = read_checkpoint(plan.checkpoint, settings.sha256_for(plan.model))
        except CheckpointError as error:
            return str(error)
        if plan.model == 'simple' and not checkpoint.packed:
            return (
                f'{plan.checkpoint}: the simple model reads packed files only; make one with '
                '`jetcap pack`')
    return ''


def _advice(plan: ModelPlan, settings: CaptionerSettings) -> str:
    """Return the smallest change that lets a model in that memory keeps out."""
    stages = [step for step in plan.steps if step.name != 'min_available_memory_mb']
    short = max(step.required_mb - step.available_mb for step in plan.steps)
    advice = f'{math.ceil(short)} MB more must be available'
    short_of_stages = max(step.required_mb - step.available_mb for step in stages)
    available = plan.steps[0].available_mb
    if short_of_stages <= 0:
        return f'{advice}, or min_available_memory_mb be {math.floor(available)} at most'
    if short_of_stages <= settings.reserve_memory_mb:
        reserve = settings.reserve_memory_mb - short_of_stages
        advice += f', or reserve_memory_mb be {math.floor(reserve)} at most'
        if settings.min_available_memory_mb > available and plan.model == 'mobilenet':
            advice += f' and min_available_memory_mb {math.floor(available)}'
    return advice


def as_json(plan: Plan) -> dict[str, Any]:
    """Return a plan as docs/plan.schema.json describes it."""
    choice = plan.choice
    return {
        'verdict': plan.verdict, 'model': choice.model if choice else None,
        'wanted': plan.settings.model, 'fallback': plan.settings.fallback,
        'available_mb': round(plan.available_mb, 1), 'limited_by': plan.limited_by,
        'pressure_percent': plan.pressure, 'reserve_mb': plan.settings.reserve_memory_mb,
        'models': [{
            'model': model.model, 'checkpoint': model.checkpoint, 'fits': model.fits,
            'remaining_mb': round(model.remaining_mb, 1) if model.fits else None,
            'problem': model.problem, 'advice': model.advice,
            'stages': [{
                'name': step.name, 'need_mb': round(step.need_mb, 1),
                'required_mb': round(step.required_mb, 1),
                'available_mb': round(step.available_mb, 1), 'fits': step.fits}
                for step in model.steps]} for model in plan.models]}
