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

"""A real llama-server, with a model of random weights; `make test-server` builds it."""

import os
from pathlib import Path
import re
import signal
import subprocess
import sys
import tempfile
import time

from jetcap_ros.benchmark.cgroup import CgroupUnavailable, MemoryCgroup
from jetcap_ros.engine import recovery
from jetcap_ros.engine.captioner import Captioner, CaptionerError
from jetcap_ros.engine.settings import CaptionerSettings
import numpy as np
import psutil
import pytest
from server_swaps import sleep_wake_and_make_way
from tiny_vlm import projector, write_tiny_vlm
from waiting import wait_for

BINARY = os.environ.get('LLAMA_SERVER', '')
pytestmark = pytest.mark.skipif(
    not BINARY, reason='LLAMA_SERVER does not name a llama-server: see make test-server')
FRAMES = 200


@pytest.fixture(autouse=True)
def nothing_is_left():
    yield
    assert not [child.cmdline() for child in psutil.Process().children(recursive=True)
                if child.status() != psutil.STATUS_ZOMBIE]


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    return write_tiny_vlm(tmp_path_factory.mktemp('vlm'))


@pytest.fixture
def settings(files):
    return CaptionerSettings(
        model='server', checkpoint=files[0], projector=files[1], server_binary=BINARY,
        reserve_memory_mb=50, max_length=4, num_threads=1, inference_timeout_s=60)


def frames(count):
    return np.random.default_rng(0).integers(0, 256, (count, 48, 64, 3), np.uint8)


def test_it_loads_captions_repeats_itself_and_ends(settings, photograph):
    with Captioner(settings) as captioner:
        captioner.configure()
        assert [stage.name for stage in captioner.stages] == [
            'server_files', 'server_start', 'vision', 'warm_up'], captioner.reason
        first = captioner.caption(photograph)
        assert first.model == 'server' and first.text and 0 < first.score <= 1
        captioner.caption(photograph[::-1])
        again = captioner.caption(photograph)
        assert (again.text, again.score) == (first.text, first.score)
        server = psutil.Process(captioner.facts['server pid'])
        assert not server.net_connections(kind='inet')
        assert captioner.worker_rss_mb > server.memory_info().rss / 2**20 - 5
        started = time.monotonic()
    assert time.monotonic() - started < 4 and not server.is_running()


@pytest.mark.parametrize('number, words', [
    (signal.SIGKILL, 'died of SIGKILL'), (signal.SIGSTOP, 'no answer within')])
def test_it_dies_or_stops_and_comes_back(settings, photograph, monkeypatch, number, words):
    monkeypatch.setattr(recovery, 'FIRST_RETRY_S', 1.0)
    with Captioner(settings) as captioner:
        captioner.configure()
        captioner.settings.inference_timeout_s = 5 if number == signal.SIGSTOP else 60
        os.kill(captioner.facts['server pid'], number)
        assert captioner.caption(photograph).model == 'simple'
        assert words in captioner.reason
        captioner.settings.inference_timeout_s = 60
        wait_for(lambda: captioner.model_in_use == 'server', 60)
        assert captioner.caption(photograph).model == 'server'


def test_it_sleeps_wakes_and_makes_way_for_another_model(settings, photograph):
    settings.sleep_after_s = 0.5
    with Captioner(settings) as captioner:
        captioner.configure()
        said = captioner.caption(photograph).text
        sleep_wake_and_make_way(captioner, photograph, timeout=60)
        assert captioner.caption(photograph).text == said
        assert captioner.restarts == 0 and not captioner.reason


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_of_a_node(settings, photograph, number):
    pytest.importorskip('rclpy')
    from node_process import image_message, NodeProcess
    parameters = {name: getattr(settings, name) for name in (
        'model', 'checkpoint', 'projector', 'server_binary', 'max_length', 'num_threads')}
    with tempfile.TemporaryDirectory() as folder, NodeProcess(
            {**parameters, 'reserve_memory_mb': 50.0, 'inference_timeout_s': 60.0,
             'max_rate_hz': 0.0}, environment={'TMPDIR': folder}) as node:
        assert node.change('configure') and node.change('activate')
        info = node.next_caption(node.camera(), image_message(photograph[::2, ::2].copy()), 60)
        assert info['model'] == 'server' and info['caption']
        family = node.workers()
        assert 'llama-server' in [process.name() for process in family] and len(family) == 2
        sockets = [path.name for path in Path(folder).glob('*/llama.sock')]
        assert sockets == ['llama.sock']
        node.end(number)
        assert not psutil.wait_procs(family, timeout=10)[1]
        if number == signal.SIGINT:
            assert not list(Path(folder).glob('*/llama.sock'))


def test_one_without_a_model_is_refused(settings):
    settings.server_command = BINARY  # it is a router then, which answers 200
    settings.fallback = 'none'
    with Captioner(settings) as captioner:
        with pytest.raises(CaptionerError, match='stage vision') as caught:
            captioner.configure()
        assert len(str(caught.value)) < 600


def test_memory_of_each_flag(files):
    result = subprocess.run(
        [sys.executable, '-m', 'jetcap_ros.benchmark.server_flags', *files, '--server-binary',
         BINARY, '--pictures', '3', '--threads', '1'], capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr
    rows = {cells[1]: [float(cell) for cell in cells[2:5]] for line in result.stdout.splitlines()
            if len(cells := [cell.strip() for cell in line.split('|')]) == 6
            and cells[2][:1].isdigit()}
    assert {'nothing', '-c 2048', '-np 1', '-b -ub', '--cache-ram 0', 'all'} <= set(rows)
    assert rows['nothing'][1] < rows['all'][1]
    assert all(row[1] > rows['nothing'][1] - 10 for row in rows.values()), rows


def test_files_that_do_not_fit_are_told_in_its_words(settings, tmp_path):
    wrong = tmp_path / 'wide-mmproj.gguf'
    wrong.write_bytes(projector(width=128))
    settings.projector = str(wrong)
    settings.fallback = 'none'
    with Captioner(settings) as captioner:
        with pytest.raises(CaptionerError, match='stage server_start: .*mismatch') as caught:
            captioner.configure()
        assert len(str(caught.value)) < 600
    settings.projector = ''
    settings.server_command = f'{BINARY} -m {settings.checkpoint}'
    with Captioner(settings) as captioner:
        with pytest.raises(CaptionerError, match='stage vision: .*cannot see'):
            captioner.configure()
    settings.server_command += f' --mmproj {tmp_path}/wide-mmproj.gguf --no-such-flag'
    with Captioner(settings) as captioner:
        with pytest.raises(CaptionerError, match='no-such-flag'):
            captioner.configure()


def test_a_context_that_is_too_small_is_told(settings, files, photograph):
    settings.server_command = f'{BINARY} -m {files[0]} --mmproj {files[1]} -c 256'
    settings.recover = False
    settings.prompt = 'x ' * 500
    with Captioner(settings) as captioner:
        captioner.configure()
        assert captioner.caption(photograph).model == 'simple'
        assert 'the server answers 400' in captioner.reason and 'context' in captioner.reason


def test_memory_that_runs_out_costs_the_server_alone(settings, photograph):
    settings.recover = False
    try:
        group = MemoryCgroup(600)
    except CgroupUnavailable as error:
        pytest.skip(f'no real cgroup here: {error}')
    with group, Captioner(settings) as captioner:
        captioner.configure()
        server = captioner.facts['server pid']
        (group.path / 'cgroup.procs').write_text(str(server))
        group.set_limit(4)
        assert captioner.caption(photograph).model == 'simple'
        assert re.search('died of SIGKILL|lack of memory', captioner.reason)


def test_memory_is_flat(settings):
    with Captioner(settings) as captioner:
        captioner.configure()
        sizes = []
        for frame in frames(FRAMES):
            assert captioner.caption(frame).model == 'server', captioner.reason
            sizes.append(captioner.worker_rss_mb)
    quarter = FRAMES // 4
    assert max(sizes[-quarter:]) < max(sizes[:quarter]) + 10, sizes[::quarter]
