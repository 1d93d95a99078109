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

"""The captioner node as the benchmark drives it: frames in, captions with their age out."""

import atexit
from collections.abc import Sequence
from dataclasses import dataclass
import functools
import json
import os
from pathlib import Path
import queue
import shutil
import tempfile
import time
from typing import Any

import numpy as np
from rclpy.qos import qos_profile_sensor_data
from rclpy.time import Time
from sensor_msgs.msg import Image
from std_msgs.msg import String

from .camera import make_image
from ..node.client import NodeClient
from ..node.domain import reserve_domain
from ..node.fast_dds import room_for_frames

START_S = 30  # of the node, and for the services to be found
PATIENCE_S = 10.0  # with a caption
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
    if 'ROS_DOMAIN_ID' not in os.environ:
        domain, reserved = reserve_domain()
        atexit.register(reserved.close)
        os.environ['ROS_DOMAIN_ID'] = str(domain)
    environment = dict(os.environ)
    folder = tempfile.mkdtemp(prefix='jetcap-benchmark-')
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ.update(room_for_frames(Path(folder), SHARED_MB))
    return environment


class NodeUnderTest(NodeClient):
    """
    Starts the node, and is its camera and who listens to it; a context manager.

    :param parameters: of the node.
    :param cameras: how many image topics; frames are published to the first one.
    :param prefix: put before the node's command, to run it in a cgroup, say.
    :param listens: to the captions.
    """

    def __init__(
            self, parameters: dict[str, Any] | None = None, cameras: int = 1,
            prefix: Sequence[str] = (), listens: bool = True) -> None:
        environment = prepare_network()
        namespace = f'/benchmark_{os.getpid()}_{time.monotonic_ns() % 1_000_000}'
        self.topics = [
            namespace + (f'/camera{i}/image_raw' if cameras > 1 else '/image_raw')
            for i in range(cameras)]
        self.captions: queue.Queue[Received] = queue.Queue()
        self.patience_s = float((parameters or {}).get('inference_timeout_s', PATIENCE_S))
        super().__init__(
            {'max_rate_hz': 0.0, 'still_threshold': 0.0, 'bond': 'none',
             'image_topics': self.topics, **(parameters or {})},
            ['-r', f'__ns:={namespace}'], name=f'{namespace}/captioner', prefix=prefix,
            environment=environment)
        self._publisher = self.node.create_publisher(
            Image, self.topics[0], qos_profile_sensor_data)
        for i in range(cameras if listens else 0):
            self.listen(
                f'camera{i}/caption_info' if cameras > 1 else 'caption_info', self._receive)

    def configure(self) -> bool | None:
        """Have the node load its model; None if it died or did not answer."""
        return self.change('configure', 150)

    def activate(self) -> bool | None:
        """Have the node caption, and wait until it subscribes."""
        success = self.change('activate', 20)
        if success:
            self.wait_for(self._publisher.get_subscription_count, 20)
        return success

    def start(self) -> None:
        """Bring the node up to active, or raise RuntimeError with the end of its log."""
        if not (self.wait_for_start(START_S) and self.configure() and self.activate()):
            raise RuntimeError(f'the node did not start: {self.output()[-3000:]}')

    def publish(self, pixels: np.ndarray | Image) -> None:
        """Send a frame, stamped now; (H, W, 3) uint8, or a message made of them."""
        message = pixels if isinstance(pixels, Image) else make_image(pixels)
        message.header.stamp = self.node.get_clock().now().to_msg()
        self._publisher.publish(message)

    def caption(
            self, pixels: np.ndarray | Image, timeout: float | None = None,
            every: float | None = None) -> Received | None:
        """Send a frame until a caption comes; None if none does in time."""
        timeout = self.patience_s if timeout is None else timeout
        every = self.patience_s / 10 if every is None else every
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

    def _receive(self, message: String) -> None:
        info = json.loads(message.data)
        stamp = Time(
            seconds=info['stamp']['sec'], nanoseconds=info['stamp']['nanosec']).nanoseconds
        now = self.node.get_clock().now().nanoseconds
        self.captions.put(Received(info, (now - stamp) / 1e9))
