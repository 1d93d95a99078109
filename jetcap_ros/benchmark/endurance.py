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

"""Whether anything grows or stays behind over transitions, sleeps, frames and a long time."""

from collections.abc import Callable
import time
from typing import Any

import numpy as np
import psutil

from .camera import make_image
from .idle import fall_asleep
from .latency import sustained
from .node_under_test import NodeUnderTest
from .plan import Plan
from .report import Table

FRAME = (120, 160)  # small, so that the model is what takes the time
LOOKS = 20
SETTLE = 10  # cycles and hundreds of frames before the first look


def measure(plan: Plan) -> dict[str, Any]:
    """Return what grew over the cycles of transitions, sleeps, frames, and under a camera."""
    cycles, sleeps, frames = (5, 5, 100) if plan.quick else (200, 500, 20_000)
    return {
        f'{cycles} cycles, simple model': _cycles(plan, cycles),
        f'{sleeps} sleeps, simple model': _sleeps(plan, sleeps),
        f'{frames} frames, full model': _frames(plan, frames),
        'camera': {f'{plan.sustained_s:.0f} s, full model': _camera(plan)}}


def _cycles(plan: Plan, count: int) -> dict[str, float]:
    message = make_image(np.zeros((*FRAME, 3), np.uint8))
    with NodeUnderTest({'model': 'simple', **plan.parameters}) as node:
        def cycle() -> None:
            node.start()
            if node.caption(message, every=0.1) is None:
                raise RuntimeError(f'no caption: {node.summary}')
            for transition in ('deactivate', 'cleanup'):
                if not node.change(transition, 20):
                    raise RuntimeError(f'{transition} failed')
            node.drain()

        for _ in range(min(SETTLE, count)):
            cycle()
        before = _state(node)
        started = time.perf_counter()
        for _ in range(count):
            cycle()
        return {'seconds': time.perf_counter() - started, **_growth(before, _state(node))}


def _sleeps(plan: Plan, count: int) -> dict[str, float]:
    message = make_image(np.zeros((*FRAME, 3), np.uint8))
    with NodeUnderTest({
            'model': 'simple', 'checkpoint': plan.checkpoint, 'sleep_after_s': 0.05}) as node:
        node.start()

        def sleep(times: int) -> None:
            for _ in range(times):
                if node.caption(message, timeout=60, every=5.0) is None:
                    raise RuntimeError(f'no caption: {node.summary}')
                fall_asleep(node)

        sleep(min(SETTLE, count))
        before = _state(node)
        started = time.perf_counter()
        sleep(count)
        return {'seconds': time.perf_counter() - started, **_growth(before, _state(node))}


def _full_node(plan: Plan) -> NodeUnderTest:
    return NodeUnderTest({
        'model': 'mobilenet', **plan.parameters, 'fallback': 'none',
        'min_available_memory_mb': 0.0})


def _frames(plan: Plan, count: int) -> dict[str, float]:
    generator = np.random.default_rng(0)
    messages = [
        make_image(generator.integers(0, 255, (*FRAME, 3), dtype=np.uint8)) for _ in range(50)]
    with _full_node(plan) as node:
        node.start()

        def caption(number: int = 1) -> None:
            for i in range(number):
                if node.caption(messages[i % len(messages)]) is None:
                    raise RuntimeError(f'no caption: {node.summary}')

        caption(min(100 * SETTLE, count))
        before = _state(node, caption)
        started = time.perf_counter()
        caption(count)
        seconds = time.perf_counter() - started
        return {'seconds': seconds, **_growth(before, _state(node, caption))}


def _camera(plan: Plan) -> dict[str, Any]:
    with _full_node(plan) as node:
        node.start()
        return sustained(node, plan.sustained_s)


def _state(node: NodeUnderTest, work: Callable[[], None] = lambda: None) -> dict[str, float]:
    """Return what is held; of memory the least of several looks, as buffers come and go."""
    time.sleep(1)
    pids = node.pids()
    found: dict[str, float] = {'processes': len(pids)}
    for name, pid in zip(('node', 'worker'), pids):
        process = psutil.Process(pid)
        resident = []
        for _ in range(LOOKS):
            work()
            resident.append(process.memory_info().rss / (1 << 20))
        found[f'{name} MB'] = min(resident)
        found[f'{name} threads'] = process.num_threads()
        found[f'{name} file descriptors'] = process.num_fds()
        found[f'{name} shared memory'] = sum(
            mapping.path.startswith('/dev/shm/') for mapping in process.memory_maps())
    return found


def _growth(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    return {name: after.get(name, 0) - value for name, value in before.items()}


def tables(result: dict[str, Any]) -> list[Table]:
    """Return what grew as a table."""
    growths = {over: growth for over, growth in result.items() if over != 'camera'}
    names = list(dict.fromkeys(name for growth in growths.values() for name in growth))
    return [
        Table('Growth over many cycles and many frames', ['over'] + names,
              [[over] + [growth.get(name) for name in names]
               for over, growth in growths.items()]),
        Table('1280x720 at 30 Hz: age of the captioned frames (ms, median)',
              ['over', 'captions', 'first third', 'last third', 'memory growth (MB)'],
              [[over, camera['captions'], camera['first_third_ms'], camera['last_third_ms'],
                camera['memory_growth_mb']] for over, camera in result['camera'].items()])]
