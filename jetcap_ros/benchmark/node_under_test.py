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

"""The captioner node in a process of its own, driven over ROS as a robot would."""

import atexit
from collections.abc import Sequence
from dataclasses import dataclass
import functools
import json
import os
from pathlib import Path
import queue
import shutil
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
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.qos import qos_profile_sensor_data
from rclpy.time import Time
from sensor_msgs.msg import Image
from std_msgs.msg import String

from .camera import make_image
from .processes import end_group, tree
from ..node.fast_dds import room_for_frames

START_S = 30  # of the node, and for the services to be found
SHARED_MB = 128  # for frames of 4K


@dataclass
class Received:
    """A caption as it came back: what it said, and how old its frame was on arrival."""

    info: dict[str, Any]
    age_s: float


@functools.lru_cache(maxsize=None)
def prepare_network() -> dict[str, str]:
    """Keep to ourselves, lose no frame, and return the environment of the node, without that."""
    os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    os.environ.setdefault('ROS_DOMAIN_ID', str(1 + os.getpid() % 100))
    environment = dict(os.environ)
    folder = tempfile.mkdtemp(prefix='jetcap-benchmark-')
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ.update(room_for_frames(Path(folder), SHARED_MB))
    return environment


class NodeUnderTest:
    """
    Starts the node, and is the rest of the robot to it; a context manager.

    :param parameters: of the node.
    :param cameras: how many image topics; frames are published to the first one.
    :param prefix: put before the node's command, to run it in a cgroup, say.
    """

    def __init__(
            self, parameters: dict[str, Any] | None = None, cameras: int = 1,
            prefix: Sequence[str] = ()) -> None:
        environment = prepare_network()
        self.namespace = f'/benchmark_{os.getpid()}_{time.monotonic_ns() % 1_000_000}'
        self.topics = [
            self.namespace + (f'/camera{i}/image_raw' if cameras > 1 else '/image_raw')
            for i in range(cameras)]
        values = {'max_rate_hz': 0.0, 'bond': 'none', 'image_topics': self.topics,
                  **(parameters or {})}
        command = [
            *prefix, sys.executable, '-m', 'jetcap_ros.node.captioner_node', '--ros-args',
            '-r', f'__ns:={self.namespace}']
        for name, value in values.items():
            command += ['-p', f'{name}:={json.dumps(value)}']
        self.log = b''
        self.diagnostics: dict[str, str] = {}
        self.summary = ''
        self.captions: 'queue.Queue[Received]' = queue.Queue()
        self._context = rclpy.Context()
        rclpy.init(context=self._context)
        self.node = rclpy.create_node('robot', namespace=self.namespace, context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._spinner = threading.Thread(target=self._spin, daemon=True)
        base = f'{self.namespace}/captioner'
        self._change_state = self.node.create_client(ChangeState, f'{base}/change_state')
        self._publisher = self.node.create_publisher(
            Image, self.topics[0], qos_profile_sensor_data)
        for i in range(cameras):
            name = f'{base}/camera{i}/caption_info' if cameras > 1 else f'{base}/caption_info'
            self.node.create_subscription(String, name, self._receive, 10)
        self.node.create_subscription(DiagnosticArray, '/diagnostics', self._diagnose, 10)
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            start_new_session=True, env=environment)
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._spinner.start()
        self._reader.start()

    def __enter__(self) -> 'NodeUnderTest':
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """End the node, its worker and our side of it."""
        workers = tree(self.process.pid)[1:]
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            pass
        end_group(self.process)
        for pid in workers:  # they are in sessions of their own
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self._reader.join(timeout=5)
        self.process.stderr.close()
        self._executor.shutdown(timeout_sec=5)
        self.node.destroy_node()
        rclpy.try_shutdown(context=self._context)
        self._spinner.join(timeout=5)

    @property
    def alive(self) -> bool:
        """Say whether the node's process runs."""
        return self.process.poll() is None

    def pids(self) -> list[int]:
        """Return the node's process and those of its workers."""
        return tree(self.process.pid)

    def wait_for_start(self, timeout: float = START_S) -> bool:
        """Wait until the node answers; False if it died or took too long."""
        deadline = time.monotonic() + timeout
        while self.alive and time.monotonic() < deadline:
            if self._change_state.wait_for_service(timeout_sec=0.1):
                return True
        return False

    def transition(self, number: int, timeout: float) -> bool | None:
        """Request a lifecycle transition; None if the node died or did not answer."""
        future = self._change_state.call_async(
            ChangeState.Request(transition=Transition(id=number)))
        deadline = time.monotonic() + timeout
        while not future.done() and self.alive and time.monotonic() < deadline:
            time.sleep(0.002)
        return future.result().success if future.done() else None

    def configure(self, timeout: float = 150) -> bool | None:
        """Have the node load its model."""
        return self.transition(Transition.TRANSITION_CONFIGURE, timeout)

    def activate(self, timeout: float = 20) -> bool | None:
        """Have the node caption, and wait until it subscribes."""
        success = self.transition(Transition.TRANSITION_ACTIVATE, timeout)
        deadline = time.monotonic() + timeout
        while success and not self._publisher.get_subscription_count() \
                and time.monotonic() < deadline:
            time.sleep(0.002)
        return success

    def start(self) -> None:
        """Bring the node up to active, or raise RuntimeError with the end of its log."""
        if not (self.wait_for_start() and self.configure() and self.activate()):
            raise RuntimeError(f'the node did not start: {self.log.decode()[-3000:]}')

    def publish(self, pixels) -> None:
        """Send a frame, stamped now; (H, W, 3) uint8, or a message made of them."""
        message = pixels if isinstance(pixels, Image) else make_image(pixels)
        message.header.stamp = self.node.get_clock().now().to_msg()
        self._publisher.publish(message)

    def caption(self, pixels, timeout: float = 10, every: float = 1.0) -> Received | None:
        """Send a frame until a caption comes; None if none does."""
        deadline = time.monotonic() + timeout
        while self.alive and time.monotonic() < deadline:
            self.publish(pixels)
            try:
                return self.captions.get(timeout=min(every, timeout))
            except queue.Empty:
                pass
        return None

    def drain(self) -> list[Received]:
        """Return the captions that came since."""
        received = []
        while True:
            try:
                received.append(self.captions.get_nowait())
            except queue.Empty:
                return received

    def _spin(self) -> None:
        try:
            self._executor.spin()
        except ExternalShutdownException:
            pass

    def _receive(self, message: String) -> None:
        info = json.loads(message.data)
        stamp = Time(
            seconds=info['stamp']['sec'], nanoseconds=info['stamp']['nanosec']).nanoseconds
        now = self.node.get_clock().now().nanoseconds
        self.captions.put(Received(info, (now - stamp) / 1e9))

    def _diagnose(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if self.namespace.strip('/') in status.name:
                self.summary = status.message
                self.diagnostics.update({pair.key: pair.value for pair in status.values})

    def _read_log(self) -> None:
        for line in iter(self.process.stderr.readline, b''):
            self.log = (self.log + line)[-20000:]
