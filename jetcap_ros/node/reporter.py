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

"""Says once a second how the node fares: on /diagnostics, and in the log what is wrong."""

import threading
import traceback

from diagnostic_msgs.msg import DiagnosticArray

from .base import CaptionerBase
from .camera_watch import CameraWatch
from .diagnostics import diagnostic_array

EVERY_S = 1.0


class Reporter:
    """
    Reports until it is closed, also while a simulation or a bag stands still.

    In a thread of its own: for a timer the executor would gather all that it waits for anew, which
    is most of what a node costs that has nothing to do.
    """

    def __init__(self, node: CaptionerBase) -> None:
        self.watch = CameraWatch(node)
        self._node = node
        self._publisher = node.create_publisher(DiagnosticArray, '/diagnostics', 10)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name='reporter', daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Report nothing more."""
        self._closed.set()
        self._thread.join(timeout=1)

    def _run(self) -> None:
        node = self._node
        while not self._closed.wait(EVERY_S) and node.context.ok():
            try:
                self._publisher.publish(diagnostic_array(node))
                # Asleep it is for lack of frames, maybe.
                if node.state_label == 'active' and not node.is_asleep:
                    self.watch.look(node.cameras)
            except Exception:  # of what is taken apart meanwhile
                if node.context.ok() and not self._closed.is_set():
                    node.get_logger().error(traceback.format_exc(), throttle_duration_sec=5.0)
