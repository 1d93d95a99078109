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

"""From the cameras' frames to captions, for as long as the node is active."""

import threading
import time
import traceback

import numpy as np
from rclpy.node import Node

from .cameras import Camera, Frame
from .outputs import TELLS_WHO_LISTENS
from .rates import Rates
from ..engine.caption import Caption
from ..engine.captioner import Captioner, CaptionerError

# To who listens.
ATTEND_EVERY_S = 1.0 if TELLS_WHO_LISTENS else 0.1


class CaptionLoop:
    """
    Captions the newest frames in a thread of its own; one for each time the node is active.

    :param rates: told of each caption.
    """

    def __init__(
            self, node: Node, captioner: Captioner, cameras: list[Camera], rates: Rates) -> None:
        self.active = True
        self._node = node
        self._captioner = captioner
        self._cameras = cameras
        self._rates = rates
        self._publishing = threading.Lock()  # stop() takes it: nothing is published after
        self._wake = threading.Condition()
        self._attend_at = 0.0  # monotonic
        self._thread = threading.Thread(target=self._run, name='caption_frames', daemon=True)

    def start(self) -> None:
        """Begin to caption."""
        self._thread.start()

    def stop(self) -> None:
        """Publish nothing more; a caption that is being made is thrown away."""
        with self._publishing:
            self.active = False
        self.notify()

    def join(self) -> None:
        """Wait a second for the thread to end."""
        self._thread.join(timeout=1)

    def notify(self) -> None:
        """Look again: a frame has come."""
        with self._wake:
            self._wake.notify_all()

    def attend_now(self) -> None:
        """Look who listens: that has changed, or a parameter has."""
        self._attend_at = 0.0
        self.notify()

    def caption(self, camera: Camera, frame: Frame, repeat: bool = False) -> Caption | None:
        """
        Caption a frame and publish what is asked for; None if it could not be.

        :param repeat: the last caption, if the scene is still the same.
        """
        try:
            image = camera.decode(frame)
            unchanged = self._is_still(camera, image) and repeat
            caption = camera.last_caption if unchanged else None
            if caption is None:
                caption = self._captioner.caption(image)
                camera.scene.keep()
                camera.last_caption = caption
        except ValueError as error:  # of the frame
            self._refuse(camera, error)
            return None
        except CaptionerError as error:
            if self.active:
                self._report(camera, str(error))
            return None
        camera.error = ''
        with self._publishing:
            if self.active:
                camera.counters.captioned += 1
                camera.counters.unchanged += unchanged
                camera.is_still = unchanged
                latency = time.monotonic() - frame.arrived
                self._rates.add(latency, 0.0 if unchanged else caption.seconds)
                camera.outputs.publish(frame.message, image, caption, latency, unchanged)
        return caption

    def answer(self, camera: Camera, frame: Frame) -> str:
        """
        Return the server's answer to the prompt for a frame; nothing is published.

        :raises CaptionerError: if no server captions now.
        :raises ValueError: if the frame cannot be decoded.
        """
        try:
            image = camera.decode(frame)
        except ValueError as error:
            self._refuse(camera, error)
            raise
        return self._captioner.ask(image).text

    def _is_still(self, camera: Camera, image: np.ndarray) -> bool:
        """Say whether the last caption is what the model would say of this picture too."""
        difference = camera.scene.look(image)
        threshold = self._node.get_parameter('still_threshold').value
        last = camera.last_caption
        return last is not None and difference < threshold and (
            self._captioner.asleep_for is not None or last.model == self._captioner.model_in_use)

    def _run(self) -> None:
        while self.active:
            self._attend()
            with self._wake:
                continuous = self._continuous()
                camera = self._next_camera() if continuous else None
                if camera is None:
                    for other in self._cameras:
                        if not continuous:
                            other.glance()
                        other.await_frame()
                    # Whoever is due next without a frame will be announced by its frame.
                    now = time.monotonic()
                    due = [c.next_due - now for c in self._cameras if c.next_due > now]
                    self._wake.wait(timeout=max(0.0, min([self._attend_at - now, *due])))
                    continue
            try:
                self._serve(camera)
            except Exception:  # a frame must not end the thread
                camera.counters.bad += 1
                self._node.get_logger().error(
                    f'{camera.topic}: {traceback.format_exc()}', throttle_duration_sec=5.0)

    def _continuous(self) -> bool:
        return bool(self._node.get_parameter('mode').value == 'continuous')

    def _attend(self) -> None:
        """Look, now and then, who listens to which camera."""
        now = time.monotonic()
        if not self.active or now < self._attend_at:
            return
        self._attend_at = now + ATTEND_EVERY_S
        lazy = self._node.get_parameter('lazy').value
        rests = lazy and not self._continuous() and self._captioner.asleep_for is not None
        for camera in self._cameras:
            try:
                camera.attend(lazy, rests)
            except Exception:
                self._node.get_logger().error(
                    f'{camera.topic}: {traceback.format_exc()}', throttle_duration_sec=5.0)

    def _next_camera(self) -> Camera | None:
        """Return the camera to caption now; of several, the one that waited longest."""
        now = time.monotonic()
        ready = [
            camera for camera in self._cameras
            if camera.heard and camera.has_frame() and camera.next_due <= now]
        return min(ready, key=lambda camera: camera.last_served, default=None)

    def _serve(self, camera: Camera) -> None:
        rate = self._node.get_parameter('max_rate_hz').value
        camera.serve(time.monotonic() + 1 / rate if rate else 0.0)
        frame = camera.take(self._node.get_parameter('max_frame_age_s').value)
        if frame is not None:
            self.caption(camera, frame, repeat=True)

    def _refuse(self, camera: Camera, error: ValueError) -> None:
        # In this order: diagnostics that count the frame have the reason, too.
        self._report(camera, str(error))
        camera.counters.bad += 1

    def _report(self, camera: Camera, error: str) -> None:
        camera.error = error
        self._node.get_logger().warning(f'{camera.topic}: {error}', throttle_duration_sec=5.0)
