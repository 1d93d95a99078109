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

"""Time: until ready, of a caption, at saturation, under a camera at 30 Hz, and at rest."""

from collections.abc import Iterator
from contextlib import contextmanager
import json
import statistics
import subprocess
import sys
import time
from typing import Any

import numpy as np

from . import libraries
from .camera import make_image
from .node_under_test import NodeUnderTest, prepare_network, START_S
from .plan import Plan
from .processes import cpu_seconds, end_group, run_child, shares_mb
from .report import percentiles, Table
from ..engine.worker_process import worker_environment

VGA, HD = (480, 640), (720, 1280)
PAUSE_S = 0.05  # between captions that are made one at a time


@contextmanager
def cameras(node: NodeUnderTest, size: tuple[int, int], rate: float) -> Iterator[None]:
    """Publish on all topics of a node from another process."""
    prepare_network()
    child = subprocess.Popen(
        [sys.executable, '-m', 'jetcap_ros.benchmark.camera', *node.topics, '--height',
         str(size[0]), '--width', str(size[1]), '--rate', str(rate)],
        stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        yield
    finally:
        end_group(child)


def measure(plan: Plan) -> dict[str, Any]:
    """Return the figures of the models, in ms, seconds and percent of a core."""
    return {
        'decoding': measure_decoding(plan),
        'libraries': libraries.measure(
            [sys.executable], plan.checkpoint, plan.rounds, 5 if plan.quick else 40),
        'startup': {
            model: measure_startup(plan, parameters) for model, parameters in plan.models.items()},
        'running': {
            model: measure_running(plan, parameters) for model, parameters in plan.models.items()}}


def measure_decoding(plan: Plan) -> dict[str, Any]:
    """Return ms for 20 words on the MobileNetV3-Small checkpoint, and whether words agree."""
    runs = {
        'eager loop': ['eager', plan.small_plain],
        'mobilenet': ['mobilenet', plan.small_packed],
        'simple': ['simple', plan.small_packed],
        'mobilenet, float32': ['mobilenet', plan.small_packed_float, '--quantize', 'none'],
        'simple, float32': ['simple', plan.small_packed_float, '--quantize', 'none']}
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in runs}
    for _ in range(plan.rounds):
        for name, arguments in runs.items():  # side by side, so that a busy moment hits all
            rounds[name].append(run_child([
                '-m', 'jetcap_ros.benchmark.decoding', *arguments,
                '--runtime', plan.runtime,
                '--repeats', '5' if plan.quick else '40'],
                environment=None if name == 'eager loop' else worker_environment(0)))
    indices = {name: results[0]['indices'] for name, results in rounds.items()}
    return {
        name: {
            'same_words_as_eager': indices[name] == indices['eager loop'],
            **{step: statistics.median(result[step]['p50'] for result in results)
               for step in results[0] if isinstance(results[0][step], dict)}}
        for name, results in rounds.items()}


def measure_startup(plan: Plan, parameters: dict[str, Any]) -> dict[str, float]:
    """Return the seconds from the configure request to ready, and to the first caption."""
    ready, first = [], []
    message = make_image(np.zeros((*VGA, 3), np.uint8))
    for _ in range(plan.rounds):
        with NodeUnderTest({**parameters, 'fallback': 'none'}) as node:
            node.wait_for_start(START_S)
            started = time.perf_counter()
            node.configure()
            ready.append(time.perf_counter() - started)
            node.activate()
            if node.caption(message, every=0.02) is None:
                raise RuntimeError(f'no caption: {node.output()}')
            first.append(time.perf_counter() - started)
    return {'configure_s': statistics.median(ready), 'first_caption_s': statistics.median(first)}


def measure_running(plan: Plan, parameters: dict[str, Any]) -> dict[str, Any]:
    """Return latencies, rates and CPU time of an active node."""
    result: dict[str, Any] = {}
    engine = run_child([
        '-m', 'jetcap_ros.benchmark.engine', json.dumps(parameters), '--captions',
        str(plan.captions), '--pause', str(PAUSE_S)],
        timeout=600 + plan.captions * float(parameters.get('inference_timeout_s', 0)))
    result['worker_ms'] = percentiles(engine['worker_ms'])
    result['engine_ms'] = percentiles(engine['total_ms'])
    with NodeUnderTest(parameters) as node:
        node.start()
        result['vga_ms'] = percentiles(one_at_a_time(node, VGA, plan.captions))
        time.sleep(1.5)  # until the diagnostics know of them
        # In the same process: what a model takes differs by milliseconds from one to another.
        result['vga_model_ms'] = float(node.diagnostics['of it the model, median (ms)'])
        result['hd_ms'] = percentiles(one_at_a_time(node, HD, plan.captions))
        with cameras(node, VGA, 60):
            result['captions_per_s'] = rate(node, plan.seconds)
        result['sustained'] = sustained(node, plan.sustained_s)
    with NodeUnderTest({**parameters, 'max_rate_hz': 1.0}) as node:
        node.wait_for_start(START_S)
        node.configure()
        result['cpu_inactive'] = cpu_percent(node, plan.seconds)
        node.activate()
        with cameras(node, VGA, 10):
            time.sleep(2)
            result['cpu_1_hz'] = cpu_percent(node, plan.seconds)
    return result


def one_at_a_time(node: NodeUnderTest, size: tuple[int, int], count: int) -> list[float]:
    """Return the ms from camera stamp to received caption, of frames sent one by one."""
    message = make_image(
        np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8))
    ages: list[float] = []
    first = node.caption(message, every=0.2)
    if first is not None:  # one more may be on its way, of a frame that was sent again
        time.sleep(2 * first.age_s)
    while len(ages) < count:
        time.sleep(PAUSE_S)
        node.drain()
        received = node.caption(message)
        if received is None:
            raise RuntimeError(f'no caption came: {node.summary}')
        ages.append(received.age_s * 1e3)
    return ages


def rate(node: NodeUnderTest, seconds: float) -> float:
    """Return captions per second while frames come faster than they can be captioned."""
    node.captions.get(timeout=node.patience_s)
    time.sleep(0.5)
    node.drain()
    started = time.perf_counter()
    time.sleep(seconds)
    return len(node.drain()) / (time.perf_counter() - started)


def sustained(node: NodeUnderTest, seconds: float) -> dict[str, Any]:
    """Return the ages of captioned frames and the memory, early and late under 720p at 30 Hz."""
    with cameras(node, HD, 30):
        node.captions.get(timeout=node.patience_s)
        time.sleep(1)
        node.drain()
        parts, memory = [], []
        for _ in range(3):
            memory.append(sum(shares_mb(node.pids()).values()))
            time.sleep(seconds / 3)
            # A model may take longer than that for one.
            received = node.drain() or [node.captions.get(timeout=node.patience_s)]
            parts.append([caption.age_s * 1e3 for caption in received])
        memory.append(sum(shares_mb(node.pids()).values()))
    return {
        'seconds': seconds, 'captions': sum(map(len, parts)), 'age_ms': percentiles(sum(parts, [])),
        'first_third_ms': statistics.median(parts[0]),
        'last_third_ms': statistics.median(parts[2]),
        'memory_growth_mb': memory[-1] - memory[0]}


def cpu_percent(node: NodeUnderTest, seconds: float) -> float:
    """Return the percent of one core that node and worker use."""
    pids = node.pids()
    before, started = cpu_seconds(pids), time.perf_counter()
    time.sleep(seconds)
    return (cpu_seconds(pids) - before) / (time.perf_counter() - started) * 100


def tables(result: dict[str, Any]) -> list[Table]:
    """Return the figures as tables."""
    decoding = [
        [name, run['encoder'], run['greedy'],
         (run['greedy'] - run['encoder']) / 20, run.get('beam 3'),
         'yes' if run['same_words_as_eager'] else 'no']
        for name, run in result['decoding'].items()]
    startup = [
        [name, run['configure_s'], run['first_caption_s']]
        for name, run in result['startup'].items()]
    running = []
    for name, run in result['running'].items():
        for label, key in (
                ('in the worker', 'worker_ms'), ('engine, without ROS', 'engine_ms'),
                ('over DDS, 640x480', 'vga_ms'), ('over DDS, 1280x720', 'hd_ms')):
            running.append([name, label, *run[key].values()])
        running.append([name, 'under 1280x720 at 30 Hz', *run['sustained']['age_ms'].values()])
    load = [
        [name, run['captions_per_s'], run['cpu_1_hz'], run['cpu_inactive'],
         run['sustained']['first_third_ms'], run['sustained']['last_third_ms'],
         run['sustained']['memory_growth_mb'], run['sustained']['seconds']]
        for name, run in result['running'].items()]
    return [
        Table('20 words, MobileNetV3-Small, vocabulary of 4000 (ms, median)',
              ['model', 'encoder', 'greedy', 'a word', 'beam 3', "eager loop's words"], decoding),
        *libraries.tables(result['libraries']),
        Table('Until ready (s, median)', ['model', 'configure', 'first caption'], startup),
        Table('A caption (ms)', ['model', 'what', 'p50', 'p95', 'p99'], running),
        Table('Load (sustained: 1280x720 at 30 Hz, median age of the captioned frames)',
              ['model', 'captions/s', 'CPU % at 1/s', 'CPU % inactive', 'age early (ms)',
               'age late (ms)', 'growth (MB)', 'over (s)'], load)]
