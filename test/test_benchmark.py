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

"""Test the benchmark: that it measures what it says, leaves nothing behind, and judges fairly."""

import json
import os
from pathlib import Path
import subprocess
import sys
import time

from jetcap_ros.benchmark import (
    checkpoints, decoding, libraries, processes, report, targets)
from jetcap_ros.benchmark.cgroup import CgroupUnavailable, MemoryCgroup
from jetcap_ros.engine.settings import SHIPPED_CHECKPOINT
import numpy as np
import psutil
import pytest
from waiting import wait_for, workers

HERE = Path(__file__).parent
ROOT = HERE.parent
MB = 1 << 20


def children():
    """Return the processes that would be left behind."""
    return {child.pid for child in psutil.Process().children(recursive=True)}


def holding(mb, shared_file=None):
    """Start a process that holds memory of its own, and maps a file."""
    code = f'a = bytearray({mb} << 20)\n'
    if shared_file:
        code += (
            f'import mmap\nfile = open({str(shared_file)!r}, "rb")\n'
            'm = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)\nsum(m[::4096])\n')
    child = subprocess.Popen(
        [sys.executable, '-c', code + 'print(flush=True); input()'], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE)
    assert child.stdout.readline()
    return child


def test_pages_of_a_file_are_counted_once(tmp_path):
    file = tmp_path / 'library'
    file.write_bytes(bytes(40 * MB))
    pair = [holding(20, file), holding(30, file)]
    outsider = holding(0, file)  # must not make the pair look smaller
    try:
        first, second = (child.pid for child in pair)
        shares = processes.shares_mb([first, second])
        alone = processes.shares_mb([first])[first]
        assert alone == pytest.approx(
            psutil.Process(first).memory_info().rss / MB, abs=2)
        assert shares[first] == pytest.approx(alone - 20, abs=8)  # half of the file, and Python
        assert shares[second] - shares[first] == pytest.approx(10, abs=1)
        assert processes.shares_mb([first, 2 ** 22 + 1]).keys() == {first}
    finally:
        for child in [*pair, outsider]:
            child.kill()
            child.communicate()


def test_watch_sees_a_peak_between_its_samples(monkeypatch):
    monkeypatch.setattr(processes, 'SAMPLE_S', 60)
    code = 'print(flush=True); input(); bytearray(100 << 20); print(flush=True); input()'
    child = subprocess.Popen(
        [sys.executable, '-c', code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        child.stdout.readline()
        with processes.Watch(lambda: [child.pid]) as watch:
            watch.sample()
            before = watch.sampled_mb
            child.stdin.write(b'\n')
            child.stdin.flush()
            child.stdout.readline()
        assert watch.sampled_mb - before < 20
        assert watch.peak_mb - before == pytest.approx(100, abs=10)
        assert watch.peak_rss_mb[child.pid] == pytest.approx(watch.peak_mb, rel=0.2)
    finally:
        child.kill()
        child.communicate()


def test_a_child_that_fails_or_hangs_leaves_nothing():
    before = children()
    with pytest.raises(processes.ChildFailed, match='ended with 1.*no such thing'):
        processes.run_child(['-c', 'raise SystemExit("no such thing")'])
    started = time.monotonic()
    with pytest.raises(processes.ChildFailed, match='not done after 1 s'):
        processes.run_child(
            ['-c', 'import subprocess; '
             'subprocess.run(["sleep", "60"], start_new_session=True)'], timeout=1)
    assert time.monotonic() - started < 10
    assert children() == before


@pytest.mark.measures
def test_cpu_seconds_counts_work():
    pids = [os.getpid()]
    before, started = processes.cpu_seconds(pids), time.process_time()
    while time.process_time() - started < 0.2:
        pass
    assert processes.cpu_seconds(pids) - before == pytest.approx(0.2, abs=0.1)


def test_percentiles():
    assert report.percentiles(range(101)) == {'p50': 50, 'p95': 95, 'p99': 99}
    assert report.percentiles([7.0]) == {'p50': 7, 'p95': 7, 'p99': 7}


def test_table_as_markdown():
    table = report.Table('Title', ['name', 'MB'], [['a', 1234.5], ['long name', None]])
    assert table.markdown() == (
        '### Title\n\n'
        '| name      | MB   |\n'
        '| --------- | ---- |\n'
        '| a         | 1234 |\n'
        '| long name |      |\n')


MEMORY = {
    'import torch': {'peak_rss_mb': 500.0, 'seconds': 1.0}, 'naive flow': {'peak_rss_mb': 800.0},
    'mobilenet': {'peak_mb': 600.0}, 'simple': {'settled_mb': 140.0, 'worker_mb': 91.0}}


def test_targets_compare_within_the_run():
    judged = {target['figure']: target for target in targets.compare(MEMORY, None)}
    assert len(judged) == 5
    over = judged['full model: peak of node + worker over a bare import torch']
    assert (over['got'], over['ok']) == (100, True)
    ratio = judged['the same, what is above a bare import torch']
    assert (ratio['got'], ratio['ok']) == (pytest.approx(1 / 3), True)
    assert not judged['simple model: worker alone']['ok']
    assert 'MISSED' in targets.tables(targets.compare(MEMORY, None))[0].markdown()


def run_command(*arguments):
    return subprocess.run(
        [sys.executable, '-m', 'jetcap_ros.cli', 'benchmark', *arguments], cwd=ROOT,
        capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize('arguments, message', [
    (['speed'], "'speed' is none of memory, time, growth, endurance"),
    (['--checkpoint', '/nowhere'], '/nowhere: no such file'),
    (['--memory-sweep', '--limits', '5'], '--limits are at least 20 MB'),
])
def test_arguments_that_make_no_sense(arguments, message):
    result = run_command(*arguments)
    assert result.returncode == 2
    assert message in result.stderr
    assert not result.stdout


@pytest.mark.needs('torch')
def test_decoding_times_the_same_words_for_every_model(tmp_path, monkeypatch, capsys):
    def printed(main, *arguments):
        main(*arguments)
        return json.loads(capsys.readouterr().out)

    paths = printed(checkpoints.main, str(tmp_path), '{"vocab_size": 300, "quantize": "none"}')
    results = []
    for arguments in (
            ['eager', paths['plain']], ['mobilenet', paths['packed'], '--quantize', 'none'],
            ['simple', paths['packed'], '--quantize', 'none']):
        monkeypatch.setattr(
            sys, 'argv', ['decoding', *arguments, '--length', '6', '--repeats', '2'])
        results.append(printed(decoding.main))
    words = [result['indices'] for result in results]
    assert len(words[0]) == 6
    assert words[0] == words[1] == words[2]
    for result in results:
        assert 0 < result['encoder']['min'] <= result['encoder']['p50']
    assert all('beam 3' in result for result in results[1:])


def test_the_simple_model_is_timed_in_each_runtime():
    runs = libraries.measure([sys.executable], SHIPPED_CHECKPOINT, 1, 1, 1, processor=True)
    assert runs[0]['runtime'] == 'opencv' and 'OpenCV' in runs[0]['libraries']
    assert all(run['same_words'] and 40 < run['worker_mb'] < 200 for run in runs)
    assert all(0 < run['image'] < run['caption'] for run in runs)
    assert runs[0]['libraries'] in libraries.tables(runs)[0].markdown()


def in_a_process(function, *arguments):
    """
    Return what a function of this file returns in a process of its own.

    Fast DDS reads its profile once a process: whole frames come through only where no test before
    has made a node.
    """
    code = (f'import json, sys; from {function.__module__} import {function.__name__} as function; '
            'print(json.dumps(function(*json.loads(sys.argv[1]))))')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('PYTHONPATH', os.pathsep.join([str(HERE), str(ROOT)]))
        return processes.run_child(['-c', code, json.dumps(arguments)], timeout=120)


def measure_node():
    from jetcap_ros.benchmark import latency
    from jetcap_ros.benchmark.node_under_test import NodeUnderTest
    with NodeUnderTest({'model': 'simple', 'min_available_memory_mb': 0.0}) as node:
        node.start()
        found = {'ages': latency.one_at_a_time(node, latency.VGA, 3)}
        with latency.cameras(node, (120, 160), 30):
            found['rate'] = latency.rate(node, 1.0)
        found['pids'] = node.pids()
        shares = processes.shares_mb(node.pids())
        found['shares'] = [shares[pid] for pid in node.pids()]
        found['cpu'] = latency.cpu_percent(node, 0.5)
    return {**found, 'left': list(children())}


@pytest.mark.measures
def test_node_under_test_captions_and_is_measured():
    pytest.importorskip('rclpy')
    found = in_a_process(measure_node)
    assert len(found['ages']) == 3 and all(0 < age < 5000 for age in found['ages'])
    assert found['rate'] > 0 and found['cpu'] < 200
    assert len(found['shares']) == 2 and min(found['shares']) > 20
    assert not any(psutil.pid_exists(pid) for pid in [*found['pids'], *found['left']])


@pytest.mark.needs('rclpy')
def test_a_benchmark_that_is_ended_takes_its_nodes_along(cgroups):
    benchmark = subprocess.Popen(
        [sys.executable, '-m', 'jetcap_ros.cli', 'benchmark', '--memory-sweep', '--limits',
         '600'], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        wait_for(lambda: workers(benchmark.pid), 30)
        family = psutil.Process(benchmark.pid).children(recursive=True)
        benchmark.terminate()
        benchmark.communicate(timeout=30)
        gone, alive = psutil.wait_procs(family, timeout=5)
        assert not alive
    finally:
        benchmark.kill()
        benchmark.communicate()


@pytest.fixture
def cgroups():
    try:
        MemoryCgroup(limit_mb=50).close()
    except CgroupUnavailable as error:
        pytest.skip(f'no real cgroup: {error}')


def try_limit(limit_mb, fallback, checked):
    from jetcap_ros.benchmark import sweep
    parameters = dict(next(
        values for name, check, values in sweep.VARIANTS
        if (name, check) == (fallback, checked)))
    point = sweep.try_limit(limit_mb, fallback, checked, parameters)
    return {**point, 'left': list(children())}


@pytest.mark.needs('rclpy')
@pytest.mark.parametrize('limit_mb, fallback, checked, allowed', [
    (60, 'simple', True, {'FAILURE', 'node did not fit'}),
    (400, 'simple', True, {'simple'}),
    (400, 'none', True, {'FAILURE'}),
    (110, 'simple', False, {'FAILURE', 'simple', 'node did not fit'}),
])
def test_memory_sweep(cgroups, limit_mb, fallback, checked, allowed):
    from jetcap_ros.benchmark import sweep
    point = in_a_process(try_limit, limit_mb, fallback, checked)
    assert point['outcome'] in allowed, point
    assert 0 < point['peak_mb'] <= limit_mb
    if point['outcome'] != 'node did not fit':
        assert 'MB' in point['message'] or 'lack of memory' in point['message'], point
    if point['outcome'] == 'simple':
        assert point['captions'] == sweep.CAPTIONS
    assert not any(psutil.pid_exists(pid) for pid in point['left'])
    table, = (table for table in sweep.tables([point]) if table.rows)
    assert str(limit_mb) in table.markdown()


def test_charts_are_drawn(tmp_path):
    pytest.importorskip('matplotlib')
    import cv2
    stages = {'metadata': '0.02 s, RSS 35 MB, 21823 MB available',
              'weights': '0.04 s, RSS 55 MB, 21791 MB available'}
    memory = json.loads(json.dumps(MEMORY))
    memory['mobilenet']['stages'] = memory['simple']['stages'] = stages
    report.draw_memory(memory, str(tmp_path / 'memory.png'))
    point = {'limit_mb': 100, 'fallback': 'simple', 'checks': True, 'outcome': 'FAILURE',
             'peak_mb': 40.0}
    report.draw_sweep(
        [point, {**point, 'fallback': 'none', 'outcome': 'full'}], str(tmp_path / 'sweep.png'))
    for name in ('memory', 'sweep'):
        image = cv2.imread(str(tmp_path / f'{name}.png'))
        assert image.shape[1] > 500 and len(np.unique(image)) > 5
