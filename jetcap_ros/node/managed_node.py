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

"""
A lifecycle node that answers while a transition takes its time, and that no request can end.

What rclpy leaves open, on one distribution or another: an exception in a transition vanishes, a
transition that is not allowed ends spin, and `get_state` waits for a long configure.
"""

from collections.abc import Callable
import functools
import threading
import traceback
from typing import Any, TypeVar

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn

SHUTDOWNS = (
    Transition.TRANSITION_UNCONFIGURED_SHUTDOWN, Transition.TRANSITION_INACTIVE_SHUTDOWN,
    Transition.TRANSITION_ACTIVE_SHUTDOWN)

ManagedNodeT = TypeVar('ManagedNodeT', bound='ManagedNode')
TransitionCallback = Callable[[ManagedNodeT, LifecycleState], TransitionCallbackReturn]


def transition(callback: TransitionCallback[ManagedNodeT]) -> TransitionCallback[ManagedNodeT]:
    """Wrap a transition callback: an exception is logged, and the transition fails."""
    @functools.wraps(callback)
    def wrapped(self: ManagedNodeT, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            return callback(self, state)
        except Exception:
            self.get_logger().error(f'{callback.__name__} failed:\n{traceback.format_exc()}')
            return TransitionCallbackReturn.FAILURE
    return wrapped


class ManagedNode(LifecycleNode):
    """Base of nodes with long transitions; subclasses may override `cancel_transition`."""

    def __init__(self, node_name: str, **kwargs: Any) -> None:
        self._transition_lock = threading.Lock()
        super().__init__(node_name, **kwargs)
        # The services of the state machine, which rclpy puts into the default group: of their
        # own, so that they are answered while one of them is busy. The executor asks the
        # entity for its group, so moving it is enough.
        group = ReentrantCallbackGroup()
        for service in self.services:
            if service.srv_type.__module__.startswith('lifecycle_msgs.'):
                service.callback_group = group
                group.add_entity(service)
            if service.srv_type is ChangeState:
                self._perform_change = service.callback
                service.callback = self._change_state

    @property
    def state_label(self) -> str:
        """Return the label of the lifecycle state."""
        return self._state_machine.current_state[1]

    def cancel_transition(self) -> None:
        """Make a transition that is under way fail soon."""

    def _change_state(
            self, request: ChangeState.Request,
            response: ChangeState.Response) -> ChangeState.Response:
        """Serve one request at a time: a second one is refused, or ends a configure."""
        wanted = request.transition
        cleans_up = wanted.id == Transition.TRANSITION_CLEANUP or wanted.label == 'cleanup'
        shuts_down = wanted.id in SHUTDOWNS or wanted.label == 'shutdown'
        if not self._transition_lock.acquire(blocking=False):
            if self.state_label != 'configuring' or not (cleans_up or shuts_down):
                self.get_logger().warning(
                    f'transition {wanted.label or wanted.id} refused: the node is '
                    f'{self.state_label}')
                response.success = False
                return response
            self.cancel_transition()
            self._transition_lock.acquire()
            # The configure that failed has left the node as a clean-up would.
            if cleans_up and self.state_label == 'unconfigured':
                self._transition_lock.release()
                response.success = True
                return response
        try:
            if shuts_down:
                # The three shutdowns differ only by the state they start from, which may have
                # changed since the request was made.
                labels = {'unconfigured': 0, 'inactive': 1, 'active': 2}
                if self.state_label in labels:
                    wanted.id, wanted.label = SHUTDOWNS[labels[self.state_label]], ''
            response = self._perform_change(request, response)
        except Exception as error:  # on older distributions: a transition that is not allowed
            self.get_logger().warning(
                f'transition {wanted.label or wanted.id} refused in state {self.state_label}: '
                f'{error}')
            response.success = False
        finally:
            self._transition_lock.release()
        return response
