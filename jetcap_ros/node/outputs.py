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

"""What the node publishes for one camera."""

from collections.abc import Callable
import json
from typing import Any

import numpy as np
from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import Image
from std_msgs.msg import String

from .clocks import age_ns, stamp_ns
from ..engine.caption import Caption
from ..images.drawing import draw_caption

try:
    from rclpy.event_handler import PublisherEventCallbacks
except ImportError:  # Humble, which has no such event: who listens must be asked for
    PublisherEventCallbacks = None  # type: ignore[assignment, misc]

TELLS_WHO_LISTENS = PublisherEventCallbacks is not None


class Outputs:
    """
    The publishers of one camera.

    :param prefix: of the topics: '~' for a single camera, '~/<name>' for several.
    :param image_topic: that the captions are of, as `caption_info` names it.
    :param on_listener: called when somebody begins to listen or ceases to, if TELLS_WHO_LISTENS.
    """

    def __init__(
            self, node: LifecycleNode, prefix: str, image_topic: str,
            on_listener: Callable[[], None]) -> None:
        self.last_text: str | None = None
        self._node = node
        self._image_topic = image_topic
        events: dict[str, Any] = {'event_callbacks': PublisherEventCallbacks(
            matched=lambda info: on_listener())} if TELLS_WHO_LISTENS else {}
        self._caption, self._info, self._image = (
            node.create_lifecycle_publisher(kind, f'{prefix}/{name}', depth, **events)
            for kind, name, depth in (
                (String, 'caption', 10), (String, 'caption_info', 10),
                (Image, 'image_captioned', 1)))
        self.caption_topic = self._caption.topic_name

    def destroy(self) -> None:
        """Take the publishers away."""
        for publisher in (self._caption, self._info, self._image):
            self._node.destroy_lifecycle_publisher(publisher)

    def heard(self) -> bool:
        """Say whether anybody subscribes to what is published."""
        return bool(
            self._caption.get_subscription_count() or self._info.get_subscription_count()
            or self._draws())

    def _draws(self) -> bool:
        return bool(
            self._node.get_parameter('publish_image').value
            and self._image.get_subscription_count())

    def publish(
            self, message: Image, image: np.ndarray, caption: Caption, latency_s: float,
            unchanged: bool = False) -> None:
        """
        Publish a caption.

        :param message: that the image came in; its header is kept.
        :param image: (H, W, 3) uint8, RGB; drawn on if the picture is asked for.
        :param latency_s: since the message came.
        :param unchanged: it is the last caption, of a scene that is still the same.
        """
        parameter = self._node.get_parameter
        header = message.header
        age = age_ns(stamp_ns(message), self._node.get_clock().now().nanoseconds)
        if caption.text != self.last_text or parameter('publish_unchanged').value:
            self._caption.publish(String(data=caption.text))
        self.last_text = caption.text
        peak = caption.peak
        self._info.publish(String(data=json.dumps({
            'stamp': {'sec': header.stamp.sec, 'nanosec': header.stamp.nanosec},
            'frame_id': header.frame_id, 'topic': self._image_topic, 'caption': caption.text,
            'score': None if caption.score is None else round(caption.score, 4),
            'score_kind': caption.score_kind, 'model': caption.model,
            'unchanged': unchanged,
            'latency_ms': round(latency_s * 1e3, 1),
            'age_ms': None if age is None else round(age / 1e6, 1),
            'attention_peak': peak and {'x': peak[0], 'y': peak[1]}})))
        if self._draws():
            attention = caption.attention if parameter('draw_attention').value else None
            drawn = draw_caption(image, caption.text, attention)
            self._image.publish(Image(
                header=header, height=drawn.shape[0], width=drawn.shape[1], encoding='rgb8',
                is_bigendian=0, step=3 * drawn.shape[1], data=drawn.tobytes()))
