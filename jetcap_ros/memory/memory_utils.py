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
What memory there is, for this process and by the kernel's own books.

`available` is the machine's figure clamped by every memory cgroup this process is in, so that a
container's or a systemd unit's limit is seen before the kernel enforces it. Paths are found
once; a reading then opens a few small files and costs well under a millisecond.
Read from /proc without any library: what each process imports, each start has to wait for.
"""

import ctypes
from dataclasses import dataclass
import errno
import functools
import gc
import importlib
import math
import os
from pathlib import Path
import re
import sys
from types import ModuleType
from typing import NamedTuple

MB = 1 << 20  # bytes
PAGE = os.sysconf('SC_PAGE_SIZE')  # bytes
PIP_NAMES = {'cv2': 'opencv-python-headless'}  # of modules that are called otherwise
UNLIMITED = 1 << 60  # bytes; v1 writes about twice this where there is no limit


class ControllerFiles(NamedTuple):
    """How a version of the kernel's memory controller names its files."""

    limits: tuple[str, ...]
    usage: str
    cache: tuple[str, ...]  # keys of memory.stat: page cache the kernel can drop
    events: str


V1 = ControllerFiles(
    limits=('memory.limit_in_bytes',), usage='memory.usage_in_bytes',
    cache=('total_inactive_file', 'total_active_file'), events='memory.oom_control')
V2 = ControllerFiles(
    # Above memory.high nothing is killed, but everything is slowed until it is useless.
    limits=('memory.max', 'memory.high'), usage='memory.current',
    cache=('inactive_file', 'active_file'), events='memory.events')


class Cgroups(NamedTuple):
    """The cgroups this process is in: of the memory controller from its own up, and of v2."""

    files: ControllerFiles
    levels: tuple[Path, ...]
    unified: Path | None


@dataclass(frozen=True)
class ProcessMemory:
    """Memory of one process in MB."""

    pid: int
    rss_mb: float
    anonymous_mb: float  # what is no copy of a file on disk

    @property
    def pss_mb(self) -> float | None:
        """
        Return the share that is this process's, None if the kernel does not tell.

        The kernel walks through all pages for it: milliseconds, of a large process.
        """
        rollup = _read(Path(f'/proc/{self.pid}/smaps_rollup'))
        # Kernels before 4.14 have no sums. Empty: another user's process, or gone.
        shares = re.findall(
            r'^Pss: +(\d+) kB', rollup or _read(Path(f'/proc/{self.pid}/smaps')), re.MULTILINE)
        return sum(map(int, shares)) / 1024 if shares else None


def available_memory_mb(root: str = '/') -> float:
    """
    Return the MB this process can still use before the kernel reclaims by force or kills.

    The machine's available memory, clamped by the cgroup v1 or v2 limits from this process's
    cgroup up to the topmost visible one. Page cache counts as available, swap does not.

    :param root: where `proc` and `sys` are, for tests on recorded trees.
    """
    return available_memory(root)[0]


def available_memory(root: str = '/') -> tuple[float, str]:
    """Return the available MB, and what they are limited by: 'machine' or a cgroup's path."""
    found = [(_machine_available(root), 'machine')]
    cgroups = find_cgroups(root)
    for level in cgroups.levels:
        found.append((_headroom(level, cgroups.files), str(level)))
    if cgroups.files is V1 and cgroups.levels:
        # Knows of limits above the cgroups that are visible from inside a container.
        own = cgroups.levels[0]
        limit = _read_table(own / 'memory.stat').get('hierarchical_memory_limit', UNLIMITED)
        if limit < UNLIMITED:
            found.append((_left_of(limit, own, V1), str(own)))
    available, limited_by = min(found, key=lambda pair: pair[0])
    return max(available, 0) / MB, limited_by


def check_available_memory(min_mb: float, purpose: str = '', root: str = '/') -> float:
    """
    Return the available MB.

    :raises MemoryError: if they are fewer than `min_mb`; names the purpose and both numbers.
    """
    available_mb = available_memory_mb(root)
    if available_mb < min_mb:
        task = f' for {purpose}' if purpose else ''
        raise MemoryError(
            f'not enough memory{task}: {min_mb:.0f} MB needed, {available_mb:.0f} MB available')
    return available_mb


def pre_cleanup() -> None:
    """Give memory that is held but not used back to the system, the GPU's cache included."""
    gc.collect()
    trim_heap()
    torch = sys.modules.get('torch')
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def trim_heap() -> None:
    """Give memory that was freed back to the system."""
    malloc_trim = getattr(ctypes.CDLL(None), 'malloc_trim', None)  # glibc has it, musl does not
    if malloc_trim is not None:
        malloc_trim(0)


def safe_import_wrapper(name: str, need_mb: float) -> ModuleType:
    """
    Import a module only if there is memory for it, and say clearly why it failed.

    One that is imported already needs none.

    :raises MemoryError: if fewer than `need_mb` are available, or the import runs out of memory.
    :raises ImportError: for whatever else the import raises, which becomes its cause.
    """
    if name in sys.modules:
        return importlib.import_module(name)
    available_mb = check_available_memory(need_mb, f'importing {name}')
    shortage = f'importing {name} ran out of memory, with {available_mb:.0f} MB available before'
    try:
        return importlib.import_module(name)
    except MemoryError as error:
        raise MemoryError(shortage) from error
    except (Exception, SystemExit) as error:
        if isinstance(error, OSError) and error.errno == errno.ENOMEM:
            raise MemoryError(shortage) from error
        raise ImportError(
            f'cannot import {name}: {type(error).__name__}: {error}{_advice(name, error)}',
            name=name) from error


def _advice(name: str, error: BaseException) -> str:
    """Return what to do about an import that failed, where it is known."""
    if isinstance(error, ModuleNotFoundError) and error.name == name:
        return f'; pip install {PIP_NAMES.get(name, name)}'
    # On aarch64: a library that was to be loaded before others took the place it needs.
    tls = re.search(r'(/\S+): cannot allocate memory in static TLS block', str(error))
    return f'; start again with LD_PRELOAD={tls[1]} in the environment' if tls else ''


def memory_pressure(root: str = '/') -> float | None:
    """
    Return the percentage of the last 10 s in which all tasks waited for memory (PSI, full avg10).

    Of this process's cgroup where the kernel tells it, else of the machine; None where neither.
    """
    unified = find_cgroups(root).unified
    sources = [Path(root, 'proc/pressure/memory')]
    if unified is not None:
        sources.insert(0, unified / 'memory.pressure')
    for source in sources:
        match = re.search(r'^full avg10=([\d.]+)', _read(source), re.MULTILINE)
        if match:
            return float(match[1])
    return None


def oom_kill_count(root: str = '/') -> int | None:
    """
    Return how many processes the kernel has killed for lack of memory, None if it does not tell.

    Counted in this process's memory cgroup, whatever ran out, the cgroup or the machine; where
    the cgroup does not count, in the whole machine. A child that died of SIGKILL while this
    rose was killed by the kernel.
    """
    cgroups = find_cgroups(root)
    sources = [level / cgroups.files.events for level in cgroups.levels[:1]]
    for source in sources + [Path(root, 'proc/vmstat')]:
        count = _read_table(source).get('oom_kill')
        if count is not None:
            return count
    return None


def process_memory(pid: int | None = None) -> ProcessMemory:
    """
    Return the memory of a process, of this one without `pid`.

    :raises ProcessLookupError: if there is none of that id.
    """
    pid = os.getpid() if pid is None else pid
    pages = _read(Path(f'/proc/{pid}/statm')).split()
    if not pages:
        raise ProcessLookupError(f'no process {pid}')
    resident, shared = int(pages[1]), int(pages[2])
    return ProcessMemory(pid, resident * PAGE / MB, (resident - shared) * PAGE / MB)


def is_stopped(pid: int) -> bool:
    """Say whether a process was stopped by a signal, and waits to be told to go on."""
    # The name in front may hold anything, parentheses too.
    return _read(Path(f'/proc/{pid}/stat')).rpartition(') ')[2].startswith('T')


def _machine_available(root: str) -> float:
    """Return the bytes that the kernel says can be used without swapping."""
    found = re.search(r'^MemAvailable: +(\d+) kB', _read(Path(root, 'proc/meminfo')), re.MULTILINE)
    if found is None:  # kernels before 3.14
        raise OSError('/proc/meminfo does not say how much memory is available')
    return float(found[1]) * 1024


def _headroom(level: Path, files: ControllerFiles) -> float:
    """Return the bytes left in one cgroup, infinite where it has no limit."""
    limit = min(_to_bytes(_read(level / name)) for name in files.limits)
    return limit if limit >= UNLIMITED else _left_of(limit, level, files)


def _left_of(limit: float, level: Path, files: ControllerFiles) -> float:
    usage = _to_bytes(_read(level / files.usage))
    if math.isinf(usage):  # the cgroup went away between two readings
        return limit
    stat = _read_table(level / 'memory.stat')
    return limit - usage + sum(stat.get(key, 0) for key in files.cache)


@functools.lru_cache(maxsize=None)
def find_cgroups(root: str) -> Cgroups:
    """Find this process's cgroups through /proc/self/cgroup and /proc/self/mountinfo."""
    paths: dict[str, str] = {}  # controller -> path; '' is the unified hierarchy of v2
    for line in _read(Path(root, 'proc/self/cgroup')).splitlines():
        _, controllers, path = line.split(':', 2)
        paths.update(dict.fromkeys(controllers.split(','), path))
    v1: list[Path] = []
    v2: list[Path] = []
    for line in _read(Path(root, 'proc/self/mountinfo')).splitlines():
        mount, _, source = line.partition(' - ')
        mount_root, mount_point = (_unescape(field) for field in mount.split()[3:5])
        kind, *_, options = source.split()
        if kind == 'cgroup2' and '' in paths and not v2:
            v2 = _levels(root, mount_root, mount_point, paths[''])
        elif kind == 'cgroup' and 'memory' in options.split(',') and 'memory' in paths and not v1:
            v1 = _levels(root, mount_root, mount_point, paths['memory'])
    # On a hybrid layout v2 is mounted too, but the memory controller is v1's.
    return Cgroups(V1 if v1 else V2, tuple(v1 or v2), v2[0] if v2 else None)


def _levels(root: str, mount_root: str, mount_point: str, path: str) -> list[Path]:
    """Return the directories of a cgroup and its visible ancestors, innermost first."""
    top = Path(root, mount_point.lstrip('/'))
    parts = Path(path).parts[1:]
    root_parts = Path(mount_root).parts[1:]
    if parts[:len(root_parts)] == root_parts:
        parts = parts[len(root_parts):]
    # A container may be told a path of its host, of which it sees only the end or nothing.
    while parts and ('..' in parts or not top.joinpath(*parts).is_dir()):
        parts = parts[1:]
    return [top.joinpath(*parts[:depth]) for depth in range(len(parts), -1, -1)]


def _read(path: Path) -> str:
    """Return a file's text, empty where it is missing or the kernel refuses."""
    try:
        with open(path, encoding='utf-8', errors='replace') as file:
            return file.read()
    except OSError:
        return ''


def _read_table(path: Path) -> dict[str, int]:
    """Return a file of `key number` lines."""
    pairs = (line.split() for line in _read(path).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def _to_bytes(text: str) -> float:
    """Return a limit or a usage; what is unlimited (`max`) or missing is infinite."""
    text = text.strip()
    return int(text) if text.isdigit() else math.inf


def _unescape(field: str) -> str:
    r"""Undo mountinfo's octal escapes, `\040` for a space."""
    return re.sub(r'\\(\d{3})', lambda match: chr(int(match[1], 8)), field)
