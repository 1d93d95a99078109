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

"""Measure processes from outside: what they hold together, at most, and what they use of a core."""

from collections import defaultdict
from collections.abc import Callable, Iterable
import json
import os
import re
import signal
import subprocess
import sys
import threading
from typing import Any

import psutil

SAMPLE_S = 0.05


class ChildFailed(RuntimeError):
    """A measuring process did not end well; holds the end of its output."""


def run_child(
        arguments: list[str], timeout: float = 600,
        environment: dict[str, str] | None = None, python: str = sys.executable) -> Any:
    """
    Run `python ARGUMENTS` in a process group of its own and return the JSON of its last line.

    :raises ChildFailed: if it fails or takes too long; nothing of it is left running.
    """
    child = subprocess.Popen(
        [python, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, start_new_session=True, env=environment)
    try:
        out, errors = child.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        raise ChildFailed(f'{arguments}: not done after {timeout:.0f} s') from None
    finally:
        end_group(child)
    if child.returncode:
        raise ChildFailed(f'{arguments} ended with {child.returncode}: {errors[-2000:]}')
    return json.loads(out.strip().splitlines()[-1])


def end_group(child: subprocess.Popen[Any]) -> None:
    """Kill what is left of a child, its process group and its descendants, and reap it."""
    family = []
    if child.poll() is None:  # nodes and workers are in sessions of their own
        try:
            family = psutil.Process(child.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            pass
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    for process in family:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            pass
    child.wait()


def peak_rss_mb(pid: int | None = None) -> float:
    """Return the most a process ever had resident, as the kernel counted."""
    with open(f'/proc/{pid or "self"}/status', encoding='ascii', errors='replace') as status:
        found = re.search(r'VmHWM:\s+(\d+)', status.read())
    return int(found[1]) / 1024 if found else 0.0  # a zombie has nothing


def shares_mb(pids: Iterable[int]) -> dict[int, float]:
    """
    Return what each process holds, with pages of files that several of them hold divided.

    This is PSS as if nothing else ran on the machine, so a browser or a second robot program
    that has the same libraries loaded does not make the figures smaller. The sum is what the
    processes occupy together.
    """
    private: dict[int, float] = {}
    files: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
    for pid in pids:
        try:
            private[pid], of_files = _read_smaps(pid)
        except (FileNotFoundError, ProcessLookupError):
            continue
        for file, mb in of_files.items():
            files[file][pid] = mb
    shares = dict(private)
    for holders in files.values():
        # The pages of the one that has fewest are taken to be among those of the others.
        before = 0.0
        waiting = sorted(holders, key=holders.__getitem__)
        while waiting:
            step = (holders[waiting[0]] - before) / len(waiting)
            before = holders[waiting[0]]
            for pid in waiting:
                shares[pid] += step
            waiting.pop(0)
    return shares


def _read_smaps(pid: int) -> tuple[float, dict[tuple[str, str], float]]:
    """Return the MB of a process that are its own, and those of each mapped file."""
    own = 0.0
    files: dict[tuple[str, str], float] = defaultdict(float)
    file, resident = ('', '0'), 0
    with open(f'/proc/{pid}/smaps', encoding='utf-8', errors='replace') as smaps:
        for line in smaps:
            key, _, rest = line.partition(' ')
            if key[-1] != ':':
                _, _, device, inode = rest.split()[:4]
                file = (device, inode)
            elif key == 'Rss:':
                resident = int(rest.split()[0])
            elif key == 'Anonymous:':
                anonymous = int(rest.split()[0]) if file[1] != '0' else resident
                own += anonymous / 1024
                files[file] += (resident - anonymous) / 1024
    return own, files


class Watch:
    """
    Follows the memory of processes in a thread; a context manager.

    :param pids: called for each sample, since processes come and go.
    """

    def __init__(self, pids: Callable[[], list[int]]) -> None:
        self.sampled_mb = 0.0
        self._pids = pids
        self._resident: dict[int, tuple[float, float]] = {}  # most seen, most ever
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> 'Watch':
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.sample()

    @property
    def peak_mb(self) -> float:
        """
        Return the most the processes ever occupied together.

        What the samples missed is added from the kernel's own peaks, as if all had theirs at
        once, so the truth is not more than this.
        """
        missed = sum(ever - seen for seen, ever in self._resident.values())
        return self.sampled_mb + max(0.0, missed)

    @property
    def peak_rss_mb(self) -> dict[int, float]:
        """Return the peak RSS of each process seen."""
        return {pid: ever for pid, (_, ever) in self._resident.items()}

    def _follow(self) -> None:
        while not self._stop.wait(SAMPLE_S):
            self.sample()

    def sample(self) -> None:
        """Look once."""
        pids = self._pids()
        self.sampled_mb = max(self.sampled_mb, sum(shares_mb(pids).values()))
        for pid in pids:
            try:
                seen = psutil.Process(pid).memory_info().rss / (1 << 20)
                ever = peak_rss_mb(pid)
            except (OSError, psutil.Error):  # it has gone
                continue
            seen = max(seen, self._resident.get(pid, (0, 0))[0])
            self._resident[pid] = (seen, ever)


def cpu_seconds(pids: Iterable[int]) -> float:
    """Return the CPU time that processes have used."""
    return sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in pids)
