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

"""What doing nothing costs: asleep, unheard, before a still scene; and how soon work begins."""

import statistics
import time
from typing import Any

import numpy as np
from std_msgs.msg import String

from .camera import make_image
from .latency import cameras, cpu_percent, HD, VGA
from .memory import IMPORT_TORCH
from .node_under_test import NodeUnderTest, START_S
from .plan import Plan
from .processes import run_child, shares_mb
from .report import Table
from ..images.still import STILL_THRESHOLD

SLEEP_AFTER_S = 0.5
CAMERA_HZ, RATE_HZ = 30, 2.0
LOOKS = 10
# Code that was given up and is used again has come back; the last frame is too old for anybody.
SETTLE_S = 7.0
UNHEARD_S = 6.0  # longer than what nobody wants stays subscribed


def measure(plan: Plan) -> dict[str, Any]:
    """Return the figures, in MB, seconds and percent of a core."""
    torch = statistics.median(
        run_child(['-c', IMPORT_TORCH])['seconds'] for _ in range(plan.rounds))
    return {
        'import_torch_s': torch,
        'asleep': {model: _asleep(plan, model) for model in ('mobilenet', 'simple')},
        'unheard': _unheard(plan),
        'still': {
            'captioned anew': _still_cpu(plan, 0.0),
            'captioned once': _still_cpu(plan, STILL_THRESHOLD)}}


def _asleep(plan: Plan, model: str) -> dict[str, float]:
    message = make_image(np.zeros((*VGA, 3), np.uint8))
    wakes = []
    with NodeUnderTest({
            'model': model, 'checkpoint': plan.checkpoint, 'fallback': 'none',
            'min_available_memory_mb': 0.0, 'sleep_after_s': SLEEP_AFTER_S}) as node:
        node.wait_for_start(START_S)
        time.sleep(SETTLE_S)
        unconfigured = _least_mb(node)
        node.start()
        for _ in range(plan.rounds + 1):
            started = time.perf_counter()
            if node.caption(message, timeout=60, every=5.0) is None:
                raise RuntimeError(f'no caption: {node.summary}')
            wakes.append(time.perf_counter() - started)
            fall_asleep(node)
        time.sleep(SETTLE_S)
        return {
            'wake_s': statistics.median(wakes[1:]), 'unconfigured_mb': unconfigured,
            'asleep_mb': _least_mb(node), 'asleep_cpu': cpu_percent(node, plan.seconds)}


def fall_asleep(node: NodeUnderTest) -> None:
    """Wait until the model's memory was given back."""
    if not node.wait_for(lambda: not node.workers(), START_S):
        raise RuntimeError(f'it does not fall asleep: {node.summary}')
    node.drain()


def _least_mb(node: NodeUnderTest) -> float:
    """Return the least of several looks, as buffers come and go."""
    found = []
    for _ in range(LOOKS):
        time.sleep(0.2)
        found.append(sum(shares_mb(node.pids()).values()))
    return min(found)


def _unheard(plan: Plan) -> dict[str, float]:
    """Return what a node takes that nobody listens to, and how soon somebody new hears it."""
    waits = []
    with NodeUnderTest({'model': 'simple', 'checkpoint': plan.checkpoint}, listens=False) as node:
        node.start()
        with cameras(node, HD, CAMERA_HZ):
            for _ in range(plan.rounds):
                time.sleep(UNHEARD_S)
                heard: list[float] = []
                started = time.perf_counter()
                echo = node.node.create_subscription(
                    String, f'{node.name}/caption', lambda _: heard.append(time.perf_counter()),
                    10)
                if not node.wait_for(lambda: heard, 20):
                    raise RuntimeError(f'no caption: {node.summary}')
                waits.append(heard[0] - started)
                node.node.destroy_subscription(echo)
            time.sleep(UNHEARD_S)
            cpu = cpu_percent(node, plan.seconds)
    return {'first_caption_s': statistics.median(waits), 'cpu': cpu}


def _still_cpu(plan: Plan, threshold: float) -> float:
    with NodeUnderTest({
            'model': 'simple', 'checkpoint': plan.checkpoint, 'max_rate_hz': RATE_HZ,
            'still_threshold': threshold}) as node:
        node.start()
        with cameras(node, HD, CAMERA_HZ):
            node.captions.get(timeout=20)
            time.sleep(2)
            return cpu_percent(node, plan.seconds)


def tables(result: dict[str, Any]) -> list[Table]:
    """Return the figures as tables."""
    unheard = result['unheard']
    return [
        Table('Asleep (the node alone: its worker has ended)',
              ['model', 'unconfigured (MB)', 'asleep (MB)', 'CPU %', 'wake to caption (s)',
               'over a bare import torch (s)'],
              [[model, run['unconfigured_mb'], run['asleep_mb'], run['asleep_cpu'], run['wake_s'],
                run['wake_s'] - result['import_torch_s'] if model == 'mobilenet' else None]
               for model, run in result['asleep'].items()]),
        Table('1280x720 at 30 Hz, simple model, at most 2 captions a second (node and worker)',
              ['what', 'CPU %', 'first caption for a new listener (s)'],
              [['nobody listens', unheard['cpu'], unheard['first_caption_s']],
               *([f'a still scene, {how}', cpu, None] for how, cpu in result['still'].items())])]
