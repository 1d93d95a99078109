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

import traceback
from typing import Any

from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn

from .base import CaptionerBase
from .bond import Bond
from .camera_topics import camera_names, resolve_image_topics
from .camera_watch import CameraWatch
from .cameras import Camera
from .caption_loop import CaptionLoop
from .caption_service import CaptionService
from .managed_node import transition
from .parameter_changes import ParameterChanges, SETTINGS
from .parameters import declare_parameters
from .reporter import Reporter
from ..engine.captioner import Captioner, CaptionerError
from ..engine.plan import make_plan
from ..engine.settings import CaptionerSettings
from ..engine.stages import Stage

SERVICES = (('caption_now', False), ('ask', True))  # and whether they ask


class CaptionerNode(CaptionerBase):
    """Subscribes to cameras and publishes captions while it is active."""

    def __init__(self, **kwargs: Any) -> None:
        self._bond: Bond | None = None
        self._reporter: Reporter | None = None
        self._caption_services: list[CaptionService] = []  # of each of several cameras
        super().__init__(**kwargs)
        declare_parameters(self)
        self._parameter_changes = ParameterChanges(
            self, lambda: self.state_label == 'unconfigured', lambda: self.captioner,
            self._parameters_changed)
        for name, asks in SERVICES:
            CaptionService(self, f'~/{name}', None, asks)
        self._reporter = Reporter(self)
        self._log_next('unconfigured', 'configure')

    def destroy_node(self) -> None:
        """Take the node apart; what activate and configure began was released before."""
        if self._reporter is not None:
            self._reporter.close()
        super().destroy_node()

    # Transitions

    @transition
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model and create the outputs, or leave nothing behind."""
        self.failure = ''
        self.release()
        try:
            topics = resolve_image_topics(
                self, self.get_parameter('image_topics').value,
                self.get_parameter('image_transport').value == 'compressed')
            names = camera_names(topics, self.get_parameter('camera_names').value)
            self.captioner = Captioner(
                CaptionerSettings(**{name: self.get_parameter(name).value for name in SETTINGS}),
                on_stage=self._log_stage, log=self._log)
            plan = make_plan(self.captioner.settings, read=False)
            self.get_logger().info(f'plan: {plan.sentence()}')
            self.captioner.configure()
            self._create_cameras(topics, names)
        except Exception as error:
            self.release()
            self.failure = f'configure failed: {error}'
            self.get_logger().error(
                self.failure if isinstance(error, (CaptionerError, ValueError))
                else f'{self.failure}\n{traceback.format_exc()}')
            return TransitionCallbackReturn.FAILURE
        self._log_next('inactive', 'activate')
        return super().on_configure(state)

    @transition
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe to the cameras and begin to caption."""
        try:
            self._bond = Bond(self, self.get_parameter('bond').value)
            for camera in self.cameras:
                camera.start()
        except Exception:
            self._stop()
            raise
        result = super().on_activate(state)
        assert self.captioner is not None  # configured, or there was no activating it
        self.loop = CaptionLoop(self, self.captioner, self.cameras, self.rates)
        self.loop.start()
        assert self._reporter is not None  # made with the node
        self._reporter.watch = CameraWatch(self)
        self._log_active()
        return result

    @transition
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop to caption; a caption that is being made is not published."""
        self._stop()
        self._log_next('inactive', 'activate')
        return super().on_deactivate(state)

    @transition
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Give the model's memory back."""
        self.release()
        self._log_next('unconfigured', 'configure')
        return TransitionCallbackReturn.SUCCESS

    @transition
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release everything, from whatever state."""
        self.release()
        return TransitionCallbackReturn.SUCCESS

    @transition
    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
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
        if self.loop is not None:
            self.loop.stop()
        for camera in self.cameras:
            camera.stop()
        bond, self._bond = self._bond, None
        if bond is not None:
            bond.break_()

    def release(self) -> None:
        """End what activate and configure began."""
        captioner, self.captioner = self.captioner, None
        if captioner is not None:
            captioner.close()
        self._stop()
        loop, self.loop = self.loop, None
        if loop is not None:
            loop.join()
        for service in self._caption_services:
            service.destroy()
        self._caption_services = []
        for camera in self.cameras:
            camera.destroy()
        self.cameras = []

    def _create_cameras(self, topics: list[str], names: list[str]) -> None:
        prefixes = ['~'] if len(topics) == 1 else [f'~/{name}' for name in names]
        for topic, name, prefix in zip(topics, names, prefixes):
            self.cameras.append(
                Camera(self, topic, name, prefix, self._notify, self._attend))
        if len(topics) > 1:
            self._caption_services = [
                CaptionService(self, f'{prefix}/{name}', camera, asks)
                for prefix, camera in zip(prefixes, self.cameras) for name, asks in SERVICES]

    # What others tell it, and what it tells

    def _parameters_changed(self) -> None:
        for camera in self.cameras:
            camera.scene.forget()
        self._attend()

    def _notify(self) -> None:
        loop = self.loop
        if loop is not None:
            loop.notify()

    def _attend(self) -> None:
        loop = self.loop
        if loop is not None:
            loop.attend_now()

    def _log(self, severity: str, text: str) -> None:
        # A line each: rclpy remembers the severity by the line that logs.
        logger = self.get_logger()
        if severity == 'error':
            logger.error(text)
        elif severity == 'warning':
            logger.warning(text)
        else:
            logger.info(text)

    def _log_stage(self, stage: Stage) -> None:
        self.get_logger().info(
            f'stage {stage.name}: {stage.seconds:.2f} s, worker RSS {stage.rss_mb:.0f} MB, '
            f'{stage.available_mb:.0f} MB available')

    def _log_next(self, state: str, transition: str) -> None:
        name = self.get_fully_qualified_name()
        self.get_logger().info(f'{state}: waits for `ros2 lifecycle set {name} {transition}`')

    def _log_active(self) -> None:
        transport, reliability = (
            self.get_parameter(name).value for name in ('image_transport', 'image_reliability'))
        for camera in self.cameras:
            self.get_logger().info(
                f'active: captions {camera.topic} ({transport}, {reliability}) on '
                f'{camera.outputs.caption_topic}')
