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

"""A bond with a lifecycle manager: the manager notices when the node has gone."""

import importlib
from typing import Any

from rclpy.node import Node

# As Nav2's nodes do: a manager may be told to give up after a second.
HEARTBEAT_PERIOD_S = 0.25
DISABLE_PARAMETER = '/bond_disable_heartbeat_timeout'  # bondpy's


class Bond:
    """
    A bond on the topic bond under the node's name, for as long as the node is active.

    :param mode: 'auto' (where bondpy is installed), 'required' or 'none'.
    :raises ImportError: if it is 'required' and bondpy is not installed.
    """

    def __init__(self, node: Node, mode: str) -> None:
        self._bond: Any = None
        if mode == 'none':
            return
        try:
            bondpy = importlib.import_module('bondpy.bondpy')
        except ImportError:
            if mode == 'required':
                raise
            return
        self._bond = bondpy.Bond(node, 'bond', node.get_name())
        self._bond.heartbeat_period = HEARTBEAT_PERIOD_S
        self._bond.start()

    def break_(self) -> None:
        """Say that the node is no longer active."""
        bond, self._bond = self._bond, None
        if bond is not None:
            take_apart(bond)


def take_apart(bond: Any) -> None:
    """
    Break a bond of bondpy and give back what it has of its node.

    Its own shutdown() destroys the subscription behind the node's back, and the executor
    stumbles over what is left of it for ever.
    """
    node = bond.node
    if node.context.ok():  # not after SIGTERM
        bond.break_bond()
    with bond.lock:
        bond.is_shutdown = True
        bond.condition.notify_all()
    for timer in (bond.connect_timer, bond.heartbeat_timer, bond.disconnect_timer):
        timer.cancel()
    # Declared by a bond that hears nothing any more, which fails if an earlier one has done so.
    if node.has_parameter(DISABLE_PARAMETER):
        node.undeclare_parameter(DISABLE_PARAMETER)
    node.destroy_subscription(bond.sub)
    node.destroy_publisher(bond.pub)
