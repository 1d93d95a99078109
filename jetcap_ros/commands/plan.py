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
Say which model would fit the memory there is now, without loading anything.

Exit code: 0 the model asked for fits, 3 only its fallback does, 4 neither. What the command itself
holds counts as free; the node's own memory (it is smaller than 100 MB) does not, so ask while the
node runs, unconfigured, for the very answer that configure will give.
"""

import argparse
import json
from typing import Any, TYPE_CHECKING

from .caption import add_server_arguments, server_settings

if TYPE_CHECKING:
    from ..engine.plan import ModelPlan, Plan
    from ..engine.settings import CaptionerSettings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        '--model', choices=('server', 'mobilenet', 'simple'), default='mobilenet',
        help='default: %(default)s')
    parser.add_argument(
        '--fallback', choices=('mobilenet', 'simple', 'none'), default='simple',
        help='default: %(default)s')
    parser.add_argument(
        '--checkpoint', metavar='FILE', default='', help='default: the one that is shipped')
    parser.add_argument(
        '--device', choices=('cpu', 'cuda'), default='cpu', help='default: %(default)s')
    parser.add_argument(
        '--runtime', choices=('auto', 'opencv', 'onnxruntime'), default='auto',
        help='what the simple model runs in (default: %(default)s)')
    parser.add_argument(
        '--reserve', type=float, default=150, metavar='MB',
        help='as the parameter reserve_memory_mb (default: %(default)s)')
    parser.add_argument(
        '--min-available', type=float, default=800, metavar='MB',
        help='as the parameter min_available_memory_mb (default: %(default)s)')
    parser.add_argument('--json', action='store_true', help='print JSON (docs/plan.schema.json)')
    parser.add_argument(
        '--measure', action='store_true',
        help='load the model once, in a process of its own; show what each stage took, and '
        'remember where it was more than assumed')
    add_server_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Print the plan, or what was measured."""
    from ..engine.plan import as_json, held_by_this_process_mb, make_plan
    from ..engine.settings import CaptionerSettings
    from ..errors import UserError
    settings = CaptionerSettings(
        model=args.model, fallback=args.fallback, checkpoint=args.checkpoint, device=args.device,
        runtime=args.runtime,
        reserve_memory_mb=args.reserve, min_available_memory_mb=args.min_available,
        **server_settings(args))
    if args.measure and args.model == 'server':
        raise UserError('--measure: what a server needs is read from its files, and not remembered')
    if args.measure:
        return _measure(settings, args.json)
    plan = make_plan(settings, held_by_this_process_mb())
    if args.json:
        print(json.dumps(as_json(plan), indent=2))
    else:
        _print(plan)
    return plan.exit_code


def _print(plan: 'Plan') -> None:
    pressure = '' if plan.pressure is None else (
        f'; all waited for memory {plan.pressure:.0f}% of the last 10 s')
    print(f'{plan.available_mb:.0f} MB available, limited by {plan.limited_by}{pressure}')
    for model in plan.models:
        _print_model(model)
    choice = plan.choice
    print()
    if choice is None:
        print('verdict: refused')
    else:
        print(f'verdict: {plan.verdict}, {choice.remaining_mb:.0f} MB would remain')


def _print_model(model: 'ModelPlan') -> None:
    print(f'\n{model.model}  {model.checkpoint}')
    if model.steps:
        print(f'  {"stage":<24}{"need":>8}{"with reserve":>14}{"available":>11}   MB')
    for step in model.steps:
        print(f'  {step.name:<24}{step.need_mb:>8.0f}{step.required_mb:>14.0f}'
              f'{step.available_mb:>11.0f}   {"" if step.fits else "too little"}'.rstrip())
    if model.problem:
        print(f'  refused: {model.problem}')
    if model.advice:
        print(f'  {model.advice}')


def _measure(settings: 'CaptionerSettings', as_json: bool) -> int:
    import subprocess
    import sys

    from ..engine.measure import exceeding
    from ..engine.needs import remember
    from ..engine.worker_process import worker_environment
    from ..errors import UserError
    result = subprocess.run(
        [sys.executable, '-m', 'jetcap_ros.engine.measure', settings.model,
         settings.checkpoint_for(settings.model), settings.runtime,
         str(settings.reserve_memory_mb)],
        env=worker_environment(0), capture_output=True, text=True)
    if result.returncode:
        reason = (result.stderr.strip().splitlines() or [f'exit code {result.returncode}'])[-1]
        raise UserError(f'the {settings.model} model could not be loaded: {reason}')
    stages: list[dict[str, Any]] = json.loads(result.stdout)
    more = exceeding(stages)
    if as_json:
        print(json.dumps({'model': settings.model, 'stages': stages, 'remembered': more}))
    else:
        print(f'{"stage":<16}{"assumed":>9}{"measured":>10}   MB')
        for stage in stages:
            print(f'{stage["stage"]:<16}{stage["assumed_mb"]:>9.0f}{stage["measured_mb"]:>10.1f}'
                  f'   {"remembered" if stage["stage"] in more else ""}'.rstrip())
    if more:
        path = remember(settings.model, more)
        print(f'jetcap plan: {path} keeps what took more than assumed', file=sys.stderr)
    return 0
