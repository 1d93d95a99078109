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
The executor of the node: frames, timers and events at once, a thread for each service call.

rclpy's MultiThreadedExecutor hands every message to a pool and, until the pool's thread has the
interpreter's lock, offers it again and again: up to 5 ms of spinning for each frame.
"""

import threading
import traceback
from typing import Any

from rclpy.exceptions import InvalidHandle
from rclpy.executors import Executor, ShutdownException, TimeoutException
from rclpy.node import Node
from rclpy.service import Service
from rclpy.task import Task


class NodeExecutor(Executor):
    """Keeps receiving while a service of its node, a transition say, takes its time."""

    def __init__(self, node: Node) -> None:
        self._logger = node.get_logger()
        super().__init__(context=node.context)
        self.add_node(node)

    def spin_once(self, timeout_sec: float | None = None) -> None:
        """Wait for a callback and run it; what it raises is logged."""
        try:
            task, entity, _ = self.wait_for_ready_callbacks(timeout_sec=timeout_sec)
        except (ShutdownException, TimeoutException):
            return
        except InvalidHandle:  # of what was taken away while the wait for it was prepared
            return
        if isinstance(entity, Service):
            threading.Thread(
                target=self._serve, args=(task,), name=entity.srv_name, daemon=True).start()
            return
        failure = _run(task)
        if failure and self.context.ok():  # a camera's, maybe, thirty times a second
            self._logger.error(failure, throttle_duration_sec=1.0)

    def _serve(self, task: Task[Any]) -> None:
        failure = _run(task)
        # An answer that is ready when the node has ended has nobody to go to.
        if failure and self.context.ok():
            self._logger.error(failure)


def _run(task: Task[Any]) -> str:
    """Run a callback; return the traceback of what it raised, which must not end the node."""
    task()
    error = task.exception()
    return ''.join(traceback.format_exception(error)) if error else ''
