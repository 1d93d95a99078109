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

"""The node under a lifecycle manager that behaves as Nav2's does."""

import signal
import threading
import time

from lifecycle_manager import LifecycleManager
from lifecycle_msgs.msg import State
from node_process import NodeProcess
import pytest
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter

SIMPLE = {'model': 'simple', 'bond': 'auto'}
BOND_TIMEOUT = 4.0  # seconds; Nav2's default


@pytest.fixture
def bonds():
    """Skip where there is no bond to be had."""
    pytest.importorskip('bondpy.bondpy', reason='bondpy is not installed')


def in_domain_of(node: NodeProcess) -> dict:
    return {'ROS_DOMAIN_ID': str(node.domain)}


def test_every_command_and_some_that_are_not_allowed():
    with NodeProcess(SIMPLE, ['-r', '__ns:=/robot1'], name='/robot1/captioner') as node, \
            LifecycleManager(node.domain, ['captioner'], '/robot1') as manager:
        assert manager.startup()
        assert node.state() == 'active'
        assert manager.pause()
        assert node.state() == 'inactive'
        assert not manager.reset()  # deactivates what is inactive
        assert manager.resume()
        assert node.state() == 'active'
        assert not manager.startup()  # configures what is active
        assert manager.reset()
        assert node.state() == 'unconfigured' and not node.workers()
        assert not manager.resume()  # activates what is unconfigured
        assert manager.startup() and manager.pause()
        assert manager.reset(hard=True)  # whatever deactivate answers
        assert node.state() == 'unconfigured'
        assert manager.startup()
        manager.shutdown()
        assert node.state() == 'finalized' and not node.workers()
        assert node.end() == 0
        assert 'Traceback' not in node.output()


def test_the_state_is_told_during_a_long_configure():
    with NodeProcess({'model': 'mobilenet'}) as node, \
            LifecycleManager(node.domain, ['captioner']) as manager:
        startup = threading.Thread(target=manager.startup)
        startup.start()
        states = set()
        while startup.is_alive():
            states.add(manager.state('captioner'))  # raises if it takes 2 s
            time.sleep(0.05)
        assert State.TRANSITION_STATE_CONFIGURING in states
        assert manager.is_active and node.state() == 'active'


def test_several_nodes_come_up_together_or_not_at_all(tmp_path):
    broken = {**SIMPLE, 'checkpoint': str(tmp_path / 'missing.safetensors')}
    with NodeProcess(SIMPLE) as front, NodeProcess(
            broken, ['-r', '__node:=rear'], in_domain_of(front), name='/rear') as rear, \
            LifecycleManager(front.domain, ['captioner', 'rear']) as manager:
        assert not manager.startup()
        assert front.state() == 'inactive'  # configured, but never activated
        assert manager.state('rear') == State.PRIMARY_STATE_UNCONFIGURED
        rear.wait_for(lambda: 'missing.safetensors' in rear.output())
        # As an operator would: mend it, reset, start up.
        assert rear.process.poll() is None
        client = front.node.create_client(SetParameters, '/rear/set_parameters')
        front.wait_for(client.service_is_ready)
        future = client.call_async(SetParameters.Request(
            parameters=[Parameter('checkpoint', value='').to_parameter_msg()]))
        front.wait_for(future.done)
        assert future.result().results[0].successful
        assert manager.reset(hard=True) and manager.startup()
        assert manager.state('rear') == State.PRIMARY_STATE_ACTIVE


@pytest.mark.parametrize('namespace', ['', '/robot1'])
def test_the_bond_forms_with_activate_and_ends_with_deactivate(bonds, namespace):
    with NodeProcess(
            SIMPLE, ['-r', f'__ns:={namespace or "/"}'], name=f'{namespace}/captioner') as node, \
            LifecycleManager(node.domain, ['captioner'], namespace, BOND_TIMEOUT) as manager:
        assert manager.startup()
        for _ in range(2):
            assert manager.pause() and manager.resume()
        until = time.monotonic() + BOND_TIMEOUT + 1
        while time.monotonic() < until:
            assert manager.check_bonds()
            time.sleep(0.2)
        assert manager.reset() and manager.startup()
        manager.shutdown()
        assert node.end() == 0
        assert 'Traceback' not in node.output()


def wait_for_broken_bond(manager: LifecycleManager) -> None:
    deadline = time.monotonic() + 2 * BOND_TIMEOUT
    while manager.check_bonds():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_a_node_that_ends_breaks_its_bond_and_stops_the_others(bonds):
    with NodeProcess(SIMPLE) as front, \
            NodeProcess(SIMPLE, ['-r', '__node:=rear'], in_domain_of(front), '/rear') as rear, \
            LifecycleManager(
                front.domain, ['rear', 'captioner'], bond_timeout=BOND_TIMEOUT) as manager:
        assert manager.startup()
        time.sleep(1.5)  # silence is noticed from the second heartbeat on
        assert rear.end(signal.SIGTERM) == 0
        wait_for_broken_bond(manager)
        # The clean-up after it is not reached, as one node did not answer.
        assert front.state() == 'inactive'


def test_a_node_that_stalled_is_reset_and_comes_back(bonds):
    with NodeProcess(SIMPLE) as node, LifecycleManager(
            node.domain, ['captioner'], bond_timeout=BOND_TIMEOUT) as manager:
        assert manager.startup()
        time.sleep(1.5)
        node.process.send_signal(signal.SIGSTOP)
        goes_on = threading.Timer(
            BOND_TIMEOUT + 1.5, node.process.send_signal, (signal.SIGCONT,))
        goes_on.start()
        wait_for_broken_bond(manager)
        goes_on.join()
        assert node.state() == 'unconfigured' and not node.workers()
        assert manager.startup()


def test_a_node_without_a_bond_is_not_accepted(bonds):
    with NodeProcess({**SIMPLE, 'bond': 'none'}) as node, \
            LifecycleManager(
                node.domain, ['captioner'], bond_timeout=BOND_TIMEOUT) as manager:
        assert not manager.startup()
        assert node.state() == 'active'  # all the same: only the manager minds


def test_managers_that_die_leave_the_node_active_for_the_next(bonds):
    with NodeProcess(SIMPLE) as node:
        for silence in (BOND_TIMEOUT + 1, BOND_TIMEOUT + 1, 0):
            with LifecycleManager(
                    node.domain, ['captioner'], bond_timeout=BOND_TIMEOUT) as manager:
                assert manager.reset(hard=True) and manager.startup()
                time.sleep(1.5)  # silence is noticed from the second heartbeat on
                manager.die()
            time.sleep(silence)
            assert node.state() == 'active' and node.process.poll() is None
        with LifecycleManager(node.domain, ['captioner'], bond_timeout=BOND_TIMEOUT) as manager:
            assert manager.reset() and manager.startup() and manager.check_bonds()
        assert 'Traceback' not in node.output()


def test_bond_on_without_bondpy_fails_and_says_so():
    try:
        import bondpy.bondpy  # noqa: F401
    except ImportError:
        pass
    else:
        pytest.skip('bondpy is installed')
    with NodeProcess({**SIMPLE, 'bond': 'required'}) as node:
        assert node.change('configure') and not node.change('activate')
        assert node.state() == 'inactive'
        node.wait_for(lambda: 'bondpy' in node.output())
        assert node.set_parameter('bond', 'auto').successful is False  # only while unconfigured
        assert node.change('cleanup') and node.set_parameter('bond', 'auto').successful
        assert node.change('configure') and node.change('activate')
        assert node.state() == 'active'
