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

"""How latency and memory grow with image size, caption length, beams, vocabulary and cameras."""

import json
import statistics
import time
from typing import Any

from .latency import cameras, one_at_a_time, VGA
from .node_under_test import NodeUnderTest
from .plan import Plan
from .processes import run_child, Watch
from .report import Table
from ..engine.worker_process import worker_environment

SIZES = {'640x480': (480, 640), '1280x720': (720, 1280), '1920x1080': (1080, 1920),
         '3840x2160': (2160, 3840)}
LENGTHS = (5, 10, 20, 40)
BEAMS = (1, 2, 3, 5, 8)
VOCABULARIES = (1000, 4000, 16000, 50000)
CAMERAS = (1, 2, 4, 8)
CAMERA_HZ = 10


def measure(plan: Plan) -> dict[str, Any]:
    """Return the figures of both models."""
    return {model: _measure_model(plan, model) for model in ('mobilenet', 'simple')}


def _measure_model(plan: Plan, model: str) -> dict[str, Any]:
    ends = (lambda values: [values[0], values[-1]]) if plan.quick else list
    return {
        'image size': {
            name: _image_size(plan, model, SIZES[name]) for name in ends(list(SIZES))},
        'caption length': {
            length: _decoding(plan, model, plan.small_packed, length) for length in ends(LENGTHS)},
        'beam size': {
            beams: _decoding(plan, model, plan.small_packed, 20, beams) for beams in ends(BEAMS)},
        'vocabulary': {
            words: _vocabulary(plan, model, words) for words in ends(VOCABULARIES)},
        'cameras': {count: _cameras(plan, model, count) for count in ends(CAMERAS)}}


def _node(plan: Plan, model: str, count: int = 1) -> NodeUnderTest:
    return NodeUnderTest(
        {'model': model, **plan.parameters, 'min_available_memory_mb': 0.0},
        cameras=count)


def _image_size(plan: Plan, model: str, size: tuple[int, int]) -> dict[str, float]:
    with _node(plan, model) as node:
        node.start()
        with Watch(node.pids) as watch:
            one_at_a_time(node, size, 5)
        ages = one_at_a_time(node, size, max(5, plan.captions // 4))
        return {'ms': statistics.median(ages), 'mb': watch.peak_mb}


def _decoding(
        plan: Plan, model: str, checkpoint: str, length: int, beams: int = 1,
        step: str = '') -> dict[str, float]:
    result = run_child([
        '-m', 'jetcap_ros.benchmark.decoding', model, checkpoint, '--length', str(length),
        '--runtime', plan.runtime,
        '--beams', *([str(beams)] if beams > 1 else []),
        '--repeats', '5' if plan.quick else '30'], environment=worker_environment(0))
    timed = result[step or ('greedy' if beams == 1 else f'beam {beams}')]
    return {'ms': timed['p50'], 'mb': result['peak_rss_mb']}


def _vocabulary(plan: Plan, model: str, words: int) -> dict[str, float]:
    paths = run_child([
        '-m', 'jetcap_ros.benchmark.checkpoints', str(plan.folder),
        json.dumps({'vocab_size': words, 'detector': True})])
    return _decoding(plan, model, paths['packed'], 20, step='caption')


def _cameras(plan: Plan, model: str, count: int) -> dict[str, float]:
    with _node(plan, model, count) as node:
        node.start()
        with cameras(node, VGA, CAMERA_HZ):
            node.captions.get(timeout=20)
            time.sleep(1)
            node.drain()
            with Watch(node.pids) as watch:
                time.sleep(plan.seconds / 2)
                received = node.drain()
    topics = [caption.info['topic'] for caption in received]
    return {
        'ms': statistics.median(caption.age_s * 1e3 for caption in received),
        'mb': watch.peak_mb, 'captions_per_s': len(received) / (plan.seconds / 2),
        'least_served_per_s': min(topics.count(topic) for topic in node.topics)
        / (plan.seconds / 2)}


def tables(result: dict[str, Any]) -> list[Table]:
    """Return the figures as one table a quantity."""
    found = []
    for quantity in next(iter(result.values())):
        rows = []
        for model, quantities in result.items():
            for value, figures in quantities[quantity].items():
                rows.append([model, value, *figures.values()])
        columns = ['model', quantity, 'ms', 'peak MB']
        if quantity == 'cameras':
            columns += ['captions/s', 'least served, /s']
        found.append(Table(f'Growth with {quantity}', columns, rows))
    return found
