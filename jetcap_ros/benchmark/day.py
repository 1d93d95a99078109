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
A day of a robot in a few minutes: its camera always runs, and one part in twenty is captioned.

Somebody listens to the captions for 5 % of the time, in four visits; half of a visit the robot
drives, so that every frame is new, and half of it it stands. Once as the node is by default, with
`sleep_after_s`, and once with none of what saves: everything is loaded, heard and captioned.
"""

import time
from typing import Any

import numpy as np
import psutil
from sensor_msgs.msg import Image
from std_msgs.msg import String

from .camera import make_image
from .node_under_test import prepare_network, START_S
from .plan import Plan
from .processes import cpu_seconds, shares_mb
from .report import Table
from ..node.client import NodeClient

VISITS, PART = 4, 0.05
SIZE = 480, 640
CAMERA_HZ, LOOK_EVERY_S = 15.0, 0.5
HOURS = 24.0
ALWAYS = {'lazy': False, 'still_threshold': 0.0, 'sleep_after_s': 0.0}


class _Robot(NodeClient):
    """Its camera shows something new while it drives; it listens when told to."""

    def __init__(self, parameters: dict[str, Any]) -> None:
        super().__init__({'bond': 'none', **parameters}, environment=prepare_network())
        self.drives = False
        self.heard: list[float] = []
        rng = np.random.default_rng(0)
        self._frames = [
            make_image(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8).repeat(
                SIZE[0] // 8, 0).repeat(SIZE[1] // 8, 1)) for _ in range(8)]
        self._count = 0
        self._publisher = self.node.create_publisher(Image, 'image_raw', 1)
        self.node.create_timer(1 / CAMERA_HZ, self._see)

    def _see(self) -> None:
        self._count += self.drives
        message = self._frames[self._count % len(self._frames)]
        message.header.stamp = self.node.get_clock().now().to_msg()
        self._publisher.publish(message)

    def visit(self, seconds: float) -> float:
        """Listen for so long; return the seconds until the first caption."""
        self.heard = []
        started = time.monotonic()
        subscription = self.node.create_subscription(
            String, f'{self.name}/caption', lambda _: self.heard.append(time.monotonic()), 10)
        self.drives = True
        time.sleep(seconds / 2)
        self.drives = False
        time.sleep(seconds / 2)
        self.node.destroy_subscription(subscription)
        return self.heard[0] - started if self.heard else float('nan')


def measure(plan: Plan) -> dict[str, Any]:
    """Return memory and CPU of a day with what saves and without."""
    seconds = 30.0 if plan.quick else plan.sustained_s
    rest = seconds * (1 - PART) / VISITS
    saving = {'sleep_after_s': min(10.0, rest / 4)}
    return {
        'minutes': seconds / 60, 'sleep_after_s': saving['sleep_after_s'],
        **{f'{model}, {name}': _day(plan, seconds, {'model': model, **parameters})
           for model in ('mobilenet', 'simple')
           for name, parameters in (('as it is', saving), ('without', ALWAYS))}}


def _day(plan: Plan, seconds: float, parameters: dict[str, Any]) -> dict[str, Any]:
    with _Robot({**plan.parameters, 'min_available_memory_mb': 0.0,
                 **parameters}) as robot:
        if not (robot.wait_for_start(START_S) and robot.change('configure', 150)
                and robot.change('activate')):
            raise RuntimeError(f'the node did not start: {robot.output()[-3000:]}')
        memory: list[float] = []
        waits: list[float] = []
        captions = 0
        cpu = _Cpu(robot)
        started = time.monotonic()
        for _ in range(VISITS):
            end = time.monotonic() + seconds * (1 - PART) / VISITS
            while time.monotonic() < end:
                memory.append(_memory_mb(robot))
                cpu.look()
                time.sleep(LOOK_EVERY_S)
            waits.append(robot.visit(seconds * PART / VISITS))
            captions += len(robot.heard)
            memory += [_memory_mb(robot)] * round(seconds * PART / VISITS / LOOK_EVERY_S)
            cpu.look()
        passed = time.monotonic() - started
    return {
        'gb_hours': float(np.mean(memory)) / 1024 * HOURS,
        'cpu_hours': cpu.seconds / passed * HOURS, 'captions': captions,
        'first_caption_s': float(np.nanmedian(waits))}


def _memory_mb(robot: NodeClient) -> float:
    for _ in range(3):
        try:
            return sum(shares_mb(robot.pids()).values())
        except (OSError, psutil.NoSuchProcess):  # a worker that falls asleep just now
            time.sleep(0.05)
    raise RuntimeError('processes come and go faster than they can be looked at')


class _Cpu:
    """Adds up the processor time of the node and of workers that come and go."""

    def __init__(self, robot: NodeClient) -> None:
        self.seconds = 0.0
        self._robot = robot
        self._used = {pid: cpu_seconds([pid]) for pid in robot.pids()}

    def look(self) -> None:
        """Add what was used since; of a worker that has gone, what it was last seen with."""
        used = {}
        for pid in self._robot.pids():
            try:
                used[pid] = cpu_seconds([pid])
            except psutil.NoSuchProcess:  # it falls asleep just now
                pass
        self.seconds += sum(value - self._used.get(pid, 0.0) for pid, value in used.items())
        self._used = used


def tables(result: dict[str, Any]) -> list[Table]:
    """Return the figures as a table."""
    rows = [
        [name, run['gb_hours'], run['cpu_hours'], run['captions'], run['first_caption_s']]
        for name, run in result.items() if isinstance(run, dict)]
    return [Table(
        f'A day of a robot, from {result["minutes"]:g} minutes, sleep_after_s '
        f'{result["sleep_after_s"]:g} (node and worker)',
        ['model', 'GB hours of memory', 'core hours', 'captions heard', 'first caption (s)'],
        rows)]
