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
Load a model and print what each stage really took: `python -m jetcap_ros.engine.measure`.

In a process of its own, as the worker is. Prints a JSON list of stages with the MB that were
assumed, and the most that the stage held beyond what there was before it.
"""

import argparse
import json
import os
import threading
from typing import Any

from .lazy_loader import LazyModel
from .stages import NEED_MB, NEED_PER_MB
from ..memory.memory_utils import MB, process_memory

LOOK_EVERY_S = 0.001


class _Peak:
    """Follows what this process holds that is no copy of a file; a context manager."""

    def __init__(self) -> None:
        self.stages: list[dict[str, Any]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> '_Peak':
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def begin(self, stage: str, assumed_mb: float) -> None:
        held = process_memory().anonymous_mb
        self.stages.append({
            'stage': stage, 'assumed_mb': assumed_mb, 'before_mb': held, 'peak_mb': held})

    def look(self) -> None:
        held = process_memory().anonymous_mb
        for stage in self.stages[-1:]:
            stage['peak_mb'] = max(stage['peak_mb'], held)

    def _follow(self) -> None:
        while not self._stop.wait(LOOK_EVERY_S):
            self.look()


def measure(
        model: str, checkpoint: str, runtime: str, reserve_mb: float) -> list[dict[str, Any]]:
    """
    Load a model and return its stages: stage, assumed_mb, measured_mb, base_mb.

    The base is what the stage needs apart from what grows with the checkpoint.

    :raises MemoryError, ImportError, CheckpointError: as loading it does.
    """
    with _Peak() as peak:
        lazy = LazyModel(
            checkpoint, model, runtime=runtime, reserve_memory_mb=reserve_mb,
            on_begin=lambda stage: peak.begin(stage, lazy.need_mb(stage)),
            on_stage=lambda stage: peak.look())
        lazy.model
    size = os.path.getsize(lazy.checkpoint.path) / MB if lazy.checkpoint else 0
    stages = []
    for stage in peak.stages:
        measured = stage['peak_mb'] - stage['before_mb']
        # Before the metadata are read, nothing is known of the checkpoint, nor needed.
        stages.append({
            'stage': stage['stage'], 'assumed_mb': stage['assumed_mb'], 'measured_mb': measured,
            'base_mb': measured - NEED_PER_MB[model].get(stage['stage'], 0) * size})
    return stages


def exceeding(stages: list[dict[str, Any]]) -> dict[str, float]:
    """Return the bases of the stages that took more than was assumed, in MB."""
    return {
        stage['stage']: round(stage['base_mb'], 1) for stage in stages
        if stage['measured_mb'] > stage['assumed_mb'] and stage['base_mb'] > NEED_MB[
            stage['stage']]}


def main() -> None:
    """Measure one model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('model')
    parser.add_argument('checkpoint')
    parser.add_argument('runtime')
    parser.add_argument('reserve', type=float, help='MB')
    args = parser.parse_args()
    print(json.dumps(measure(args.model, args.checkpoint, args.runtime, args.reserve)))


if __name__ == '__main__':
    main()
