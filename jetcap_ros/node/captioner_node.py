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

"""The captioner node: a managed node that says in English what its cameras see."""

import json
import platform
import signal
import threading
import time
import traceback
from typing import Any

import cv2
from diagnostic_msgs.msg import DiagnosticArray
import numpy as np
import rclpy
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.executors import ExternalShutdownException
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.time import Time
from sensor_msgs.msg import Image
from std_msgs.msg import String
from std_srvs.srv import Trigger

from .bond import Bond
from .cameras import Camera, camera_names, Frame, SILENT_S
from .diagnostics import diagnostic_array, Rates
from .executor import NodeExecutor
from .managed_node import ManagedNode, transition
from .parameters import declare_parameters, on_set_parameters, ParameterError
from .. import __version__
from ..engine.captioner import Caption, Captioner, CaptionerError
from ..engine.settings import CaptionerSettings
from ..images.drawing import draw_caption
from ..images.image_decoding import decode_compressed, decode_image
from ..memory.file_pages import release_file_pages

SETTINGS = tuple(CaptionerSettings.__dataclass_fields__)


class CaptionerNode(ManagedNode):
    """Subscribes to cameras and publishes captions while it is active."""

    def __init__(self, **kwargs: Any) -> None:
        self.captioner: Captioner | None = None
        self.cameras: list[Camera] = []
        self.failure = ''  # why the last configure failed
        self.frame_errors: dict[str, str] = {}  # by camera: why its last frame was refused
        self.rates = Rates()
        self.versions = {
            'version': __version__, 'OpenCV': cv2.__version__, 'NumPy': np.__version__,
            'Python': platform.python_version()}
        self._active = False
        self._outputs = threading.Lock()  # held while publishing; deactivate takes it
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._bond = None
        self._caption_services: list[Any] = []
        super().__init__('captioner', **kwargs)
        declare_parameters(self)
        self.add_on_set_parameters_callback(
            on_set_parameters(lambda: self.state_label == 'unconfigured', self._apply))
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 10)
        # By a clock that also runs while a simulation or a bag stands still.
        self.create_timer(
            1.0, self._publish_diagnostics, callback_group=MutuallyExclusiveCallbackGroup(),
            clock=Clock(clock_type=ClockType.STEADY_TIME))

    # Transitions

    @transition
    def on_configure(self, state) -> TransitionCallbackReturn:
        """Load the model and create the outputs, or leave nothing behind."""
        self.failure = ''
        self.release()
        try:
            topics = self.get_parameter('image_topics').value
            names = camera_names(
                [self.resolve_topic_name(topic) for topic in topics],
                self.get_parameter('camera_names').value)
            self.captioner = Captioner(
                CaptionerSettings(**{name: self.get_parameter(name).value for name in SETTINGS}),
                on_stage=self._log_stage, log=self._log)
            self.captioner.configure()
            single = len(topics) == 1
            for topic, name in zip(topics, names):
                self.cameras.append(Camera(
                    self, topic, name, '~' if single else f'~/{name}', self._notify))
            self._create_services()
        except Exception as error:
            self.release()
            self.failure = f'configure failed: {error}'
            self.get_logger().error(
                self.failure if isinstance(error, (CaptionerError, ValueError))
                else f'{self.failure}\n{traceback.format_exc()}')
            return TransitionCallbackReturn.FAILURE
        return super().on_configure(state)

    @transition
    def on_activate(self, state) -> TransitionCallbackReturn:
        """Subscribe to the cameras and begin to caption."""
        try:
            self._bond = Bond(self, self.get_parameter('bond').value)
            for camera in self.cameras:
                camera.subscribe()
        except Exception:
            self._stop()
            raise
        result = super().on_activate(state)
        self._active = True
        self._thread = threading.Thread(
            target=self._caption_frames, name='caption_frames', daemon=True)
        self._thread.start()
        return result

    @transition
    def on_deactivate(self, state) -> TransitionCallbackReturn:
        """Stop to caption; a caption that is being made is not published."""
        self._stop()
        return super().on_deactivate(state)

    @transition
    def on_cleanup(self, state) -> TransitionCallbackReturn:
        """Give the model's memory back."""
        self.release()
        return TransitionCallbackReturn.SUCCESS

    @transition
    def on_shutdown(self, state) -> TransitionCallbackReturn:
        """Release everything, from whatever state."""
        self.release()
        return TransitionCallbackReturn.SUCCESS

    @transition
    def on_error(self, state) -> TransitionCallbackReturn:
        """Return to unconfigured, from where configure can try again."""
        self.release()
        return TransitionCallbackReturn.SUCCESS

    def cancel_transition(self) -> None:
        """End a configure that is under way."""
        captioner = self.captioner
        if captioner is not None:
            captioner.close()

    def _stop(self) -> None:
        """End what activate began."""
        with self._outputs:
            self._active = False
        self._notify()
        for camera in self.cameras:
            camera.unsubscribe()
        bond, self._bond = self._bond, None
        if bond is not None:
            bond.break_()

    def release(self) -> None:
        """End what activate and configure began."""
        captioner, self.captioner = self.captioner, None
        if captioner is not None:
            captioner.close()
        self._stop()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join(timeout=1)
        for service in self._caption_services:
            self.destroy_service(service)
        self._caption_services = []
        for camera in self.cameras:
            camera.destroy()
        self.cameras = []
        self.frame_errors = {}

    # Parameters and logging

    def _apply(self, values: dict[str, Any]) -> None:
        captioner = self.captioner
        for name, value in values.items():
            if captioner is not None and name in SETTINGS:
                setattr(captioner.settings, name, value)
        self._notify()

    def _log(self, severity: str, text: str) -> None:
        # A line each: rclpy remembers the severity by the line that logs.
        logger = self.get_logger()
        if severity == 'error':
            logger.error(text)
        elif severity == 'warning':
            logger.warning(text)
        else:
            logger.info(text)

    def _log_stage(self, stage: dict[str, Any]) -> None:
        self.get_logger().info(
            f'stage {stage["name"]}: {stage["seconds"]:.2f} s, worker RSS {stage["rss_mb"]:.0f} '
            f'MB, {stage["available_mb"]:.0f} MB available')

    def _publish_diagnostics(self) -> None:
        if self.context.ok():
            self._diagnostics.publish(diagnostic_array(self))

    # Captions

    def _notify(self) -> None:
        with self._wake:
            self._wake.notify_all()

    def _next_camera(self) -> Camera | None:
        """Return the camera to caption now; of several, the one that waited longest."""
        now = time.monotonic()
        ready = [camera for camera in self.cameras if camera.has_frame() and camera.next_due <= now]
        return min(ready, key=lambda camera: camera.last_served, default=None)

    def _caption_frames(self) -> None:
        """Caption the newest frames until the node is no longer active; a thread of its own."""
        thread = threading.current_thread()
        while self._active and self._thread in (thread, None):
            with self._wake:
                continuous = self.get_parameter('mode').value == 'continuous'
                camera = self._next_camera() if continuous else None
                if camera is None:
                    # Whoever is due next without a frame will be announced by its frame.
                    now = time.monotonic()
                    due = [c.next_due - now for c in self.cameras if c.next_due > now]
                    self._wake.wait(timeout=min(due, default=1.0) if continuous else 1.0)
                    continue
            try:
                rate = self.get_parameter('max_rate_hz').value
                camera.last_served = time.monotonic()
                camera.next_due = camera.last_served + 1 / rate if rate else 0.0
                frame = camera.take(self.get_parameter('max_frame_age_s').value)
                if frame is not None:
                    self._caption_frame(camera, frame)
            except Exception:  # a frame must not end the thread
                self.get_logger().error(
                    f'{camera.topic}: {traceback.format_exc()}', throttle_duration_sec=5.0)

    def _caption_frame(self, camera: Camera, frame: Frame) -> Caption | None:
        """Caption a frame and publish what is asked for; None if it could not be."""
        captioner, subscribed_at = self.captioner, camera.subscribed_at
        if captioner is None:
            return None
        try:
            decode = decode_compressed if camera.compressed else decode_image
            image = decode(frame.message)
        except ValueError as error:
            camera.counters.bad += 1
            self._report_frame_error(camera, str(error))
            return None
        try:
            caption = captioner.caption(image)
        except (CaptionerError, ValueError) as error:
            if self._active:
                self._report_frame_error(camera, str(error))
            return None
        self.frame_errors.pop(camera.name, None)
        with self._outputs:
            # Not if it was deactivated meanwhile, even if it is active again.
            if self._active and camera.subscribed_at == subscribed_at:
                camera.counters.captioned += 1
                self._publish(camera, frame, image, caption)
        return caption

    def _report_frame_error(self, camera: Camera, text: str) -> None:
        self.frame_errors[camera.name] = text
        self.get_logger().warning(f'{camera.topic}: {text}', throttle_duration_sec=5.0)

    def _publish(
            self, camera: Camera, frame: Frame, image: np.ndarray, caption: Caption) -> None:
        header = frame.message.header
        age = self.get_clock().now() - Time.from_msg(header.stamp)
        latency = time.monotonic() - frame.arrived
        self.rates.add(latency, caption.seconds)
        if caption.text != camera.last_text or self.get_parameter('publish_unchanged').value:
            camera.caption_publisher.publish(String(data=caption.text))
        camera.last_text = caption.text
        camera.info_publisher.publish(String(data=json.dumps({
            'stamp': {'sec': header.stamp.sec, 'nanosec': header.stamp.nanosec},
            'frame_id': header.frame_id, 'topic': camera.topic, 'caption': caption.text,
            'score': round(caption.score, 4), 'model': caption.model,
            'latency_ms': round(latency * 1e3, 1), 'age_ms': round(age.nanoseconds / 1e6, 1),
            'attention_peak': {'x': caption.peak[0], 'y': caption.peak[1]}})))
        if self.get_parameter('publish_image').value \
                and camera.image_publisher.get_subscription_count():
            attention = caption.attention if self.get_parameter('draw_attention').value else None
            drawn = draw_caption(image, caption.text, attention)
            camera.image_publisher.publish(Image(
                header=header, height=drawn.shape[0], width=drawn.shape[1], encoding='rgb8',
                is_bigendian=0, step=3 * drawn.shape[1], data=drawn.tobytes()))

    # Services

    def _create_services(self) -> None:
        groups = [('~/caption_now', self.cameras)]
        if len(self.cameras) > 1:
            groups += [(f'{camera.prefix}/caption_now', [camera]) for camera in self.cameras]
        for name, cameras in groups:
            self._caption_services.append(self.create_service(
                Trigger, name,
                lambda request, response, cameras=cameras: self._caption_now(response, cameras),
                callback_group=ReentrantCallbackGroup()))

    def _caption_now(self, response, cameras: list[Camera]):
        """Caption the newest frame; publish it too."""
        response.success = False
        try:
            frames = [(camera.newest(), camera) for camera in cameras if camera.newest()]
            if not self._active:
                response.message = f'the node is {self.state_label}, not active'
            elif not frames:
                topics = ', '.join(camera.topic for camera in cameras)
                response.message = f'no frame has come on {topics} yet'
            else:
                frame, camera = max(frames, key=lambda pair: pair[0].arrived)
                silent = time.monotonic() - frame.arrived
                if silent > SILENT_S:
                    response.message = f'the newest frame on {camera.topic} is {silent:.0f} s old'
                else:
                    caption = self._caption_frame(camera, frame)
                    response.success = caption is not None
                    response.message = caption.text if caption else self.frame_errors.get(
                        camera.name, 'the node was deactivated')
        except Exception as error:
            self.get_logger().error(traceback.format_exc())
            response.message = str(error)
        return response


def main(args: list[str] | None = None) -> int:
    """Run the node until it is told to end."""
    node = executor = None
    try:
        rclpy.init(args=args)
        node = CaptionerNode()
        executor = NodeExecutor(node)
        release_file_pages()
        while rclpy.ok():
            try:
                executor.spin()
            except (KeyboardInterrupt, ExternalShutdownException):
                break
            except Exception:  # of what was taken apart while the executor waited for it
                if not rclpy.ok():  # the signal came between two waits
                    break
                node.get_logger().error(traceback.format_exc(), throttle_duration_sec=1.0)
                time.sleep(0.1)
    except ParameterError as error:
        rclpy.logging.get_logger('captioner').fatal(str(error))
        return 1
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        # A second Ctrl-C must not interrupt the tidying up.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if node is not None:
            node.release()
        if executor is not None:
            executor.shutdown(timeout_sec=1)
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
