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
A client that treats managed nodes as Nav2's lifecycle manager does.

The order, the requests and the time limits are those of nav2_lifecycle_manager: bring up in
order and take down in reverse, no time limit for a transition but one for the state after it,
illegal requests included (reset after pause deactivates what is inactive), and a bond that must
form within half its timeout and whose break resets every node.
"""

import threading
from typing import Any

from jetcap_ros.node.bond import take_apart
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
import rclpy
from rclpy.context import Context
from rclpy.duration import Duration
from rclpy.exceptions import InvalidHandle
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor

GOALS = {
    Transition.TRANSITION_CONFIGURE: State.PRIMARY_STATE_INACTIVE,
    Transition.TRANSITION_CLEANUP: State.PRIMARY_STATE_UNCONFIGURED,
    Transition.TRANSITION_ACTIVATE: State.PRIMARY_STATE_ACTIVE,
    Transition.TRANSITION_DEACTIVATE: State.PRIMARY_STATE_INACTIVE,
    Transition.TRANSITION_UNCONFIGURED_SHUTDOWN: State.PRIMARY_STATE_FINALIZED,
}
BRING_UP = (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE)


class NoAnswer(Exception):
    """A service was not there, or did not answer in its time."""


class LifecycleManager:
    """
    Manages nodes; a context manager.

    :param node_names: in the order of bringing up; relative to the namespace.
    :param bond_timeout: seconds; 0 is without bonds, as where bondpy is not installed.
    :param service_timeout: seconds for `get_state`; Humble's are the shortest.
    """

    def __init__(
            self, domain_id: int, node_names: list[str], namespace: str = '',
            bond_timeout: float = 0.0, service_timeout: float = 2.0) -> None:
        self.is_active = False
        self._node_names = node_names
        self._bond_timeout = bond_timeout
        self._service_timeout = service_timeout
        self._bonds: dict[str, Any] = {}
        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain_id)
        self.node = rclpy.create_node(
            'lifecycle_manager', namespace=namespace, context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()
        self._services = {
            name: (self.node.create_client(ChangeState, f'{name}/change_state'),
                   self.node.create_client(GetState, f'{name}/get_state'))
            for name in node_names}
        for _, get_state in self._services.values():
            if not get_state.wait_for_service(10.0):
                raise NoAnswer(f'{get_state.srv_name} is not there')

    def __enter__(self) -> 'LifecycleManager':
        return self

    def __exit__(self, *exc_info) -> None:
        for name in list(self._bonds):
            self._drop_bond(name)
        rclpy.try_shutdown(context=self._context)
        self._thread.join()
        self._executor.shutdown()
        self.node.destroy_node()

    def die(self) -> None:
        """End as by a crash: the bonds fall silent, none is broken."""
        rclpy.shutdown(context=self._context)

    def startup(self) -> bool:
        """Configure all nodes, then activate all."""
        self.is_active = all(self._change_all(transition) for transition in BRING_UP)
        return self.is_active

    def configure(self) -> bool:
        """Configure all nodes."""
        return self._change_all(Transition.TRANSITION_CONFIGURE)

    def pause(self) -> bool:
        """Deactivate all nodes."""
        self.is_active = False
        return self._change_all(Transition.TRANSITION_DEACTIVATE)

    def resume(self) -> bool:
        """Activate all nodes."""
        self.is_active = self._change_all(Transition.TRANSITION_ACTIVATE)
        return self.is_active

    def reset(self, hard: bool = False) -> bool:
        """Deactivate all nodes, then clean up all; if hard, whatever each answers."""
        self.is_active = False
        succeeded = all(
            self._change_all(transition, hard) for transition in (
                Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP))
        return succeeded or hard

    def shutdown(self) -> None:
        """Deactivate, clean up and shut down, whatever the nodes answer."""
        self.is_active = False
        for transition in (
                Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP,
                Transition.TRANSITION_UNCONFIGURED_SHUTDOWN):
            self._change_all(transition)

    def check_bonds(self) -> bool:
        """Say whether all bonds hold; reset all nodes if not. Nav2 does so every 0.2 s."""
        if not any(bond.is_broken() for bond in self._bonds.values()):
            return True
        self.reset(hard=True)
        for name in list(self._bonds):
            self._drop_bond(name)
        return False

    def state(self, name: str) -> int:
        """Return the id of a node's state."""
        request = GetState.Request()
        return self._call(self._services[name][1], request, self._service_timeout).current_state.id

    def _change_all(self, transition: int, hard: bool = False) -> bool:
        names = self._node_names if transition in BRING_UP else self._node_names[::-1]
        try:
            # A generator, so that the nodes after one that fails are left alone.
            return all(self._change(name, transition) or hard for name in names)
        except NoAnswer:
            return False

    def _change(self, name: str, transition: int) -> bool:
        request = ChangeState.Request()
        request.transition.id = transition
        # Nav2 waits without a limit; a minute is one for a test.
        if not self._call(self._services[name][0], request, 60.0).success \
                or self.state(name) != GOALS[transition]:
            return False
        if transition == Transition.TRANSITION_ACTIVATE:
            return self._bond(name)
        if transition == Transition.TRANSITION_DEACTIVATE:
            self._drop_bond(name)
        return True

    def _bond(self, name: str) -> bool:
        if self._bond_timeout == 0 or name in self._bonds:
            return True
        from bondpy.bondpy import Bond
        bond = self._bonds[name] = Bond(self.node, 'bond', name)
        bond.heartbeat_timeout = self._bond_timeout
        bond.heartbeat_period = 0.1
        bond.start()
        return bond.wait_until_formed(Duration(seconds=self._bond_timeout / 2))

    def _drop_bond(self, name: str) -> None:
        bond = self._bonds.pop(name, None)
        if bond is not None:
            take_apart(bond)

    def _call(self, client: Any, request: Any, timeout: float) -> Any:
        if not client.wait_for_service(self._service_timeout):
            raise NoAnswer(f'{client.srv_name} is not there')
        future = client.call_async(request)
        answered = threading.Event()
        future.add_done_callback(lambda _: answered.set())
        if not answered.wait(timeout):
            raise NoAnswer(f'{client.srv_name} did not answer within {timeout} s')
        return future.result()

    def _spin(self) -> None:
        while self._context.ok():
            try:
                self._executor.spin()
            except InvalidHandle:  # of a bond that went while the executor gathered what it has
                continue
            except ExternalShutdownException:
                return
