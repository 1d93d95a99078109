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

"""Test a server of our own: how it starts, what it dies of, and that it never outlives us."""

import os
from pathlib import Path
import shlex
import signal
import stat
import subprocess
import sys
import time

from fake_server import CAPTION, FakeServer
from gguf_files import write_model
from jetcap_ros.models.errors import CheckpointError
from jetcap_ros.models.server.chat import grey_picture
from jetcap_ros.models.server.errors import ServerError
from jetcap_ros.models.server.model import ServerCaptioningModel, ServerOptions
from jetcap_ros.models.server.process import make_socket_folder, OOM_SCORE_ADJ, SOCKET_NAME
import psutil
import pytest
from waiting import wait_for

PROGRAM = Path(__file__).with_name('fake_server.py')
PICTURE = grey_picture(16)


@pytest.fixture()
def command(tmp_path):
    """Return the command of a fake server with real files."""
    model, projector = write_model(tmp_path)
    return shlex.join([
        sys.executable, '-S', str(PROGRAM), '-m', model, '--mmproj', projector])


@pytest.fixture()
def load():
    """Return what makes a model of options and takes it through its stages."""
    models = []

    def load_options(**options):
        model = ServerCaptioningModel(ServerOptions(**{'start_timeout_s': 20, **options}))
        models.append(model)
        for stage in (model.read_files, model.start, model.look, model.warm_up):
            stage()
        return model
    yield load_options
    for model in models:
        model.close()


def test_it_starts_captions_and_ends(command, load, connections):
    model = load(command=command + ' --ready-after 0.3')
    caption = model.caption(PICTURE, 'What is it?', 20, 5.0)
    assert (caption.text, round(caption.score, 3)) == (CAPTION, 0.472)
    assert model.rss_mb > 5 and model.need_mb > 100
    facts = model.facts()
    process = psutil.Process(facts['server pid'])
    path = Path(facts['server'].removeprefix('unix:'))
    folder = path.parent.stat()
    assert stat.S_IMODE(folder.st_mode) == 0o700 and folder.st_uid == os.getuid()
    # No port: nobody but this user can reach it.
    assert not connections(process.pid, 'inet')
    score = Path(f'/proc/{process.pid}/oom_score_adj').read_text()
    assert int(score) == OOM_SCORE_ADJ
    started = time.monotonic()
    model.close()
    assert time.monotonic() - started < 1.5
    assert not process.is_running() and not path.parent.exists()


@pytest.mark.parametrize('options, words', [
    ('--at-start SIGILL', 'illegal instruction.*--no-repack'),
    ('--at-start SIGSEGV', 'died of SIGSEGV'),
    ("--at-start 'E mismatch between text model (n_embd = 576) and mmproj (n_embd = 960)'",
     r'exit code 1: mismatch between text model \(n_embd = 576\) and mmproj'),
    ("--at-start 'couldn_t bind HTTP server socket'", 'exit code 1: couldn_t bind'),
    ('--play blind', 'cannot see'), ('--play error400', 'exceeds the available context size'),
    ('--play dies', 'ended with exit code 3'), ('--play SIGKILL', 'died of SIGKILL|lack of memory'),
    ('--play hangs_up', 'without an answer')])
def test_what_it_dies_of_is_told(command, load, options, words):
    with pytest.raises(ServerError, match=words):
        load(command=f'{command} {options}')


def test_a_server_that_is_never_ready(command, load):
    with pytest.raises(ServerError, match='not ready within 3 s: /health answers 503'):
        load(command=command + ' --play loads_forever', start_timeout_s=3.0)


def test_one_that_dies_at_work(command, load):
    model = load(command=command + ' --play dies --good-answers 2')
    assert model.caption(PICTURE, '', 20, 5.0).text == CAPTION
    with pytest.raises(ServerError, match='ended with exit code 3'):
        model.caption(PICTURE, '', 20, 5.0)


def test_one_that_hangs_at_work_and_does_not_listen_to_sigterm(command, load):
    model = load(command=command + ' --ignore-sigterm --play SIGSTOP --good-answers 1')
    pid = model.facts()['server pid']
    with pytest.raises(ServerError, match='no answer within 0.3 s'):
        model.caption(PICTURE, '', 20, 0.3)
    started = time.monotonic()
    model.close()
    assert 1.5 < time.monotonic() - started < 4  # SIGTERM, two seconds, SIGKILL
    assert not psutil.pid_exists(pid)


def test_a_server_at_an_address_of_its_own(command, load):
    with FakeServer('') as other:  # the port is taken by somebody else
        with pytest.raises(ServerError, match='in use'):
            load(command=f'{command} --host 127.0.0.1 --port {other.url.split(":")[-1]}',
                 url=other.url)
        port = other.url.split(':')[-1]
    model = load(command=f'{command} --host 127.0.0.1 --port {port}',
                 url=f'http://127.0.0.1:{port}')
    assert model.caption(PICTURE, '', 20, 5.0).text == CAPTION


def test_another_ones_server_is_used_and_left_alone(load):
    with FakeServer('', kind='ollama', models=('moondream:latest',), ready_after=0.0) as server:
        model = load(url=server.url, model='moondream')
        assert model.caption(PICTURE, '', 20, 5.0).text == CAPTION
        assert (model.need_mb, model.rss_mb) == (0, 0)
        model.close()
        assert server.requests[-1][0] == '/api/generate'
    with pytest.raises(ServerError, match='nobody answers there'):
        load(url=server.url)


def test_what_is_missing_is_said_before_anything_starts(tmp_path, load):
    model, projector = write_model(tmp_path)

    def refusal(checkpoint='', checksum='', **options):
        with pytest.raises((ServerError, CheckpointError)) as caught:
            ServerCaptioningModel(ServerOptions(**options), checkpoint, checksum).read_files()
        return str(caught.value)

    assert 'needs server_url, server_command' in refusal(model)
    assert 'server_url' in refusal(url='nowhere')
    assert 'no such program' in refusal(model, binary='/no/such/program', projector=projector)
    assert 'no such program' in refusal(command=f'no-such-program -m {model}')
    assert 'No such file' in refusal('/none.gguf', projector=projector)
    assert 'No such file' in refusal(model, projector='/none.gguf')
    assert 'not a model' in refusal(projector, projector=model)
    assert 'SHA-256' in refusal(model, '0' * 64, projector=projector)


def test_it_dies_with_its_worker(command, tmp_path):
    script = (
        'import sys, time\n'
        'from jetcap_ros.models.server.model import ServerCaptioningModel, ServerOptions\n'
        'model = ServerCaptioningModel(ServerOptions(command=sys.argv[1]))\n'
        'model.read_files(); model.start()\n'
        'print(model.facts()["server pid"], model.facts()["server"], flush=True)\n'
        'time.sleep(60)\n')
    with subprocess.Popen(
            [sys.executable, '-c', script, command], stdout=subprocess.PIPE, text=True) as worker:
        pid, url = worker.stdout.readline().split()
        assert psutil.pid_exists(int(pid))
        worker.send_signal(signal.SIGKILL)
        worker.wait()
    wait_for(lambda: not psutil.pid_exists(int(pid))
             or psutil.Process(int(pid)).status() == psutil.STATUS_ZOMBIE, timeout=10)
    # The folder that was left behind goes when the next server starts; one in use stays.
    left = Path(url.removeprefix('unix:'))
    assert left.exists()

    def is_removed():
        make_socket_folder().rmdir()
        return not left.parent.exists()

    wait_for(is_removed, timeout=10)  # threads of a zombie may still hold its sockets
    own = make_socket_folder()
    with FakeServer(f'unix:{own}/{SOCKET_NAME}'):
        make_socket_folder().rmdir()
        assert own.exists()
    make_socket_folder().rmdir()
    assert not own.exists()
