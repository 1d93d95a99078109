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
Test the memory readings on recorded trees, and on a real cgroup where one can be made.

The trees in data/memory are text files of `== path` and contents. v1_hybrid was recorded; the
others follow the formats of the kernel, Docker and systemd they are named after.
"""

import os
from pathlib import Path
import signal
import subprocess
import sys

from jetcap_ros.benchmark.cgroup import CgroupUnavailable, MemoryCgroup
from jetcap_ros.memory import memory_utils
import psutil
import pytest

TREES = Path(__file__).parent / 'data' / 'memory'
# tree: available MB, pressure, OOM kills
EXPECTED = {
    'v1_hybrid': (232.4, 0.75, 0),  # 300 - 79.1 used + 11.5 of cache
    'v1_docker': (262.0, None, 2),  # 512 - 300 + 50
    'v1_docker_namespace': (166.0, None, 0),  # 256 from above the mount - 100 + 10
    'v1_jetson_nano': (250.0, None, None),  # of the slice: 1000 - 900 + 150
    'v2_systemd': (200.0, 12.0, 1),  # memory.high of the slice: 1000 - 900 + 100
    'v2_docker': (500.0, 4.5, 3),  # 800 - 500 + 200
    'v2_docker_host_path': (350.0, None, 0),  # 400 - 100 + 50
    'v2_outside_namespace': (200.0, None, 0),  # 300 - 100
    'v2_full': (0.0, None, 0),  # never negative
    'v2_unlimited': (2500.0, 1.5, 0),  # MemAvailable
    'no_cgroups': (2500.0, None, None),
}


@pytest.fixture
def tree(request, tmp_path):
    """Lay out a recorded tree and return where it is."""
    for section in (TREES / f'{request.param}.txt').read_text().split('\n== ')[1:]:
        name, contents = section.split('\n', 1)
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(contents.rstrip() + '\n')
    return str(tmp_path)


def test_every_tree_is_tested():
    assert sorted(EXPECTED) == sorted(path.stem for path in TREES.glob('*.txt'))


@pytest.mark.parametrize('tree, expected', EXPECTED.items(), indirect=['tree'])
def test_recorded_trees(tree, expected):
    available, pressure, kills = expected
    assert memory_utils.available_memory_mb(tree) == pytest.approx(available, abs=0.05)
    assert memory_utils.memory_pressure(tree) == pressure
    assert memory_utils.oom_kill_count(tree) == kills


@pytest.mark.parametrize('tree', ['v2_docker'], indirect=True)
def test_readings_follow_the_files(tree):
    limit = Path(tree, 'sys/fs/cgroup/memory.max')
    assert memory_utils.available_memory_mb(tree) == 500
    limit.write_text(f'{900 << 20}\n')
    assert memory_utils.available_memory_mb(tree) == 600
    limit.unlink()  # a cgroup that goes away is no limit
    assert memory_utils.available_memory_mb(tree) == 2500


@pytest.mark.parametrize('tree', ['v2_docker'], indirect=True)
def test_check_names_purpose_and_both_numbers(tree):
    assert memory_utils.check_available_memory(500, root=tree) == 500
    with pytest.raises(MemoryError, match='for the model: 501 MB needed, 500 MB available'):
        memory_utils.check_available_memory(501, 'the model', tree)


def test_this_machine():
    assert 0 < memory_utils.available_memory_mb() <= psutil.virtual_memory().total / (1 << 20)
    assert memory_utils.memory_pressure() is None or 0 <= memory_utils.memory_pressure() <= 100
    memory = memory_utils.process_memory()
    rss_mb = psutil.Process().memory_info().rss / (1 << 20)
    assert memory.rss_mb == pytest.approx(rss_mb, rel=0.1)
    assert 0 < memory.pss_mb <= memory.rss_mb
    assert 0 < memory.anonymous_mb <= memory.rss_mb


def test_a_process_that_is_stopped():
    child = subprocess.Popen(['sleep', '60'])
    try:
        assert not memory_utils.is_stopped(child.pid)
        child.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, child.pid, os.WSTOPPED)
        assert memory_utils.is_stopped(child.pid)
    finally:
        child.kill()
        child.wait()
    assert not memory_utils.is_stopped(child.pid)


def test_process_memory_of_another_process():
    child = subprocess.Popen(
        [sys.executable, '-c', 'a = bytearray(50 << 20); print(flush=True); input()'],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        child.stdout.readline()
        assert 50 < memory_utils.process_memory(child.pid).anonymous_mb < 80
    finally:
        child.kill()
        child.communicate()
    with pytest.raises(ProcessLookupError):
        memory_utils.process_memory(child.pid)


def test_pss_without_smaps_rollup(monkeypatch):
    memory = memory_utils.process_memory()
    expected = memory.pss_mb
    read = memory_utils._read
    monkeypatch.setattr(
        memory_utils, '_read', lambda path: '' if path.name == 'smaps_rollup' else read(path))
    assert memory.pss_mb == pytest.approx(expected, rel=0.1)


def test_pss_of_a_process_that_has_gone():
    assert memory_utils.ProcessMemory(2 ** 22 + 1, 0, 0).pss_mb is None


def test_pre_cleanup_gives_memory_back():
    code = '\n'.join([
        'from jetcap_ros.memory.memory_utils import pre_cleanup, process_memory',
        'held = [bytes(1000) for _ in range(100_000)]',
        'last = bytes(1000)',  # keeps the top of the heap
        'full = process_memory().rss_mb',
        'held = None',
        'pre_cleanup()',
        'print(full - process_memory().rss_mb)',
    ])
    # A process of its own: what this one's heap looks like is up to the tests before.
    freed = subprocess.run(
        [sys.executable, '-c', code], check=True, capture_output=True, text=True).stdout
    assert float(freed) > 80


def test_safe_import_returns_the_module():
    assert memory_utils.safe_import_wrapper('colorsys', 1) is sys.modules['colorsys']
    # Imported already: needs no memory.
    assert memory_utils.safe_import_wrapper('colorsys', 1e8) is sys.modules['colorsys']


@pytest.mark.parametrize('statement, error, message', [
    ('raise RuntimeError("no such device")', ImportError,
     'cannot import broken_module: RuntimeError: no such device'),
    ('import a_library_that_is_missing', ImportError, 'a_library_that_is_missing'),
    ('raise SystemExit(3)', ImportError, 'cannot import broken_module: SystemExit: 3'),
    ('raise MemoryError', MemoryError, 'importing broken_module ran out of memory'),
    ('raise OSError(12, "Cannot allocate memory")', MemoryError,
     'importing broken_module ran out of memory'),
    ('raise OSError(2, "No such file")', ImportError, 'No such file'),
])
def test_safe_import_says_what_went_wrong(tmp_path, monkeypatch, statement, error, message):
    (tmp_path / 'broken_module.py').write_text(statement)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(error, match=message) as caught:
        memory_utils.safe_import_wrapper('broken_module', 1)
    assert caught.value.__cause__ is not None
    assert 'broken_module' not in sys.modules


def test_safe_import_checks_the_memory_first():
    with pytest.raises(MemoryError, match='importing antigravity: 100000000 MB needed'):
        memory_utils.safe_import_wrapper('antigravity', 1e8)
    assert 'antigravity' not in sys.modules


@pytest.fixture
def cgroup():
    """Return a real cgroup of 100 MB."""
    try:
        group = MemoryCgroup(limit_mb=100)
    except CgroupUnavailable as error:
        pytest.skip(f'no real cgroup: {error}')
    with group:
        yield group
    assert not group.path.exists()


def run_in(cgroup, code):
    """Run Python code that ends by printing numbers, and return them."""
    out = cgroup.start(
        [sys.executable, '-c', f'from jetcap_ros.memory import memory_utils as m\n{code}'],
        stdout=subprocess.PIPE, text=True).communicate(timeout=60)[0]
    return [float(number) for number in out.split()]


def test_real_cgroup_clamps_available_memory(cgroup, tmp_path):
    empty, held, cached, freed = run_in(cgroup, f"""
print(m.available_memory_mb())
held = bytearray(40 << 20)
print(m.available_memory_mb())
with open({str(tmp_path / 'file')!r}, 'wb') as file:
    for _ in range(30):
        file.write(bytes(1 << 20))
print(m.available_memory_mb())
held = None
print(m.available_memory_mb())""")
    assert 70 < empty < 100
    assert empty - held == pytest.approx(40, abs=2)
    assert cached == pytest.approx(held, abs=4)  # page cache counts as available
    assert freed == pytest.approx(empty, abs=4)


def test_real_cgroup_counts_oom_kills(cgroup):
    before, after = run_in(cgroup, """
import subprocess, sys
print(m.oom_kill_count())
child = subprocess.run([sys.executable, '-c', 'bytearray(200 << 20)'])
assert child.returncode == -9, child
print(m.oom_kill_count())""")
    assert after - before == 1
    assert cgroup.oom_kills == 1
    assert cgroup.peak_mb == pytest.approx(100, abs=1)


def test_closing_a_cgroup_kills_what_is_in_it(cgroup):
    child = cgroup.start([sys.executable, '-c', 'print(flush=True); input()'],
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    child.stdout.readline()
    assert cgroup.pids == [child.pid]
    assert 0 < cgroup.held_mb <= cgroup.usage_mb < 100
    cgroup.close()
    assert child.wait(timeout=10) == -9
    child.communicate()
