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

import platform
import signal
import time
import traceback
from typing import Any

import cv2
from diagnostic_msgs.msg import DiagnosticArray
import numpy as np
import rclpy
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType  # type: ignore[attr-defined]  # there on Humble
from rclpy.executors import ExternalShutdownException
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn

from .bond import Bond
from .cameras import Camera, camera_names
from .caption_loop import CaptionLoop
from .caption_service import CaptionService
from .diagnostics import diagnostic_array, Rates
from .executor import NodeExecutor
from .managed_node import ManagedNode, transition
from .parameters import declare_parameters, on_set_parameters, ParameterError
from .. import __version__
from ..engine.captioner import Captioner, CaptionerError
from ..engine.plan import make_plan
from ..engine.settings import CaptionerSettings
from ..engine.stages import Stage
from ..memory.file_pages import release_file_pages

SETTINGS = tuple(CaptionerSettings.__dataclass_fields__)


class CaptionerNode(ManagedNode):
    """Subscribes to cameras and publishes captions while it is active."""

    def __init__(self, **kwargs: Any) -> None:
        self.captioner: Captioner | None = None
        self.cameras: list[Camera] = []
        self.failure = ''  # why the last configure failed
        self.loop: CaptionLoop | None = None  # of the last time the node was active
        self.rates = Rates()
        self.versions = {
            'version': __version__, 'OpenCV': cv2.__version__, 'NumPy': np.__version__,
            'Python': platform.python_version()}
        self._bond: Bond | None = None
        self._caption_services: list[CaptionService] = []
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
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
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
        return super().on_configure(state)

    @transition
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe to the cameras and begin to caption."""
        try:
            self._bond = Bond(self, self.get_parameter('bond').value)
            for camera in self.cameras:
                camera.subscribe()
        except Exception:
            self._stop()
            raise
        result = super().on_activate(state)
        assert self.captioner is not None  # configured, or there was no activating it
        self.loop = CaptionLoop(self, self.captioner, self.cameras, self.rates)
        self.loop.start()
        return result

    @transition
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop to caption; a caption that is being made is not published."""
        self._stop()
        return super().on_deactivate(state)

    @transition
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Give the model's memory back."""
        self.release()
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
            self.cameras.append(Camera(self, topic, name, prefix, self._notify))
        served = [('~', self.cameras)]
        if len(topics) > 1:
            served += [(prefix, [camera]) for prefix, camera in zip(prefixes, self.cameras)]
        self._caption_services = [
            CaptionService(self, f'{prefix}/{name}', cameras, asks)
            for prefix, cameras in served for name, asks in (('caption_now', False), ('ask', True))]

    # Parameters and logging

    def _apply(self, values: dict[str, Any]) -> None:
        captioner = self.captioner
        for name, value in values.items():
            if captioner is not None and name in SETTINGS:
                setattr(captioner.settings, name, value)
        self._notify()

    def _notify(self) -> None:
        loop = self.loop
        if loop is not None:
            loop.notify()

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

    def _publish_diagnostics(self) -> None:
        if self.context.ok():
            self._diagnostics.publish(diagnostic_array(self))


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
