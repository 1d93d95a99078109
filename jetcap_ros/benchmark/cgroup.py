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

"""A real memory cgroup to run a command in, for the memory sweep and for tests."""

from collections.abc import Sequence
import errno
import os
from pathlib import Path
import signal
import subprocess
import time
from typing import Any
import uuid

from ..memory.memory_utils import find_cgroups, MB, V1

# Joins the cgroup before it becomes the command, so that not a page is counted elsewhere.
JOIN = 'echo $$ > "$0" && exec "$@"'


class CgroupUnavailable(RuntimeError):
    """No memory cgroup can be made here; the message says why."""


class MemoryCgroup:
    """
    A memory cgroup of its own, a context manager that kills what is left in it at the end.

    On v1 it is a child of this process's cgroup; on v2, where a cgroup with processes cannot
    have children with controllers, a sibling.

    :param limit_mb: None leaves it without a limit, to watch only.
    :raises CgroupUnavailable: without the right to make one (root has it), or without the
        kernel's memory controller.
    """

    def __init__(self, limit_mb: float | None = None) -> None:
        cgroups = find_cgroups('/')
        self._v1 = cgroups.files is V1
        self._files = cgroups.files
        if not cgroups.levels:
            raise CgroupUnavailable('no memory cgroups are mounted here')
        if not self._v1 and len(cgroups.levels) < 2:
            raise CgroupUnavailable('this cgroup is the topmost visible one: no room beside it')
        parent = cgroups.levels[0 if self._v1 else 1]
        self.path: Path = parent / f'jetcap-{uuid.uuid4().hex[:8]}'
        try:
            self.path.mkdir()
        except OSError as error:
            raise CgroupUnavailable(f'cannot make {self.path}: {error.strerror}') from error
        try:
            if limit_mb is not None:
                self.set_limit(limit_mb)
        except OSError as error:
            self.close()
            raise CgroupUnavailable(
                f'cannot limit the memory of {self.path}: {error.strerror}; is the memory '
                'controller enabled there?') from error

    def __enter__(self) -> 'MemoryCgroup':
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def set_limit(self, limit_mb: float) -> None:
        """Limit memory and swap together, so that a shortage is not hidden by swapping."""
        limit = str(int(limit_mb * MB))
        (self.path / self._files.limits[0]).write_text(limit)
        swap = self.path / ('memory.memsw.limit_in_bytes' if self._v1 else 'memory.swap.max')
        if swap.exists():
            swap.write_text(limit if self._v1 else '0')

    def command(self, command: Sequence[str]) -> list[str]:
        """Return the command that runs another one in this cgroup."""
        return ['/bin/sh', '-c', JOIN, str(self.path / 'cgroup.procs'), *command]

    def start(self, command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Start a command in this cgroup; options are those of Popen."""
        return subprocess.Popen(self.command(command), **options)

    @property
    def usage_mb(self) -> float:
        """Return what is charged now, page cache included."""
        return int((self.path / self._files.usage).read_text()) / MB

    @property
    def peak_mb(self) -> float | None:
        """Return the most that was ever charged, page cache included; None before Linux 5.19."""
        peak = self.path / ('memory.max_usage_in_bytes' if self._v1 else 'memory.peak')
        return int(peak.read_text()) / MB if peak.exists() else None

    @property
    def held_mb(self) -> float:
        """Return the memory that is no copy of a file on disk: what cannot be dropped."""
        stat = self._table('memory.stat')
        names = ('total_rss', 'total_shmem') if self._v1 else ('anon', 'shmem')
        return sum(stat[name] for name in names) / MB

    @property
    def oom_kills(self) -> int | None:
        """Return how many processes the kernel killed here, None before Linux 4.13."""
        return self._table(self._files.events).get('oom_kill')

    @property
    def pids(self) -> list[int]:
        """Return the processes in it."""
        return [int(pid) for pid in (self.path / 'cgroup.procs').read_text().split()]

    def _table(self, name: str) -> dict[str, int]:
        lines = (self.path / name).read_text().splitlines()
        return {key: int(value) for key, value in (line.split() for line in lines)}

    def close(self) -> None:
        """Kill what is left and remove the cgroup."""
        deadline = time.monotonic() + 10
        while self.path.exists():
            for pid in self.pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            try:
                self.path.rmdir()
            except OSError as error:  # busy until the killed ones have gone
                if error.errno != errno.EBUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
