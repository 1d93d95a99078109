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

"""A client of the captioner node, for programs that start it and are its robot."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
import json
import signal
import subprocess
import sys
import threading
import time
from typing import Any, IO, TypeVar

from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
import psutil
import rclpy
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.task import Future
from std_msgs.msg import String

POLL_S = 0.005  # between looks at whether what is waited for has come
END_S = 15  # for the node to end by itself
KEPT_LINES = 10_000  # of what it prints
TRANSITIONS = {
    'configure': Transition.TRANSITION_CONFIGURE, 'activate': Transition.TRANSITION_ACTIVATE,
    'deactivate': Transition.TRANSITION_DEACTIVATE, 'cleanup': Transition.TRANSITION_CLEANUP,
    'shutdown': Transition.TRANSITION_UNCONFIGURED_SHUTDOWN}
Found = TypeVar('Found')
Self = TypeVar('Self', bound='NodeClient')


class NodeClient:
    """
    Starts the node in a process of its own and talks to it over ROS; a context manager.

    What is heard is handled in a thread of its own. Nothing runs on when the context is left.

    :param parameters: of the node.
    :param arguments: more words for its command line, remappings say.
    :param name: the full name that these words give it.
    :param prefix: put before its command, to run it in a cgroup, say.
    :param environment: of its process; by default this one's.
    :param domain_id: of this client; by default that of the environment.
    :param on_line: called with each line that the node prints, from another thread.
    """

    def __init__(
            self, parameters: Mapping[str, Any] | None = None, arguments: Sequence[str] = (), *,
            name: str = '/captioner', prefix: Sequence[str] = (),
            environment: Mapping[str, str] | None = None, domain_id: int | None = None,
            on_line: Callable[[str], None] = lambda line: None) -> None:
        self.name = name
        self.statuses: list[Any] = []  # of the node, from /diagnostics
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._on_line = on_line
        self._services: dict[str, Any] = {}
        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain_id)
        self.node = rclpy.create_node(
            'robot', namespace=name.rpartition('/')[0], context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self.node.create_subscription(DiagnosticArray, '/diagnostics', self._diagnose, 10)
        command = [
            *prefix, sys.executable, '-m', 'jetcap_ros.node', '--ros-args',
            *(word for key, value in (parameters or {}).items()
              for word in ('-p', f'{key}:={json.dumps(value)}')), *arguments]
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, errors='replace', start_new_session=True, env=environment)
        self._reader = threading.Thread(target=self._read, args=(self.process.stdout,), daemon=True)
        self._spinner = threading.Thread(target=self._spin, daemon=True)
        self._reader.start()
        self._spinner.start()

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the node, its worker and this side of it."""
        workers = self.workers()
        self.end(signal.SIGTERM)
        for worker in workers:  # none, unless the node had to be killed
            try:
                worker.kill()
            except psutil.NoSuchProcess:
                pass
        self._executor.shutdown(timeout_sec=5)
        self.node.destroy_node()
        rclpy.try_shutdown(context=self._context)
        self._spinner.join(timeout=5)

    def end(self, signal_number: int = signal.SIGINT) -> int:
        """Send the node a signal and return its exit code; kill it if it does not end by itself."""
        if self.alive:
            self.process.send_signal(signal_number)
        try:
            code = self.process.wait(END_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        self._reader.join(timeout=5)
        return code

    @property
    def alive(self) -> bool:
        """Say whether the node's process runs."""
        return self.process.poll() is None

    def workers(self) -> list[psutil.Process]:
        """Return the living processes that the node has started."""
        try:
            return [
                child for child in psutil.Process(self.process.pid).children(recursive=True)
                if child.status() != psutil.STATUS_ZOMBIE]
        except psutil.NoSuchProcess:
            return []

    def pids(self) -> list[int]:
        """Return the node's process and those of its workers."""
        return [self.process.pid, *(worker.pid for worker in self.workers())]

    def output(self) -> str:
        """Return what the node has printed so far."""
        if not self.alive:
            self._reader.join(timeout=1)
        return '\n'.join(list(self._lines))

    @property
    def summary(self) -> str:
        """Return the node's newest message on /diagnostics."""
        return self.statuses[-1].message if self.statuses else ''

    @property
    def diagnostics(self) -> dict[str, str]:
        """Return the node's newest values on /diagnostics."""
        return {pair.key: pair.value for pair in self.statuses[-1].values} if self.statuses else {}

    def wait_for(self, condition: Callable[[], Found], timeout: float) -> Found:
        """Look again and again until a condition holds or the time is up; return what it said."""
        deadline = time.monotonic() + timeout
        while True:
            found = condition()
            if found or time.monotonic() > deadline:
                return found
            time.sleep(POLL_S)

    def listen(self, topic: str, callback: Callable[[Any], None], kind: Any = String) -> None:
        """Subscribe to a topic of the node."""
        self.node.create_subscription(kind, f'{self.name}/{topic}', callback, 10)

    def service(self, kind: Any, name: str) -> Any:
        """Return the client of a service of the node."""
        if name not in self._services:
            self._services[name] = self.node.create_client(kind, f'{self.name}/{name}')
        return self._services[name]

    def wait_for_start(self, timeout: float) -> bool:
        """Wait until the node answers; False if it died or took too long."""
        ready = self.service(ChangeState, 'change_state').service_is_ready
        self.wait_for(lambda: ready() or not self.alive, timeout)
        return bool(ready())

    def send_change(self, transition: str) -> Future[Any]:
        """Ask for a lifecycle transition; return the future of the answer."""
        request = ChangeState.Request(transition=Transition(id=TRANSITIONS[transition]))
        future: Future[Any] = self.service(ChangeState, 'change_state').call_async(request)
        return future

    def change(self, transition: str, timeout: float = 60) -> bool | None:
        """Ask for a transition and say whether it succeeded; None if the node did not answer."""
        future = self.send_change(transition)
        self.wait_for(lambda: future.done() or not self.alive, timeout)
        answer = future.result()
        return bool(answer.success) if answer else None

    def _spin(self) -> None:
        try:
            self._executor.spin()
        except ExternalShutdownException:
            pass

    def _diagnose(self, message: DiagnosticArray) -> None:
        self.statuses += [s for s in message.status if s.name == self.name.lstrip('/')]

    def _read(self, printed: IO[str]) -> None:
        with printed:
            for line in printed:
                self._lines.append(line.rstrip())
                self._on_line(line.rstrip())
