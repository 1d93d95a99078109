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

"""Runs the node as a process, on a ROS domain of its own, and talks to it as others would."""

from collections.abc import Callable
import fcntl
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition, TransitionEvent
from lifecycle_msgs.srv import ChangeState, GetState
import numpy as np
import psutil
from rcl_interfaces.srv import DescribeParameters, SetParameters
import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
from std_msgs.msg import String
from std_srvs.srv import Trigger

TRANSITIONS = {
    'configure': Transition.TRANSITION_CONFIGURE, 'activate': Transition.TRANSITION_ACTIVATE,
    'deactivate': Transition.TRANSITION_DEACTIVATE, 'cleanup': Transition.TRANSITION_CLEANUP,
    'shutdown': Transition.TRANSITION_UNCONFIGURED_SHUTDOWN}


def reserve_domain():
    """
    Return a ROS domain that no other test on this machine uses, and what keeps it reserved.

    The latter is an open file; closing it gives the domain back.
    """
    domains = list(range(1, 101))  # those whose ports are free of the system's own use
    random.shuffle(domains)
    for domain in domains:
        lock = open(os.path.join(tempfile.gettempdir(), f'jetcap_ros_domain_{domain}'), 'w')
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return domain, lock
        except OSError:
            lock.close()
    raise RuntimeError('all ROS domains are in use')


class NodeProcess:
    """
    The captioner node in a process, and a client in this one; a context manager.

    :param parameters: of the node.
    :param arguments: more words for its command line, remappings say.
    """

    def __init__(
            self, parameters: dict[str, Any] | None = None, arguments: list[str] = (),
            environment: dict[str, str] | None = None, name: str = '/captioner',
            prefix: list[str] = ()) -> None:
        self.name = name
        self.domain, self._reserved = reserve_domain()
        self.captions: list[String] = []
        self.infos: list[dict[str, Any]] = []
        self.diagnostics: list[Any] = []
        self.transitions: list[str] = []
        words = [*prefix, sys.executable, '-m', 'jetcap_ros.node.captioner_node', '--ros-args']
        for key, value in (parameters or {}).items():
            words += ['-p', f'{key}:={json.dumps(value)}']
        self._output = tempfile.TemporaryFile('w+')
        self.process = subprocess.Popen(
            [*words, *arguments], stdout=self._output, stderr=subprocess.STDOUT,
            env={**os.environ, 'ROS_DOMAIN_ID': str(self.domain), **(environment or {}),
                 'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST', 'PYTHONUNBUFFERED': '1'})
        self._context = Context()
        rclpy.init(context=self._context, domain_id=self.domain)
        self.node = rclpy.create_node('test_client', context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._clients: dict[str, Any] = {}
        self.listen('caption', self.captions.append)
        self.listen('caption_info', lambda message: self.infos.append(json.loads(message.data)))
        self.node.create_subscription(
            DiagnosticArray, '/diagnostics', lambda m: self.diagnostics.append(m.status[0]), 10)
        self.node.create_subscription(
            TransitionEvent, f'{name}/transition_event',
            lambda event: self.transitions.append(event.goal_state.label), 10)

    def __enter__(self) -> 'NodeProcess':
        return self

    def __exit__(self, *exc_info) -> None:
        for child in self.workers():
            child.kill()
        self.process.kill()
        self.process.wait()
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self._context)
        self._output.close()
        self._reserved.close()

    def output(self) -> str:
        """Return what the node has printed so far."""
        self._output.seek(0)
        return self._output.read()

    def workers(self) -> list[psutil.Process]:
        """Return the node's living children."""
        try:
            return [
                child for child in psutil.Process(self.process.pid).children(recursive=True)
                if child.status() != psutil.STATUS_ZOMBIE]
        except psutil.NoSuchProcess:
            return []

    def spin(self, seconds: float) -> None:
        """Let time pass, and messages come in."""
        self.wait_for(lambda: False, seconds, required=False)

    def wait_for(self, condition: Callable[[], Any], timeout: float = 30, required=True) -> Any:
        """Spin until the condition holds; fail with the node's output if it does not in time."""
        deadline = time.monotonic() + timeout
        while True:
            value = condition()
            if value or time.monotonic() > deadline:
                break
            self._executor.spin_once(timeout_sec=0.02)
        assert value or not required, f'waited in vain; the node said:\n{self.output()}'
        return value

    def listen(self, topic: str, callback: Callable[[Any], None], kind: Any = String) -> None:
        """Subscribe to a topic of the node."""
        self.node.create_subscription(kind, f'{self.name}/{topic}', callback, 10)

    def send(self, kind: Any, service: str, request: Any):
        """Call a service of the node; return the future of its answer."""
        if service not in self._clients:
            self._clients[service] = self.node.create_client(kind, f'{self.name}/{service}')
        client = self._clients[service]
        self.wait_for(client.service_is_ready)
        return client.call_async(request)

    def call(self, kind: Any, service: str, request: Any, timeout: float = 60) -> Any:
        """Call a service of the node and return its answer."""
        future = self.send(kind, service, request)
        self.wait_for(future.done, timeout)
        return future.result()

    def send_change(self, transition: str):
        """Ask for a transition; return the future of the answer."""
        request = ChangeState.Request()
        request.transition.id = TRANSITIONS[transition]
        return self.send(ChangeState, 'change_state', request)

    def change(self, transition: str, timeout: float = 60) -> bool:
        """Ask for a transition and say whether it succeeded."""
        future = self.send_change(transition)
        self.wait_for(future.done, timeout)
        return future.result().success

    def state(self) -> str:
        """Return the label of the node's lifecycle state."""
        # The node may find the service's client before what its answers go to, and drop the answer.
        for _ in range(10):
            future = self.send(GetState, 'get_state', GetState.Request())
            if self.wait_for(future.done, 6, required=False):
                break
        assert future.done(), f'no answer; the node said:\n{self.output()}'
        return future.result().current_state.label

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
            lambda: next((s for s in self.diagnostics[after:] if contains in s.message), None),
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

    def end(self, signal_number: int = signal.SIGINT) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(signal_number)
        return self.process.wait(timeout=10)


def image_message(picture: np.ndarray, frame_id: str = 'camera') -> Image:
    """Return an rgb8 message of a picture."""
    message = Image(
        height=picture.shape[0], width=picture.shape[1], encoding='rgb8',
        step=3 * picture.shape[1], data=picture.tobytes())
    message.header.frame_id = frame_id
    return message
