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

"""The services ~/caption_now and ~/ask: what the newest frame shows, said in the answer."""

import time
import traceback

from rclpy.callback_groups import ReentrantCallbackGroup
from std_srvs.srv import Trigger

from .base import CaptionerBase
from .cameras import Camera, Frame, SILENT_S
from ..engine.captioner import CaptionerError

FIRST_FRAME_S, NEWER_FRAME_S = 2.0, 0.1


class CaptionService:
    """
    Captions the newest frame when it is called, or answers the prompt for it.

    :param name: of the service.
    :param camera: whose frame; None is any's.
    :param asks: the server answers, without anything being published; no other model can.
    """

    def __init__(
            self, node: CaptionerBase, name: str, camera: Camera | None = None,
            asks: bool = False) -> None:
        self._node = node
        self._asks = asks
        self._camera = camera
        self._service = node.create_service(
            Trigger, name, self._serve, callback_group=ReentrantCallbackGroup())

    def destroy(self) -> None:
        """Take the service away."""
        self._node.destroy_service(self._service)

    def _serve(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        try:
            response.success, response.message = self._caption()
        except Exception as error:
            self._node.get_logger().error(traceback.format_exc())
            response.success, response.message = False, str(error)
        return response

    def _caption(self) -> tuple[bool, str]:
        """Caption the newest frame, and publish that too; return whether it could be, and what."""
        loop = self._node.loop
        if loop is None or not loop.active:
            return False, f'the node is {self._node.state_label}, not active'
        cameras = self._node.cameras if self._camera is None else [self._camera]
        called = time.monotonic()
        for camera in cameras:
            camera.want()
        frames = _newest(cameras)
        while loop.active and _waits(cameras, frames, called):
            time.sleep(0.005)
            frames = _newest(cameras)
        if not frames:
            topics = ', '.join(camera.topic for camera in cameras)
            return False, f'no frame has come on {topics} yet'
        frame, camera = max(frames, key=lambda pair: pair[0].arrived)
        silent = time.monotonic() - frame.arrived
        if silent > SILENT_S:
            return False, f'the newest frame on {camera.topic} is {silent:.0f} s old'
        if self._asks:
            try:
                return True, loop.answer(camera, frame)
            except (CaptionerError, ValueError) as error:
                return False, str(error)
        caption = loop.caption(camera, frame)
        if caption is None:
            return False, camera.error or 'the node was deactivated'
        return True, caption.text


def _waits(cameras: list[Camera], frames: list[tuple[Frame, Camera]], called: float) -> bool:
    """Say whether a newer frame may be on its way."""
    now = time.monotonic()
    if frames:  # frames that were not due are still with the middleware
        return now - called < NEWER_FRAME_S and max(f.arrived for f, _ in frames) < called
    # One that nobody listened to was not even subscribed to until now.
    return any(now - camera.subscribed_at < FIRST_FRAME_S for camera in cameras)


def _newest(cameras: list[Camera]) -> list[tuple[Frame, Camera]]:
    return [(frame, camera) for camera in cameras if (frame := camera.newest()) is not None]
