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

"""How much to measure, and on which checkpoints."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .processes import run_child


@dataclass
class Plan:
    """What all measurements share."""

    checkpoint: str  # of the node; '' is the shipped one
    small_plain: str  # MobileNetV3-Small with random weights, .pth
    small_packed: str  # the same, int8
    small_packed_float: str  # the same, float32
    folder: Path  # for what a measurement writes
    quick: bool = False
    runtime: str = 'auto'  # of the simple model
    seconds: float = 20.0  # of a measurement that runs for a time
    sustained_s: float = 60.0  # of the camera at 30 Hz
    server: dict[str, Any] = field(default_factory=dict)  # its parameters, if one is measured too

    @property
    def models(self) -> dict[str, dict[str, Any]]:
        """Return the parameters of a node with each model, by its name."""
        models: dict[str, dict[str, Any]] = {
            name: {'model': name, **self.parameters, 'min_available_memory_mb': 0.0}
            for name in ('mobilenet', 'simple')}
        return {**models, 'server': self.server} if self.server else models

    @property
    def parameters(self) -> dict[str, str]:
        """Return the node's parameters."""
        return {'checkpoint': self.checkpoint, 'runtime': self.runtime}

    @property
    def rounds(self) -> int:
        """Return how often a process is started anew for a figure."""
        return 1 if self.quick else 3

    @property
    def captions(self) -> int:
        """Return how many captions make a latency."""
        return 12 if self.quick else 100


def make_plan(
        folder: Path, checkpoint: str, runtime: str, quick: bool, minutes: float,
        server: dict[str, Any]) -> Plan:
    """Write the checkpoints that are needed and return the plan."""
    paths = {}
    for quantize in ('int8', 'none'):
        paths[quantize] = run_child([
            '-m', 'jetcap_ros.benchmark.checkpoints', str(folder), f'{{"quantize": "{quantize}"}}'])
    return Plan(
        checkpoint, paths['int8']['plain'], paths['int8']['packed'], paths['none']['packed'],
        folder, quick, runtime, 3.0 if quick else 20.0, 6.0 if quick else minutes * 60, server)
