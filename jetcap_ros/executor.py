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
from typing import Optional

from rclpy.executors import Executor, ShutdownException, TimeoutException
from rclpy.service import Service
from rclpy.task import Task


class NodeExecutor(Executor):
    """Keeps receiving while a service, a transition say, takes its time."""

    def spin_once(self, timeout_sec: Optional[float] = None) -> None:
        """Wait for a callback and run it; what it raises is logged."""
        try:
            task, entity, node = self.wait_for_ready_callbacks(timeout_sec=timeout_sec)
        except (ShutdownException, TimeoutException):
            return
        if isinstance(entity, Service):
            threading.Thread(
                target=_run, args=(task, node), name=entity.srv_name, daemon=True).start()
        else:
            _run(task, node)


def _run(task: Task, node) -> None:
    task()
    error = task.exception()
    if error is not None:  # it costs the callback, not the robot's captioner
        node.get_logger().error(
            ''.join(traceback.format_exception(error)), throttle_duration_sec=1.0)
