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

"""Memory of the node and its worker, of the flow it replaces, and of the floor under both."""

import statistics
from typing import Any

import numpy as np

from .node_under_test import NodeUnderTest, prepare_network, START_S
from .plan import Plan
from .processes import run_child, shares_mb, Watch
from .report import Table

IMPORT_TORCH = """
import json, time
started = time.perf_counter()
import torch
seconds = time.perf_counter() - started
from jetcap_ros.benchmark.processes import peak_rss_mb
print(json.dumps({'seconds': seconds, 'peak_rss_mb': peak_rss_mb()}))
"""
BARE_NODE = """
import json, time
started = time.perf_counter()
import rclpy
from rclpy.lifecycle import LifecycleNode
rclpy.init()
node = LifecycleNode('bare')
rclpy.spin_once(node, timeout_sec=0.1)
seconds = time.perf_counter() - started
from jetcap_ros.benchmark.processes import peak_rss_mb
print(json.dumps({'seconds': seconds, 'peak_rss_mb': peak_rss_mb()}))
"""


def measure(plan: Plan) -> dict[str, Any]:
    """Return the figures of each flow, in MB and seconds."""
    torch = [run_child(['-c', IMPORT_TORCH]) for _ in range(plan.rounds)]
    result: dict[str, Any] = {
        'import torch': {
            name: statistics.median(run[name] for run in torch) for name in torch[0]},
        'bare rclpy node': run_child(
            ['-c', BARE_NODE], environment=prepare_network()),
        'naive flow': run_child(['-m', 'jetcap_ros.benchmark.naive_flow', plan.small_plain]),
    }
    for model, parameters in plan.models.items():
        result[model] = measure_node(plan, parameters)
        if model != 'server':
            result[f'{model}, MobileNetV3-Small'] = measure_node(
                plan, {**parameters, 'checkpoint': plan.small_packed})
    return result


def measure_node(plan: Plan, parameters: dict[str, Any]) -> dict[str, Any]:
    """Return what node and worker hold while they configure and caption."""
    picture = np.random.default_rng(0).integers(0, 255, (480, 640, 3), dtype=np.uint8)
    with NodeUnderTest(parameters) as node:
        node.wait_for_start(START_S)
        unconfigured = sum(shares_mb(node.pids()).values())
        with Watch(node.pids) as watch:
            node.start()
            for _ in range(plan.captions // 4):
                node.caption(picture)
        shares = shares_mb(node.pids())
        worker = sum(mb for pid, mb in shares.items() if pid != node.process.pid)
        peaks = watch.peak_rss_mb
        node.wait_for(lambda: any(key.startswith('stage ') for key in node.diagnostics), 5)
        return {
            'model': node.diagnostics.get('model'), 'unconfigured_mb': unconfigured,
            'peak_mb': watch.peak_mb, 'settled_mb': sum(shares.values()),
            'node_mb': shares[node.process.pid], 'worker_mb': worker,
            'node_peak_rss_mb': peaks[node.process.pid],
            'worker_peak_rss_mb': max(
                mb for pid, mb in peaks.items() if pid != node.process.pid),
            'stages': {
                key[len('stage '):]: value for key, value in node.diagnostics.items()
                if key.startswith('stage ')}}


def tables(result: dict[str, Any]) -> list[Table]:
    """Return the figures as tables."""
    flows = []
    for name in ('import torch', 'bare rclpy node', 'naive flow'):
        flow = result[name]
        flows.append([
            name, flow['peak_rss_mb'], None, None, None,
            flow.get('seconds', flow.get('ready_s'))])
    stages = []
    for name, flow in result.items():
        if 'settled_mb' not in flow:
            continue
        flows.append([
            name, flow['peak_mb'], flow['settled_mb'], flow['node_mb'], flow['worker_mb'], None])
        stages += [[name, stage, text] for stage, text in flow['stages'].items()]
    return [
        Table('Memory (MB; pages that node and worker share are counted once)',
              ['flow', 'peak', 'settled', 'of it node', 'of it worker', 'seconds'], flows),
        Table('Worker after each stage', ['flow', 'stage', 'time and memory'], stages)]
