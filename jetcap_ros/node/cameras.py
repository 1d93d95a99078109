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

"""The cameras of the node: their subscriptions, newest frames and outputs."""

from collections.abc import Callable
from dataclasses import dataclass, field
import threading
import time
from typing import Any

import numpy as np
from rclpy.callback_groups import CallbackGroup
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image

from .clocks import stamp_ns, too_old
from .outputs import Outputs
from ..engine.caption import Caption
from ..images.image_decoding import decode_compressed, decode_image
from ..images.still import Scene

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

# A stamp this much before the last one is a bag that starts again, not a frame that came late.
JUMP_BACK_S = 1.0
# A camera that has sent nothing for so long counts as silent.
SILENT_S = 5.0
# What is captioned only when asked is looked at so often.
GLANCE_EVERY_S = 2.0
# What nobody wants is unsubscribed after so long.
UNWANTED_S = 5.0


@dataclass
class Frame:
    """A message as it came, and when (seconds, monotonic); None once it is too old for anybody."""

    message: Any
    arrived: float = field(default_factory=time.monotonic)


@dataclass
class Counters:
    """What became of the frames of a camera."""

    received: int = 0
    captioned: int = 0
    unchanged: int = 0  # of these: the last caption again, of a still scene
    replaced: int = 0  # a newer one came before they were captioned
    stale: int = 0  # older than one that was captioned, or than max_frame_age_s
    bad: int = 0  # could not be decoded


class _Gate(CallbackGroup):
    """Leaves frames in the middleware until one is due: to take one costs milliseconds."""

    def __init__(self) -> None:
        super().__init__()
        self.is_open = True

    def can_execute(self, entity: Any) -> bool:
        """Say whether the executor may take a frame."""
        return self.is_open

    def beginning_execution(self, entity: Any) -> bool:
        """Let it be taken; another may follow at once."""
        return True

    def ending_execution(self, entity: Any) -> None:
        """Nothing waits for that."""


class Camera:
    """
    One image topic and the outputs for it.

    :param topic: resolved, with the transport's suffix.
    :param prefix: of the outputs: '~' for a single camera, '~/<name>' for several.
    :param on_frame: called when a frame has come, from the executor's thread.
    :param on_listener: called, where that can be, when who listens to it changes.
    """

    def __init__(
            self, node: LifecycleNode, topic: str, name: str, prefix: str,
            on_frame: Callable[[], None], on_listener: Callable[[], None]) -> None:
        self.name = name
        self.topic = topic
        self.compressed = node.get_parameter('image_transport').value == 'compressed'
        self.outputs = Outputs(node, prefix, self.topic, on_listener)
        self.counters = Counters()
        self.error = ''  # why its last frame was refused
        self.heard = True  # somebody listens to its captions, or they are made anyhow
        self.scene = Scene()  # that was captioned last
        self.is_still = False  # it was the same the last time
        self.last_caption: Caption | None = None
        self.next_due = 0.0  # monotonic
        self.last_served = 0.0
        self.last_arrival: float | None = None
        self.subscribed_at = 0.0  # monotonic
        self.qos_problem = ''
        self.last_times: tuple[int, int] | None = None  # a frame's stamp, and when it came
        # All have been too old since (monotonic); the last one's stamp, and when it was dropped.
        self.too_old: tuple[float, int, int] | None = None
        self._node = node
        self._on_frame = on_frame
        self._lock = threading.Lock()
        self._waiting: Frame | None = None  # not yet captioned
        self._newest: Frame | None = None
        self._last_stamp: int | None = None
        self._gate = _Gate()
        self._subscribing = threading.Lock()
        self._started = False
        self._wanted_at = 0.0  # monotonic
        self._subscription: Any = None

    @property
    def subscribed(self) -> bool:
        """Say whether frames are received."""
        return self._subscription is not None

    def start(self) -> None:
        """Begin to receive; frames and captions of an earlier time are forgotten."""
        self.outputs.last_text = self.last_caption = None
        self.next_due = 0.0
        with self._subscribing:
            self._started = True
        self.want()

    def stop(self) -> None:
        """Receive no more."""
        with self._subscribing:
            self._started = False
            self._unsubscribe()

    def want(self) -> None:
        """Have frames for a while, even if nobody listens; the newest now, even if none is due."""
        self._wanted_at = time.monotonic()
        self._attend()
        self._open_gate()

    def serve(self, next_due: float) -> None:
        """Note that it is served; the next frame is due at a time (monotonic)."""
        self.last_served = time.monotonic()
        self.next_due = next_due
        self._gate.is_open = next_due <= self.last_served

    def glance(self) -> None:
        """Where frames are captioned when asked only, take one now and then, to know they come."""
        now = time.monotonic()
        if self._waiting is not None and self.next_due <= now:
            self._waiting = None
            self.serve(now + GLANCE_EVERY_S)

    def await_frame(self) -> None:
        """Have a frame taken if one is due."""
        if self.next_due <= time.monotonic():
            self._open_gate()

    def _open_gate(self) -> None:
        if not self._gate.is_open:
            self._gate.is_open = True
            executor = self._node.executor
            if executor is not None:
                executor.wake()

    def attend(self, lazy: bool, rests: bool) -> None:
        """
        Look who listens: if it is lazy and nobody does, receive nothing in the end.

        :param rests: nor if somebody does, since only a call would have a frame captioned.
        """
        self.heard = not lazy or self.outputs.heard()
        if self.heard and not rests:
            self._wanted_at = time.monotonic()
        self._attend()
        self._drop_picture()

    def _drop_picture(self) -> None:
        """Give the memory of a frame back that is too old for whoever asks for the newest."""
        with self._lock:
            newest = self._newest
            if newest and self._waiting is None and time.monotonic() - newest.arrived > SILENT_S:
                self._newest = Frame(None, newest.arrived)

    def _attend(self) -> None:
        with self._subscribing:
            wanted = time.monotonic() - self._wanted_at < UNWANTED_S
            if self._started and wanted and self._subscription is None:
                self._subscribe()
            elif not wanted:
                self._unsubscribe()

    def _forget_frames(self) -> None:
        with self._lock:
            self._waiting = self._newest = self._last_stamp = None

    def _subscribe(self) -> None:
        self._forget_frames()
        self.last_arrival = self.last_times = self.too_old = None
        self.subscribed_at = time.monotonic()
        reliable = self._node.get_parameter('image_reliability').value == 'reliable'
        self._subscription = self._node.create_subscription(
            CompressedImage if self.compressed else Image, self.topic, self._receive,
            QoSProfile(
                history=HistoryPolicy.KEEP_LAST, depth=1,
                reliability=ReliabilityPolicy.RELIABLE if reliable
                else ReliabilityPolicy.BEST_EFFORT),
            callback_group=self._gate,
            event_callbacks=SubscriptionEventCallbacks(incompatible_qos=self._qos_incompatible))

    def _unsubscribe(self) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            self._node.destroy_subscription(subscription)
            self._forget_frames()

    def destroy(self) -> None:
        """Take subscription and publishers away."""
        self.stop()
        self.outputs.destroy()

    def decode(self, frame: Frame) -> np.ndarray:
        """Return a frame's picture, (H, W, 3) uint8, RGB; ValueError says what it is not."""
        return (decode_compressed if self.compressed else decode_image)(frame.message)

    def _receive(self, message: Any) -> None:
        frame = Frame(message)
        with self._lock:
            self.counters.received += 1
            self.last_arrival = frame.arrived
            self.last_times = stamp_ns(message), self._node.get_clock().now().nanoseconds
            self.qos_problem = ''
            if self._waiting is not None:
                self.counters.replaced += 1
            self._waiting = self._newest = frame
        self._on_frame()

    def _qos_incompatible(self, event: Any) -> None:
        self.qos_problem = (
            'a publisher offers another QoS than asked for: set image_reliability to '
            'best_effort, or the camera to reliable')
        self._node.get_logger().warning(f'{self.topic}: {self.qos_problem}')

    def has_frame(self) -> bool:
        """Say whether a frame waits for its caption."""
        return self._waiting is not None

    def take(self, max_age_s: float) -> Frame | None:
        """Return the frame that waits, None if there is none or it is stale."""
        with self._lock:
            frame, self._waiting = self._waiting, None
            if frame is None:
                return None
            stamp, now = stamp_ns(frame.message), self._node.get_clock().now().nanoseconds
            behind = 0 if self._last_stamp is None else self._last_stamp - stamp
            is_old = bool(too_old(stamp, now, max_age_s))
            if is_old or 0 < behind < JUMP_BACK_S * 1e9:
                self.counters.stale += 1
                if is_old:
                    since = self.too_old[0] if self.too_old else time.monotonic()
                    self.too_old = since, stamp, now
                return None
            self.too_old = None
            self._last_stamp = stamp
            return frame

    def newest(self) -> Frame | None:
        """Return the newest frame, captioned or not."""
        return self._newest

    def silent_for(self) -> float:
        """Return the seconds without a frame that was due since it subscribed or received one."""
        since = max(self.last_arrival or self.subscribed_at, self.next_due)
        return max(0.0, time.monotonic() - since)
