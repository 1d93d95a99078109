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

"""Node and worker in a real memory cgroup, from too small for the node to ample."""

from collections.abc import Iterable
import sys
import threading
import time
from typing import Any

import numpy as np

from .camera import make_image
from .cgroup import MemoryCgroup
from .node_under_test import NodeUnderTest, START_S
from .report import Table

CAPTIONS = 5
# Without the checks the kernel's OOM killer is met for real.
UNCHECKED = {'min_available_memory_mb': 0.0, 'reserve_memory_mb': 0.0}
VARIANTS = (
    ('simple', True, {'fallback': 'simple'}),
    ('none', True, {'fallback': 'none'}),
    ('simple', False, {'fallback': 'simple', **UNCHECKED}))


def measure(limits_mb: Iterable[int], checkpoint: str = '') -> list[dict[str, Any]]:
    """
    Return what ran at each limit, for both fallbacks, and without the memory checks.

    :raises CgroupUnavailable: where no memory cgroup can be made.
    """
    from tqdm import tqdm
    MemoryCgroup(limit_mb=20).close()
    points = [
        (limit, fallback, checked, parameters)
        for fallback, checked, parameters in VARIANTS for limit in limits_mb]
    return [
        try_limit(limit, fallback, checked, {**parameters, 'checkpoint': checkpoint})
        for limit, fallback, checked, parameters in tqdm(points, file=sys.stderr, desc='sweep')]


def drop_caches() -> None:
    """Have the next start read its libraries from disk, into its own cgroup."""
    try:
        with open('/proc/sys/vm/drop_caches', 'w', encoding='ascii') as file:
            file.write('1')
    except OSError:
        pass  # what others have read before then costs this cgroup nothing


class HeldPeak:
    """Follows what a cgroup holds that cannot be dropped; a context manager."""

    def __init__(self, cgroup: MemoryCgroup) -> None:
        self.mb = 0.0
        self._cgroup = cgroup
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> 'HeldPeak':
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _follow(self) -> None:
        while not self._stop.wait(0.02):
            self.mb = max(self.mb, self._cgroup.held_mb)


def try_limit(
        limit_mb: float, fallback: str, checked: bool,
        parameters: dict[str, Any]) -> dict[str, Any]:
    """Start the node under a limit, configure and caption, and return what came of it."""
    drop_caches()
    point: dict[str, Any] = {'limit_mb': limit_mb, 'fallback': fallback, 'checks': checked}
    with MemoryCgroup(limit_mb) as cgroup, HeldPeak(cgroup) as held:
        with NodeUnderTest(parameters, prefix=cgroup.command([])) as node:
            point.update(_outcome(node))
        point.update(
            peak_mb=held.mb, headroom_mb=limit_mb - held.mb, with_cache_mb=cgroup.peak_mb,
            oom_kills=cgroup.oom_kills)
    return point


def _outcome(node: NodeUnderTest) -> dict[str, Any]:
    if not node.wait_for_start(START_S):
        end = 'still starting' if node.alive else f'ended with {node.process.returncode}'
        return {'outcome': 'node did not fit', 'message': end}
    started = time.monotonic()
    success = node.configure()
    seconds = time.monotonic() - started
    result = {'outcome': '', 'message': '', 'configure_s': seconds}
    if success:
        node.activate()
        message = make_image(np.zeros((480, 640, 3), np.uint8))
        captions = [node.caption(message, timeout=30) for _ in range(CAPTIONS)]
        models = [caption.info['model'] for caption in captions if caption is not None]
        if models:
            result['outcome'] = 'full' if models[-1] == 'mobilenet' else 'simple'
        else:
            result['outcome'] = 'NO CAPTION'
        result['captions'] = len(models)
        wanted = 'model'  # in diagnostics once the node is configured
    else:
        result['outcome'] = 'FAILURE' if success is False else 'NO ANSWER'
        wanted = 'last failure'
    node.statuses.clear()  # one that was sent after all this
    node.wait_for(lambda: wanted in node.diagnostics or not node.alive, 5)
    if not node.alive:
        result['outcome'] = 'NODE DIED'
        result['message'] = f'ended with {node.process.returncode}'
    elif success:
        result['message'] = node.diagnostics.get('reason', '')
    else:
        result['message'] = node.diagnostics.get('last failure', '')
    return result


def tables(points: list[dict[str, Any]]) -> list[Table]:
    """Return the points as a table for each variant."""
    found = []
    for fallback, checked, _ in VARIANTS:
        rows = [
            [point['limit_mb'], point['outcome'], round(point['peak_mb']),
             round(point['headroom_mb']), point.get('configure_s'), point['oom_kills'],
             point['message'].replace('|', '/')]
            for point in points
            if point['fallback'] == fallback and point['checks'] == checked]
        found.append(Table(
            f'Memory sweep, fallback {fallback}'
            + ('' if checked else ', memory checks off'),
            ['limit (MB)', 'what ran', 'peak (MB)', 'headroom (MB)', 'configure (s)',
             'OOM kills', 'reason or message'], rows))
    return found
