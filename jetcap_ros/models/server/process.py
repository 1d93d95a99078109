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
A server of our own: a process that is started here, spoken to alone, and ended with us.

It listens on a Unix socket in a folder that only the user can enter, is ended by the kernel when
this process ends, and offers itself to the OOM killer before it.
"""

from collections import deque
import ctypes
import os
from pathlib import Path
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

from .address import Address, MAX_SOCKET_PATH
from .errors import printable, ServerError
from .http_client import NotListening, request
from ...memory.memory_utils import oom_kill_count, process_memory

PR_SET_PDEATHSIG = 1
OOM_SCORE_ADJ = 800  # the worker has 600
END_S = 2.0  # from SIGTERM to SIGKILL
LOOK_EVERY_S = 0.05
KEPT_LINES = 60
_REASON = re.compile(
    r'error|fail|mismatch|unsupported|unknown|invalid|cannot|could not|couldn|unable|exceed|'
    r'out of memory|no such', re.IGNORECASE)
# What a line of llama-server's log begins with: a time, a letter for its severity, a function.
_LOG_PREFIX = re.compile(r'^(?:[\d.]+ )?(?:[DIWE] )?(?:(?:srv|slot|main|que|cmn|llama)\s+\w*:\s*)?')
_GENERAL = re.compile(r'exiting due to|failed to load model$|see .*--help', re.IGNORECASE)
_PREFIX = 'jetcap-server-'
SOCKET_NAME = 'llama.sock'  # llama-server knows a Unix socket by the end of its name
_libc = ctypes.CDLL(None)


class ServerProcess:
    """
    A server that was started by a command and answers on a Unix socket, or at a given address.

    :param command: program and arguments; run as they are, without a shell.
    :param address: where it will listen.
    :raises ServerError: if it cannot be started.
    """

    def __init__(self, command: list[str], address: Address) -> None:
        self.address = address
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._oom_kills = oom_kill_count()
        self._started = time.monotonic()
        worker = os.getpid()

        def prepare() -> None:
            _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != worker:
                os._exit(0)
            try:
                with open('/proc/self/oom_score_adj', 'w', encoding='ascii') as file:
                    file.write(str(OOM_SCORE_ADJ))
            except OSError:
                pass  # the order of killing is then the kernel's

        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, preexec_fn=prepare)
        except OSError as error:
            raise ServerError(
                f'cannot start {printable(command[0])}: {error.strerror or error}') from error
        self.pid = self._process.pid
        self._reader = threading.Thread(target=self._read, name='server_log', daemon=True)
        self._reader.start()

    @property
    def rss_mb(self) -> float:
        """Return its resident memory, 0 if it has ended; in MB."""
        try:
            return process_memory(self.pid).rss_mb
        except ProcessLookupError:
            return 0.0

    def wait_until_ready(self, timeout: float) -> None:
        """
        Wait until it answers 200 on /health: first nobody listens, then it loads (503).

        :param timeout: seconds since it was started.
        :raises ServerError: if it ends before, or is not ready in time; in its words.
        """
        deadline = self._started + timeout
        last = 'it does not listen'
        while (left := deadline - time.monotonic()) > 0:
            self.check()
            try:
                status = request(self.address, 'GET', '/health', timeout=max(left, 0.1)).status
                if status == 200:
                    return
                last = f'/health answers {status}'
            except NotListening:
                pass
            except ServerError as error:
                last = str(error)
            time.sleep(LOOK_EVERY_S)
        raise ServerError(f'the server was not ready within {timeout:.0f} s: {last}')

    def check(self) -> None:
        """Raise ServerError with what it died of, if it has ended."""
        if self._process.poll() is not None:
            raise ServerError(self._obituary(self._process.returncode))

    def failed(self, error: ServerError) -> ServerError:
        """Return the better reason for an error of a request: that the server has died."""
        try:
            # The end of its connections may be seen before its own.
            self._process.wait(timeout=0.2)
        except subprocess.TimeoutExpired:
            return error
        return ServerError(self._obituary(self._process.returncode))

    def close(self) -> None:
        """End it; nobody may be connected to it any more, or SIGTERM would wait for that."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(timeout=END_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def _read(self) -> None:
        # Always to the end: a server would stand still at a full pipe.
        assert self._process.stdout is not None
        while line := self._process.stdout.readline(4096):
            text = printable(line.decode('utf-8', 'replace'))
            if text:
                self._lines.append(text)

    def _obituary(self, code: int) -> str:
        self._reader.join(timeout=1)
        if code >= 0:
            return f'the server ended with exit code {code}{self._last_words()}'
        name = signal.Signals(-code).name if -code in signal.valid_signals() else f'signal {-code}'
        if -code == signal.SIGILL:
            return (
                'the server died of an illegal instruction (SIGILL): it was built for another '
                'processor; build it on this one, or try --no-repack in server_command')
        kills = oom_kill_count()
        if -code == signal.SIGKILL and kills is not None and kills > (self._oom_kills or 0):
            return 'the server was killed by the kernel for lack of memory'
        return f'the server died of {name}{self._last_words()}'

    def _last_words(self) -> str:
        """Return the line that says best why it ended, with a colon before it."""
        lines = [_LOG_PREFIX.sub('', line) for line in self._lines]
        reasons = [line for line in lines if _REASON.search(line)]
        particular = [line for line in reasons if not _GENERAL.search(line)]
        for found in (particular, reasons, lines):
            if found:
                return f': {found[0] if found is not lines else found[-1]}'
        return ''


def make_socket_folder() -> Path:
    """
    Return a new folder for a socket, which only this user can enter.

    What processes left behind that were killed is removed.
    """
    for parent in (tempfile.gettempdir(), '/tmp'):
        if len(parent) + 60 < MAX_SOCKET_PATH:
            break
    for old in Path(parent).glob(f'{_PREFIX}*/{SOCKET_NAME}'):
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(0.1)
            try:
                if old.lstat().st_uid == os.getuid():
                    probe.connect(str(old))
            except ConnectionRefusedError:
                shutil.rmtree(old.parent, ignore_errors=True)
            except OSError:
                pass  # it lives, or is none of ours
    return Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
