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

import collections
from collections.abc import Callable, Iterator
import json
import os
from pathlib import Path
import signal
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
import rclpy
from rclpy.executors import SingleThreadedExecutor
from std_msgs.msg import String

from ..benchmark.processes import shares_mb, tree
from ..node.fast_dds import room_for_frames

RATE_HZ = 5.0  # of the camera
SHARED_MB = 8  # for a few of its frames
START_S = 60  # for a process to start and be found
TRANSITION_S = 300  # the node bounds its own configure; this is for a node that hangs
END_S = 15  # for a process to end by itself
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # that ask for the end


class RobotError(RuntimeError):
    """Something of the robot failed; the message says what."""


class Robot:
    """
    A captioner node and a camera, each in a process of its own; a context manager.

    Nothing of them is left when it is left, whatever the reason.

    :param parameters: of the node.
    :param log: called with each line that the node logs, from another thread.
    """

    def __init__(self, parameters: dict[str, Any], log: Callable[[str], None]) -> None:
        # As in ~/caption_info.
        self.captions: collections.deque[dict[str, Any]] = collections.deque()
        self.diagnostics: dict[str, str] = {}  # the newest
        self._parameters = parameters
        self._log = log
        self._last_error = ''
        self._diagnosed = 0
        self._node: subprocess.Popen | None = None
        self._camera: subprocess.Popen | None = None
        self._reader: threading.Thread | None = None
        self._folder = tempfile.TemporaryDirectory(prefix='jetcap-demo-')
        self._context = rclpy.Context()
        rclpy.init(context=self._context)
        self._ear = rclpy.create_node('demo', context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._ear)
        self._change_state = self._ear.create_client(ChangeState, '/captioner/change_state')
        self._ear.create_subscription(
            String, '/captioner/caption_info',
            lambda message: self.captions.append(json.loads(message.data)), 10)
        self._ear.create_subscription(DiagnosticArray, '/diagnostics', self._diagnose, 10)

    def __enter__(self) -> 'Robot':
        return self

    def __exit__(self, *exc_info) -> None:
        # A second Ctrl-C must not interrupt the tidying up.
        previous = {number: signal.signal(number, signal.SIG_IGN) for number in SIGNALS}
        try:
            if self._camera is not None:
                self._camera.stdin.close()
                _wait_or_kill(self._camera)
            self.end()
            self._executor.shutdown(timeout_sec=1)
            self._ear.destroy_node()
            rclpy.try_shutdown(context=self._context)
            self._folder.cleanup()
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def start(self) -> None:
        """Start both, and wait until the node answers."""
        command = [sys.executable, '-m', 'jetcap_ros.node.captioner_node', '--ros-args']
        for name, value in self._parameters.items():
            command += ['-p', f'{name}:={json.dumps(value)}']
        self._node = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, errors='replace', start_new_session=True, env={
                **os.environ, 'RCUTILS_CONSOLE_OUTPUT_FORMAT': '{severity}: {message}',
                'RCUTILS_COLORIZED_OUTPUT': '0'})
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()
        self._camera = subprocess.Popen(
            [sys.executable, '-m', 'jetcap_ros.demo.camera', '--rate', str(RATE_HZ)],
            stdin=subprocess.PIPE, text=True, start_new_session=True,
            env={**os.environ, **room_for_frames(Path(self._folder.name), SHARED_MB)})
        self._wait(self._change_state.service_is_ready, START_S, 'the node does not answer')

    def configure(self) -> None:
        """Have the node load its model."""
        self._change(Transition.TRANSITION_CONFIGURE, 'configure')

    def activate(self) -> None:
        """Have the node caption."""
        self._change(Transition.TRANSITION_ACTIVATE, 'activate')

    def show(self, picture: Path, times: int, timeout: float) -> Iterator[dict[str, Any]]:
        """
        Hold a picture before the camera, and yield what the node says of it, as it comes.

        :param times: how many captions to wait for.
        :param timeout: of each, seconds.
        """
        self._camera.stdin.write(f'{picture}\n')
        self._camera.stdin.flush()
        self.captions.clear()
        while times:
            self._wait(
                lambda: self.captions, timeout, f'{picture.name} got no caption',
                lambda: self.diagnostics.get('message', ''))
            info = self.captions.popleft()
            # Of the picture before, a caption may still have been on its way.
            if info['frame_id'] == picture.name:
                times -= 1
                yield info

    def wait_for_diagnostics(self) -> dict[str, str]:
        """Return what the node says of itself from now on."""
        seen = self._diagnosed
        # The next one may have been on its way.
        self._wait(lambda: self._diagnosed >= seen + 2, START_S, 'no diagnostics of the node')
        return self.diagnostics

    def deactivate(self) -> None:
        """Have the node caption no more."""
        self._change(Transition.TRANSITION_DEACTIVATE, 'deactivate')

    def clean_up(self) -> None:
        """Have the node give its model's memory back."""
        self._change(Transition.TRANSITION_CLEANUP, 'cleanup')

    def end(self) -> int | None:
        """End the node as Ctrl-C would; return its exit code."""
        node, self._node = self._node, None
        if node is None:
            return None
        node.send_signal(signal.SIGINT)
        code = _wait_or_kill(node)
        self._reader.join(timeout=1)
        return code

    def memory(self) -> str:
        """Return what the node and its model occupy now, memory that they share divided."""
        node = self._node.pid
        workers = tree(node)[1:]
        shares = shares_mb([node, *workers])
        text = f'node {shares.get(node, 0):.0f} MB'
        if workers:
            text += f', model {sum(shares.get(pid, 0) for pid in workers):.0f} MB'
        return text

    def _change(self, transition: int, name: str) -> None:
        request = ChangeState.Request(transition=Transition(id=transition))
        future = self._change_state.call_async(request)
        self._wait(future.done, TRANSITION_S, f'{name} does not end')
        if not future.result().success:
            # The node logs why before it answers, but by another way.
            time.sleep(0.2)
            raise RobotError(self._last_error or f'{name} failed')

    def _wait(
            self, condition: Callable[[], bool], seconds: float, otherwise: str,
            why: Callable[[], str] = lambda: '') -> None:
        """Spin until a condition holds, as long as both processes live."""
        deadline = time.monotonic() + seconds
        while not condition():
            for name, process in (('node', self._node), ('camera', self._camera)):
                if process.poll() is not None:
                    time.sleep(0.2)  # for what it still had to say
                    raise RobotError(f'the {name} ended with code {process.returncode}')
            if time.monotonic() > deadline:
                reason = why()
                raise RobotError(
                    f'{otherwise} within {seconds:.0f} s' + (f': {reason}' if reason else ''))
            self._executor.spin_once(timeout_sec=0.05)

    def _diagnose(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name == 'captioner':
                self._diagnosed += 1
                self.diagnostics = {pair.key: pair.value for pair in status.values}
                self.diagnostics['message'] = status.message

    def _read_log(self) -> None:
        for line in self._node.stdout:
            line = line.rstrip()
            if line.startswith('ERROR: '):
                self._last_error = line[len('ERROR: '):]
            self._log(line[len('INFO: '):] if line.startswith('INFO: ') else line)


def _wait_or_kill(process: subprocess.Popen) -> int:
    """Return the exit code of a process that has been told to end."""
    try:
        return process.wait(timeout=END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
