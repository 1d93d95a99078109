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

"""What happens to the model must not happen to the captioner: crashes, hangs, lack of memory."""

import os
import signal
import threading
import time

from jetcap_ros.engine import recovery, worker_process
from jetcap_ros.engine.captioner import Captioner, CaptionerError
from jetcap_ros.engine.settings import CaptionerSettings
import psutil
import pytest
from waiting import workers

STAGES = ('quantization', 'metadata', 'torch', 'model_class', 'instance', 'weights', 'cleanup')
# A package of this name in front of the real one: the import that started it all.
BROKEN_TORCH = {
    'segfault': 'import ctypes; ctypes.string_at(0)',
    'exit': 'import os; os._exit(7)',
    'missing': 'raise ImportError("libcudart.so.12: cannot open shared object file")',
    'exception': 'raise ValueError("something odd")',
    'memory': 'raise MemoryError("no memory left")',
    'hang': 'import time; time.sleep(3600)'}

# What hits the first worker as soon as it has reported a stage.
STRIKE = """
import os
from jetcap_ros.engine import protocol
send = protocol.send
def strike(node, kind, *args, **values):
    send(node, kind, *args, **values)
    if kind == 'stage' and values['name'] == '{stage}' and not os.path.exists('{struck}'):
        open('{struck}', 'w').close()
        os.kill(os.getpid(), {number})
protocol.send = strike
"""


@pytest.fixture
def settings():
    return CaptionerSettings(reserve_memory_mb=50, recover=False)


@pytest.fixture(autouse=True)
def nothing_is_left():
    yield
    assert not workers()


def fake_torch(monkeypatch, tmp_path, kind):
    package = tmp_path / 'broken'
    package.mkdir()
    (package / 'torch.py').write_text(BROKEN_TORCH[kind])
    monkeypatch.setenv('PYTHONPATH', str(package))


@pytest.mark.parametrize('kind, words', [
    ('segfault', 'SIGSEGV'), ('exit', 'exit code 7'), ('missing', 'libcudart'),
    ('exception', 'something odd'), ('memory', 'ran out of memory'), ('hang', 'hung')])
def test_a_torch_that_does_not_import_leads_to_the_simple_model(
        kind, words, settings, monkeypatch, tmp_path, photograph):
    fake_torch(monkeypatch, tmp_path, kind)
    if kind == 'hang':
        settings.configure_timeout_s = 6  # the simple model has to load in it
    logged = []
    with Captioner(settings, log=lambda severity, text: logged.append(text)) as captioner:
        captioner.configure()
        assert captioner.model_in_use == 'simple'
        assert 'stage torch' in captioner.reason and words in captioner.reason, captioner.reason
        assert captioner.reason in ' '.join(logged)
        assert captioner.caption(photograph).text
    with Captioner(settings) as captioner:
        settings.fallback = 'none'
        with pytest.raises(CaptionerError, match='stage torch') as error:
            captioner.configure()
        assert words in str(error.value)


@pytest.mark.needs('torch')
@pytest.mark.parametrize('number, stage', [
    *((signal.SIGKILL, stage) for stage in STAGES), (signal.SIGSEGV, 'metadata'),
    (signal.SIGBUS, 'weights'), (signal.SIGSTOP, 'metadata'), (signal.SIGSTOP, 'cleanup')])
def test_a_worker_that_dies_while_it_loads(
        number, stage, settings, monkeypatch, tmp_path, photograph):
    # From inside: struck from here, it may be through with the next stages before it is hit.
    strike = STRIKE.format(
        stage=stage, number=int(number), struck=str(tmp_path / 'struck'))
    monkeypatch.setattr(
        worker_process, 'START',
        worker_process.START.replace('main()', f'exec({strike!r}); main()'))
    with Captioner(settings) as captioner:
        captioner.configure()
        assert captioner.model_in_use == 'simple'
        assert 'the worker' in captioner.reason
        assert captioner.caption(photograph).model == 'simple'
    assert (tmp_path / 'struck').exists()


def test_a_module_in_the_folder_one_happens_to_be_in_breaks_no_worker(
        settings, monkeypatch, tmp_path, photograph):
    for name in ('socket.py', 'numpy.py'):
        (tmp_path / name).write_text('raise ImportError("not the one wanted")')
    monkeypatch.chdir(tmp_path)
    settings.model = 'simple'
    with Captioner(settings) as captioner:
        captioner.configure()
        assert captioner.caption(photograph).model == 'simple'


@pytest.mark.needs('torch')
@pytest.mark.parametrize('when', ['idle', 'caption'])
@pytest.mark.parametrize('number', [
    signal.SIGSEGV, signal.SIGKILL, signal.SIGSTOP, signal.SIGBUS])
def test_a_worker_that_dies_at_work_is_replaced(number, when, settings, photograph):
    with Captioner(settings) as captioner:
        captioner.configure()
        assert captioner.model_in_use == 'mobilenet'
        pid = captioner.worker_pid
        if when == 'idle':
            os.kill(pid, number)
        else:
            threading.Timer(0.02, os.kill, (pid, number)).start()
        deadline = time.monotonic() + 20
        while captioner.worker_pid == pid:
            caption = captioner.caption(photograph)
            assert caption.text
            assert time.monotonic() < deadline
        assert captioner.caption(photograph).model == 'simple'
        assert 'the worker' in captioner.reason
        assert captioner.restarts == 1


@pytest.mark.needs('torch')
def test_the_full_model_returns_when_it_can(monkeypatch, photograph):
    monkeypatch.setattr(recovery, 'FIRST_RETRY_S', 0.5)
    logged = []
    settings = CaptionerSettings(reserve_memory_mb=50)
    with Captioner(settings, log=lambda severity, text: logged.append(text)) as captioner:
        captioner.configure()
        os.kill(captioner.worker_pid, signal.SIGKILL)
        models = []
        deadline = time.monotonic() + 60
        while models[-1:] != ['mobilenet'] or 'simple' not in models:
            models.append(captioner.caption(photograph).model)
            assert time.monotonic() < deadline, logged
            time.sleep(0.1)  # with which it loads
        # The simple model captioned all the while the full one was loading.
        assert models.count('simple') > 3
        assert captioner.reason == '' and not captioner.degraded
        assert any('captions again' in text for text in logged)
        deadline = time.monotonic() + 5
        while len(workers()) > 1:
            assert time.monotonic() < deadline


@pytest.mark.needs('torch')
def test_without_a_fallback_the_loss_is_said_and_mended(monkeypatch, photograph):
    monkeypatch.setattr(recovery, 'FIRST_RETRY_S', 0.5)
    settings = CaptionerSettings(reserve_memory_mb=50, fallback='none')
    with Captioner(settings) as captioner:
        captioner.configure()
        os.kill(captioner.worker_pid, signal.SIGKILL)
        with pytest.raises(CaptionerError, match='SIGKILL'):
            for _ in range(100):
                captioner.caption(photograph)
        deadline = time.monotonic() + 60
        while captioner.model_in_use != 'mobilenet':
            time.sleep(0.1)
            assert time.monotonic() < deadline
        assert captioner.caption(photograph).model == 'mobilenet'


def test_the_simple_model_is_restarted(settings, photograph):
    settings.model = 'simple'
    with Captioner(settings) as captioner:
        captioner.configure()
        for _ in range(3):
            os.kill(captioner.worker_pid, signal.SIGKILL)
            time.sleep(0.05)
            assert captioner.caption(photograph).text
        assert captioner.restarts == 3


@pytest.mark.needs('torch')
def test_a_worker_that_hangs_at_work_is_ended(settings, photograph, monkeypatch):
    settings.inference_timeout_s = 0.001  # no caption is that fast
    with Captioner(settings) as captioner:
        captioner.configure()
        pid = captioner.worker_pid
        with pytest.raises(CaptionerError, match='hung in stage caption'):
            captioner.caption(photograph)
        assert not psutil.pid_exists(pid)
        settings.inference_timeout_s = 10
        assert captioner.caption(photograph).model == 'simple'


def test_too_little_memory_is_said_with_numbers(settings, photograph):
    settings.min_available_memory_mb = 10_000_000
    with Captioner(settings) as captioner:
        captioner.configure()
        assert captioner.model_in_use == 'simple'
        assert '10000000' in captioner.reason.replace(',', '')
    settings.fallback = 'none'
    with Captioner(settings) as captioner:
        with pytest.raises(CaptionerError, match='10000000'):
            captioner.configure()
    settings.fallback, settings.reserve_memory_mb = 'simple', 10_000_000
    with Captioner(settings) as captioner:
        with pytest.raises(CaptionerError, match='simple model: .*10000'):
            captioner.configure()


@pytest.mark.needs('torch')
def test_memory_that_runs_low_ends_the_full_model_first(settings, photograph):
    with Captioner(settings) as captioner:
        captioner.configure()
        settings.reserve_memory_mb = 10_000_000
        deadline = time.monotonic() + 10
        while captioner.model_in_use == 'mobilenet':
            time.sleep(0.05)
            assert time.monotonic() < deadline
        assert 'reserve_memory_mb' in captioner.reason


@pytest.mark.needs('torch')
@pytest.mark.parametrize('stage', ['quantization', 'torch', 'cleanup'])
def test_closing_ends_a_load_at_once(stage, settings):
    reached = threading.Event()
    captioner = Captioner(
        settings, on_stage=lambda report: report.name == stage and reached.set())
    failures = []

    def configure():
        try:
            captioner.configure()
        except CaptionerError as error:
            failures.append(error)

    thread = threading.Thread(target=configure)
    thread.start()
    assert reached.wait(30)
    captioner.close()
    thread.join(timeout=5)
    assert not thread.is_alive() and failures
    assert not workers()


def test_the_worker_goes_before_the_node_when_memory_runs_out(settings):
    settings.model = 'simple'
    with Captioner(settings) as captioner:
        captioner.configure()

        def score(pid):
            with open(f'/proc/{pid}/oom_score_adj', encoding='ascii') as file:
                return int(file.read())

        assert score(captioner.worker_pid) > score(os.getpid())
