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

"""The node's end of a model worker: start it, talk to it, notice its end, end it."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
import os
from pathlib import Path
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import numpy as np

from . import protocol
from .caption import Caption
from .settings import CaptionerSettings
from .stages import Stage
from ..images.complaints import standard_error
from ..images.limits import SIZE
from ..images.preprocessing import jpeg_within, squash
from ..memory.memory_utils import is_stopped, oom_kill_count

# The kernel ends a worker with the thread that started it (PR_SET_PDEATHSIG is the thread's, not
# the process's), so one thread that lives as long as the process starts them all.
_starter = ThreadPoolExecutor(1, thread_name_prefix='worker_starter')

LOOK_EVERY_S = 0.1
# For a worker to end its server, which has two seconds for it.
END_SERVER_S = 4.0
HUGE_PAGES = 'glibc.malloc.hugetlb=1'
# It finds what we find, without looking through the site's packages for that once more, nor
# through the folder it happens to be in.
START = (
    'import sys; sys.path[:] = filter(None, dict.fromkeys([*sys.path, *sys.argv[3:]])); '
    'from jetcap_ros.engine.worker import main; main()')


class WorkerError(RuntimeError):
    """
    A worker that could not load its model, or has gone, hangs or makes no sense.

    `kind` is the name of the exception in the worker, or 'crash', 'oom', 'hang' or 'protocol'.
    """

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


class RequestError(ValueError):
    """The worker refused one request, and is well."""


def worker_environment(num_threads: int) -> dict[str, str]:
    """Return the environment of a worker, which decides what its libraries allocate."""
    environment = dict(os.environ)
    environment.setdefault('MALLOC_ARENA_MAX', '2')
    # All weights are read for every word: in pages of 2 MB, of which fewer are looked up, that
    # takes less time. The kernel has to give them on demand, and glibc to be 2.35.
    tunables = environment.get('GLIBC_TUNABLES', '')
    if 'glibc.malloc.hugetlb' not in tunables:
        environment['GLIBC_TUNABLES'] = ':'.join(filter(None, [tunables, HUGE_PAGES]))
    environment.setdefault('PYTORCH_CUDA_ALLOC_CONF', 'max_split_size_mb:512')
    environment.setdefault('PYTHONFAULTHANDLER', '1')
    # NumPy's products are a word's: threads cost more than they bring, and buffers each.
    environment['OPENBLAS_NUM_THREADS'] = '1'
    if num_threads:
        environment['OMP_NUM_THREADS'] = str(num_threads)
    return environment


def worker_command(file_descriptor: int) -> list[str]:
    """Return the command that starts a worker at the other end of a socket."""
    package_parent = str(Path(__file__).resolve().parents[2])
    return [
        sys.executable, '-S', '-c', START, str(file_descriptor), str(os.getpid()),
        *sys.path, package_parent]


class WorkerProcess:
    """
    A model in a process of its own.

    One request at a time; `kill` may be called from any thread at any time.

    :param settings: arguments of LazyModel.
    :param on_stage: called with each stage of loading that has ended.
    :param log: called with a severity and a text.
    """

    def __init__(
            self, settings: dict[str, Any], on_stage: Callable[[Stage], None],
            log: Callable[[str, str], None]) -> None:
        self.name: str = settings['name']
        self.rss_mb = 0.0
        self.stages: list[Stage] = []
        self.facts: dict[str, Any] = {}  # what it says of its checkpoint and libraries
        self.timings: Any = None  # of the runtimes, for the next one like it
        self._image_size = SIZE  # of the frames that it takes
        self._on_stage = on_stage
        self._log = log
        self.stage = 'start'
        self._request = threading.Lock()
        self._reaping = threading.Lock()
        self._oom_kills = oom_kill_count()
        self._end, theirs = protocol.connected_sockets()
        try:
            with standard_error:
                self._process = _starter.submit(
                    subprocess.Popen, worker_command(theirs.fileno()),
                    stdin=subprocess.DEVNULL, stdout=2, pass_fds=[theirs.fileno()],
                    start_new_session=True,
                    env=worker_environment(settings['num_threads'])).result()
        except BaseException:
            self._end.close()
            raise
        finally:
            theirs.close()
        self.pid: int = self._process.pid
        self._settings = settings

    def load(self, timeout: float) -> None:
        """
        Have the model loaded.

        :param timeout: seconds for all stages together.
        :raises WorkerError: if it could not be loaded; the worker has ended then.
        """
        with self._request:
            deadline = time.monotonic() + timeout
            self._send(deadline, 'load', settings=self._settings)
            while True:
                message, _ = self._receive(deadline)
                if message['kind'] == 'begin':
                    self.stage = str(message.get('stage'))
                elif message['kind'] == 'error':
                    text = f'stage {message.get("stage")}: {message.get("text")}'
                    self._end_process()
                    raise WorkerError(str(message.get('error')), text)
                elif message['kind'] == 'ready':
                    self.stage = 'idle'
                    facts = message.get('facts')
                    self.facts = facts if isinstance(facts, dict) else {}
                    self.timings = message.get('timings')
                    self._image_size = int(message.get('image_size') or SIZE)
                    self.rss_mb = float(message.get('rss_mb') or 0)
                    return
                self._note(message)

    def caption(self, image: np.ndarray, settings: CaptionerSettings) -> Caption:
        """
        Caption an (H, W, 3) uint8 RGB image of any size.

        :raises WorkerError: if the worker has gone, hangs (it has ended then) or gave up.
        :raises RequestError: if it refused this request.
        :raises ValueError: if the image is not of that form.
        """
        pixels = (
            jpeg_within(image, settings.server_image_size) if self.name == 'server'
            else squash(image, self._image_size).data.cast('B'))
        with self._request:
            self.stage = 'caption'
            timeout = settings.inference_timeout_s
            deadline = time.monotonic() + timeout
            self._send(
                deadline, 'caption', pixels, beam_size=settings.beam_size,
                max_length=settings.max_length, prompt=settings.prompt,
                # A little sooner, so that a server's silence is told by who waits for it.
                timeout_s=max(timeout / 2, timeout - 0.5))
            while True:
                message, _ = self._receive(deadline)
                if message['kind'] in ('caption', 'error', 'failed'):
                    break
                self._note(message)
            self.stage = 'idle'
            if message['kind'] == 'failed':
                # Its end is left to whoever replaces it, lest the supervisor sees that first and
                # says nothing of the reason.
                raise WorkerError('server', str(message.get('text')))
            if message['kind'] == 'error':
                raise RequestError(str(message.get('text')))
            try:
                self.rss_mb = float(message['rss_mb'])
                score, attention = message['score'], message['attention']
                return Caption(
                    str(message['text']), None if score is None else float(score),
                    message['score_kind'], self.name, float(message['seconds']),
                    None if attention is None else np.array(attention, np.float32))
            except (KeyError, TypeError, ValueError) as error:
                self._end_process()
                raise WorkerError('protocol', f'a caption without sense ({error})') from error

    def failure(self) -> WorkerError | None:
        """Return why the worker can no longer be used, None if it is well; never blocks."""
        if self._process.poll() is not None:
            return self._gone()
        return self._stopped()

    def kill(self) -> None:
        """End the worker now; when this returns its memory is the system's again."""
        self._end_process()
        # A thread that waits for an answer sees the end of the connection.
        if self._request.acquire(timeout=1):
            try:
                self._end.close()
            finally:
                self._request.release()

    def _note(self, message: dict[str, Any]) -> None:
        """Take note of a message that nobody waits for."""
        if message['kind'] == 'stage':
            stage = Stage(str(message.get('name')), *(
                float(message.get(key) or 0) for key in ('seconds', 'rss_mb', 'available_mb')))
            self.stages.append(stage)
            self._on_stage(stage)
        elif message['kind'] == 'warning':
            self._log('warning', str(message.get('text')))

    def _send(
            self, deadline: float, kind: str, pixels: protocol.Pixels = b'',
            **values: Any) -> None:
        try:  # another thread may have ended it, and closed the connection
            self._end.settimeout(max(0.001, deadline - time.monotonic()))
            protocol.send(self._end, kind, pixels, **values)
        except TimeoutError:
            raise self._hangs() from None
        except OSError:
            raise self._gone() from None

    def _receive(self, deadline: float) -> tuple[dict[str, Any], memoryview]:
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise self._hangs()
            try:
                self._end.settimeout(min(left, LOOK_EVERY_S))
                return protocol.receive(self._end)
            except TimeoutError:
                stopped = self._stopped()
                if stopped:
                    raise stopped from None
            except (EOFError, OSError):
                raise self._gone() from None
            except protocol.ProtocolError as error:
                self._end_process()
                raise WorkerError('protocol', f'stage {self.stage}: {error}') from error

    def _end_process(self) -> None:
        with self._reaping:
            if self._process.poll() is None:
                if self.name == 'server':
                    self._end_with_server()
                else:
                    self._process.kill()
                self._process.wait()

    def _end_with_server(self) -> None:
        """Have the worker end its server, then end whatever it has left."""
        self._process.terminate()
        try:
            self._process.wait(timeout=END_SERVER_S)
        except subprocess.TimeoutExpired:
            pass
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # as it should be

    def _hangs(self) -> WorkerError:
        self._end_process()
        return WorkerError('hang', f'the worker hung in stage {self.stage} and was ended')

    def _stopped(self) -> WorkerError | None:
        if not is_stopped(self.pid):
            return None
        self._end_process()
        return WorkerError('hang', f'the worker was stopped in stage {self.stage} and was ended')

    def _gone(self) -> WorkerError:
        """Say how the worker ended."""
        try:
            code = self._process.wait(timeout=2)
        except subprocess.TimeoutExpired:  # it closed its end and lives on
            return self._hangs()
        kills = oom_kill_count()
        if code == -signal.SIGKILL and kills is not None and kills > (self._oom_kills or 0):
            return WorkerError(
                'oom', f'the worker was killed by the kernel for lack of memory in stage '
                f'{self.stage}')
        how = f'exit code {code}'
        if code < 0:
            try:
                how = signal.Signals(-code).name
            except ValueError:
                how = f'signal {-code}'
        return WorkerError('crash', f'the worker died in stage {self.stage} ({how})')
