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

"""The rest of the robot: starts the node and a camera, drives the one, hears what it says."""

from collections import deque
from collections.abc import Callable, Iterator
import contextlib
import json
import os
from pathlib import Path
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any

from .pictures import Picture
from ..benchmark.processes import shares_mb
from ..node.client import NodeClient
from ..node.fast_dds import room_for_frames

RATE_HZ = 5.0  # of the camera
SHARED_MB = 8  # for a few of its frames
START_S = 60  # for a process to start and be found
TRANSITION_S = 300  # the node bounds its own configure; this is for a node that hangs
END_S = 15  # for the camera to end by itself
LAST_WORDS_S = 0.2  # what a node logs comes by another way than what it answers
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # that ask for the end


class RobotError(RuntimeError):
    """Something of the robot failed; the message says what."""


class Robot(NodeClient):
    """
    A captioner node and a camera, each in a process of its own; a context manager.

    Nothing of them is left when it is left, whatever the reason.

    :param parameters: of the node.
    :param log: called with each line that the node logs, from another thread.
    """

    def __init__(self, parameters: dict[str, Any], log: Callable[[str], None]) -> None:
        # As in ~/caption_info.
        self.captions: deque[dict[str, Any]] = deque()
        self._log = log
        self._last_error = ''
        self._folder = tempfile.TemporaryDirectory(prefix='jetcap-demo-')
        # Each picture's captions are timed, the repeated ones too.
        super().__init__({'still_threshold': 0.0, **parameters}, on_line=self._hear, environment={
            **os.environ, 'RCUTILS_CONSOLE_OUTPUT_FORMAT': '{severity}: {message}',
            'RCUTILS_COLORIZED_OUTPUT': '0'})
        self._camera = subprocess.Popen(
            [sys.executable, '-m', 'jetcap_ros.demo.camera', '--rate', str(RATE_HZ)],
            stdin=subprocess.PIPE, text=True, start_new_session=True,
            env={**os.environ, **room_for_frames(Path(self._folder.name), SHARED_MB)})
        self.listen(
            'caption_info', lambda message: self.captions.append(json.loads(message.data)))

    def close(self) -> None:
        """End the camera and the node."""
        # A second Ctrl-C must not interrupt the tidying up.
        previous = {number: signal.signal(number, signal.SIG_IGN) for number in SIGNALS}
        try:
            try:
                self._camera.communicate(timeout=END_S)  # its input ends, and so does it
            except subprocess.TimeoutExpired:
                self._camera.kill()
                self._camera.wait()
            super().close()
            self._folder.cleanup()
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def start(self) -> None:
        """Wait until the node answers."""
        self._wait(lambda: self.wait_for_start(0), START_S, 'the node does not answer')

    def transition(self, name: str) -> None:
        """Have the node configure, activate, deactivate or clean up (`cleanup`)."""
        future = self.send_change(name)
        self._wait(future.done, TRANSITION_S, f'{name} does not end')
        answer = future.result()
        if not (answer and answer.success):
            time.sleep(LAST_WORDS_S)
            raise RobotError(self._last_error or f'{name} failed')

    def show(self, picture: Picture, times: int, timeout: float) -> Iterator[dict[str, Any]]:
        """
        Hold a picture before the camera, and yield what the node says of it, as it comes.

        :param times: how many captions to wait for.
        :param timeout: of each, seconds.
        """
        assert self._camera.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # a camera that died is told of below
            self._camera.stdin.write(json.dumps(str(picture.path)) + '\n')
            self._camera.stdin.flush()
        self.captions.clear()
        while times:
            self._wait(
                lambda: bool(self.captions), timeout, f'{picture.name} got no caption',
                lambda: self.summary)
            info = self.captions.popleft()
            # Of the picture before, a caption may still have been on its way.
            if info['frame_id'] == picture.name:
                times -= 1
                yield info

    def wait_for_diagnostics(self) -> dict[str, str]:
        """Return what the node says of itself from now on."""
        seen = len(self.statuses)
        # The next one may have been on its way.
        self._wait(lambda: len(self.statuses) >= seen + 2, START_S, 'no diagnostics of the node')
        return {**self.diagnostics, 'message': self.summary}

    def memory(self) -> str:
        """Return what the node and its model occupy now, memory that they share divided."""
        node, *workers = self.pids()
        shares = shares_mb([node, *workers])
        text = f'node {shares.get(node, 0):.0f} MB'
        if workers:
            text += f', model {sum(shares.get(pid, 0) for pid in workers):.0f} MB'
        return text

    def _wait(
            self, condition: Callable[[], bool], seconds: float, otherwise: str,
            why: Callable[[], str] = lambda: '') -> None:
        """Wait until a condition holds, as long as both processes live."""
        processes = {'node': self.process, 'camera': self._camera}

        def dead() -> list[str]:
            return [name for name, process in processes.items() if process.poll() is not None]

        self.wait_for(lambda: condition() or dead(), seconds)
        if condition():
            return
        for name in dead():
            time.sleep(LAST_WORDS_S)
            raise RobotError(f'the {name} ended with code {processes[name].returncode}')
        reason = why()
        raise RobotError(f'{otherwise} within {seconds:.0f} s' + (f': {reason}' if reason else ''))

    def _hear(self, line: str) -> None:
        if line.startswith('ERROR: '):
            self._last_error = line[len('ERROR: '):]
        self._log(line.removeprefix('INFO: '))
