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

"""Runs the node on a ROS domain of its own, and asks of it what tests ask."""

from collections.abc import Callable, Sequence
import json
import os
import time
from typing import Any

from jetcap_ros.node.client import NodeClient
from jetcap_ros.node.domain import reserve_domain
from lifecycle_msgs.msg import TransitionEvent
from lifecycle_msgs.srv import GetState
import numpy as np
from rcl_interfaces.srv import DescribeParameters, SetParameters
from rclpy.parameter import Parameter
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
from std_msgs.msg import String
from std_srvs.srv import Trigger

DROPPED = 'failed to send response'  # says rclpy


class NodeProcess(NodeClient):
    """
    The captioner node in a process, and a client in this one; a context manager.

    :param environment: in addition to this process's.
    """

    def __init__(
            self, parameters: dict[str, Any] | None = None, arguments: Sequence[str] = (),
            environment: dict[str, str] | None = None, name: str = '/captioner',
            prefix: Sequence[str] = ()) -> None:
        self.domain, self._reserved = reserve_domain()
        self.captions: list[String] = []
        self.infos: list[dict[str, Any]] = []
        self.transitions: list[str] = []
        super().__init__(
            parameters, arguments, name=name, prefix=prefix, domain_id=self.domain,
            environment={**os.environ, 'ROS_DOMAIN_ID': str(self.domain),
                         'PYTHONUNBUFFERED': '1', **(environment or {})})
        self.listen('caption', self.captions.append)
        self.listen('caption_info', lambda message: self.infos.append(json.loads(message.data)))
        self.listen(
            'transition_event', lambda event: self.transitions.append(event.goal_state.label),
            TransitionEvent)

    def close(self) -> None:
        """Have nothing go on, at once."""
        for child in self.workers():
            child.kill()
        self.process.kill()
        super().close()
        self._reserved.close()

    def wait_for(self, condition: Callable[[], Any], timeout: float = 30, required=True) -> Any:
        """Wait until the condition holds; fail with the node's output if it does not in time."""
        value = super().wait_for(condition, timeout)
        assert value or not required, f'waited in vain; the node said:\n{self.output()}'
        return value

    def send(self, kind: Any, service: str, request: Any):
        """Call a service of the node; return the future of its answer."""
        client = self.service(kind, service)
        self.wait_for(client.service_is_ready)
        return client.call_async(request)

    def call(
            self, kind: Any, service: str, request: Any, timeout: float = 60,
            patience: float | None = None) -> Any:
        """
        Call a service of the node and return its answer; again where the node drops it.

        :param patience: seconds after which silence, too, counts as an answer that was dropped.
        """
        # The node may find the service's client before what its answers go to.
        for _ in range(10):
            drops = self.output().count(DROPPED)
            future = self.send(kind, service, request)
            self.wait_for(
                lambda: future.done() or self.output().count(DROPPED) > drops,
                patience or timeout, required=patience is None)
            if future.done():
                return future.result()
        raise AssertionError(f'no answer; the node said:\n{self.output()}')

    def send_change(self, transition: str):
        """Ask for a transition; return the future of the answer."""
        assert self.wait_for_start(30), self.output()
        return super().send_change(transition)

    def change(self, transition: str, timeout: float = 60) -> bool:
        """Ask for a transition and say whether it succeeded."""
        succeeded = super().change(transition, timeout)
        assert succeeded is not None, f'no answer; the node said:\n{self.output()}'
        return succeeded

    def state(self) -> str:
        """Return the label of the node's lifecycle state."""
        request = GetState.Request()
        return self.call(GetState, 'get_state', request, patience=6).current_state.label

    def set_parameter(self, name: str, value: Any):
        """Set a parameter; return the result (successful, reason)."""
        request = SetParameters.Request()
        request.parameters = [Parameter(name, value=value).to_parameter_msg()]
        return self.call(SetParameters, 'set_parameters', request).results[0]

    def describe(self, names: list[str]):
        """Return the descriptors of parameters."""
        return self.call(
            DescribeParameters, 'describe_parameters',
            DescribeParameters.Request(names=names)).descriptors

    def caption_now(self, service: str = 'caption_now') -> Trigger.Response:
        """Call a caption_now service."""
        return self.call(Trigger, service, Trigger.Request())

    def camera(self, topic: str = '/image_raw', qos=qos_profile_sensor_data, kind: Any = Image):
        """Return a publisher that the node has found."""
        publisher = self.node.create_publisher(kind, topic, qos)
        self.wait_for(publisher.get_subscription_count)
        return publisher

    def status(self, contains: str = '', after: int = 0, timeout: float = 10) -> Any:
        """Wait for a diagnostic status whose message contains a text; return it."""
        return self.wait_for(
            lambda: next((s for s in self.statuses[after:] if contains in s.message), None),
            timeout)

    def next_caption(self, publisher, image: Image, timeout: float = 30) -> dict[str, Any]:
        """Publish an image again and again, freshly stamped, until its caption comes."""
        seen = len(self.infos)
        deadline = time.monotonic() + timeout
        while len(self.infos) == seen:
            assert time.monotonic() < deadline, f'no caption; the node said:\n{self.output()}'
            image.header.stamp = self.node.get_clock().now().to_msg()
            publisher.publish(image)
            self.wait_for(lambda: len(self.infos) > seen, 0.2, required=False)
        return self.infos[-1]


def image_message(picture: np.ndarray, frame_id: str = 'camera') -> Image:
    """Return an rgb8 message of a picture."""
    message = Image(
        height=picture.shape[0], width=picture.shape[1], encoding='rgb8',
        step=3 * picture.shape[1], data=picture.tobytes())
    message.header.frame_id = frame_id
    return message
