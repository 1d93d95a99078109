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

"""Start the captioner, and take it to active unless autostart:=false."""

import asyncio
from collections.abc import Callable
from pathlib import Path
import time

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, RegisterEventHandler
from launch.event_handlers import OnProcessExit, OnProcessStart
from launch.logging import get_logger
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode
from launch_ros.event_handlers import OnStateTransition
from launch_ros.ros_adapters import get_ros_node
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState

BOOLEAN = ['true', 'false', 'True', 'False']


def generate_launch_description() -> LaunchDescription:
    """Return the arguments and the node."""
    config = Path(__file__).parent.parent / 'config' / 'captioner.yaml'
    return LaunchDescription([
        DeclareLaunchArgument(
            'autostart', default_value='true', choices=BOOLEAN,
            description='configure and activate the node when its process starts; false leaves '
                        'that to a lifecycle manager or to ros2 lifecycle'),
        DeclareLaunchArgument(
            'namespace', default_value='',
            description='namespace of the node, of its topics and of relative image topics'),
        DeclareLaunchArgument(
            'params_file', default_value=str(config),
            description='YAML file with the parameters of the node; the arguments below '
                        'take precedence where they are not empty'),
        DeclareLaunchArgument(
            'image_topic', default_value='',
            description='topic of the camera, or several, separated by commas'),
        DeclareLaunchArgument(
            'camera_names', default_value='',
            description='names of the cameras in the output topics, separated by commas, one for '
                        'each of several image topics; empty takes them from the topics'),
        DeclareLaunchArgument(
            'image_transport', default_value='', choices=['', 'raw', 'compressed'],
            description='raw sensor_msgs/Image, or CompressedImage on <topic>/compressed'),
        DeclareLaunchArgument(
            'model', default_value='', choices=['', 'server', 'mobilenet', 'simple'],
            description='mobilenet runs in PyTorch, simple in OpenCV and NumPy; server is a '
                        'vision-language model: config/server.yaml as params_file says which'),
        DeclareLaunchArgument(
            'fallback', default_value='', choices=['', 'mobilenet', 'simple', 'none'],
            description='what takes over when the model cannot be loaded or dies; with none, '
                        'configure fails'),
        DeclareLaunchArgument(
            'log_level', default_value='info',
            choices=['debug', 'info', 'warn', 'error', 'fatal'],
            description='the least level of message that is logged'),
        DeclareLaunchArgument(
            'use_sim_time', default_value='', choices=['', *BOOLEAN],
            description='take the time from /clock, as with a simulator or a bag'),
        DeclareLaunchArgument(
            'respawn', default_value='false', choices=BOOLEAN,
            description='start the process again, 2 s after it ended for whatever reason'),
        OpaqueFunction(function=_start),
    ])


def _start(context: LaunchContext) -> list:
    """Return the node with the arguments that were given."""
    def given(argument: str) -> str:
        return LaunchConfiguration(argument).perform(context)

    overrides = {
        name: given(name) for name in ('model', 'fallback', 'image_transport') if given(name)}
    if given('use_sim_time'):
        overrides['use_sim_time'] = given('use_sim_time').lower() == 'true'
    for argument, name in (('image_topic', 'image_topics'), ('camera_names', 'camera_names')):
        values = [value.strip() for value in given(argument).split(',')]
        if any(values):
            if not all(values):
                raise RuntimeError(
                    f'{argument}:={given(argument)} has an empty name, expected one between commas')
            overrides[name] = values
    node = LifecycleNode(
        package='jetcap_ros', executable='captioner', name='captioner',
        namespace=given('namespace'), parameters=[given('params_file'), overrides],
        arguments=['--ros-args', '--log-level', given('log_level')],
        respawn=given('respawn').lower() == 'true', respawn_delay=2.0,
        output='screen', emulate_tty=True)
    handlers = _autostart(node) if given('autostart').lower() == 'true' else []
    if given('respawn').lower() == 'false':
        handlers += _end_with(node)
    return [*handlers, node]


def _end_with(node: LifecycleNode) -> list:
    """
    Return handlers that end launch with an error if the node ends before it was ever up.

    Launch would wait for its services, and a lifecycle manager too. A node that dies later takes
    nothing else with it.
    """
    was_up = False

    def on_transition(context: LaunchContext) -> list:
        nonlocal was_up
        was_up = True
        return []

    def on_exit(event, context) -> list:
        if not was_up and not context.is_shutdown:
            raise RuntimeError(f'captioner has ended with code {event.returncode}, see above')
        return []

    return [
        RegisterEventHandler(OnStateTransition(
            target_lifecycle_node=node, entities=[OpaqueFunction(function=on_transition)])),
        RegisterEventHandler(OnProcessExit(target_action=node, on_exit=on_exit))]


def _autostart(node: LifecycleNode) -> list:
    """
    Return handlers that configure the node when its process starts, and then activate it.

    Only that one configure is followed by an activate: a later one, by hand or by a manager, is
    theirs. The events of launch_ros would do it in a thread that waits for the node's services,
    also when node and launch are ending.
    """
    changes = 0  # starts and ends of processes

    def on_start(event, context: LaunchContext) -> list:
        nonlocal changes
        changes += 1
        own = changes
        context.add_completion_future(context.asyncio_loop.create_task(
            _bring_up(node, context, lambda: context.is_shutdown or changes != own)))
        return []

    def on_exit(event, context: LaunchContext) -> list:
        nonlocal changes
        changes += 1
        return []

    return [
        RegisterEventHandler(OnProcessStart(target_action=node, on_start=on_start)),
        RegisterEventHandler(OnProcessExit(target_action=node, on_exit=on_exit))]


async def _bring_up(
        node: LifecycleNode, context: LaunchContext, is_over: Callable[[], bool]) -> None:
    """Configure the node and activate it, unless it is over before."""
    ros_node = get_ros_node(context)
    get_state = ros_node.create_client(GetState, f'{node.node_name}/get_state')
    change_state = ros_node.create_client(ChangeState, f'{node.node_name}/change_state')

    async def state() -> int | None:
        answer = get_state.call_async(GetState.Request())
        end = time.monotonic() + 1.0
        while not is_over() and not answer.done() and time.monotonic() < end:
            await asyncio.sleep(0.05)
        return answer.result().current_state.id if answer.done() else None

    # The services of a process that was killed look alive for up to 20 s, and take requests that
    # nobody answers.
    while not is_over() and (not change_state.service_is_ready() or await state() is None):
        await asyncio.sleep(0.05)
    for transition, goal in (
            (Transition.TRANSITION_CONFIGURE, State.PRIMARY_STATE_INACTIVE),
            (Transition.TRANSITION_ACTIVATE, State.PRIMARY_STATE_ACTIVE)):
        if is_over():
            return
        answer = change_state.call_async(ChangeState.Request(transition=Transition(id=transition)))
        # The answer may get lost where the node has yet to discover who asked.
        while not is_over() and not answer.done() and await state() != goal:
            await asyncio.sleep(0.1)
        if not is_over() and answer.done() and not answer.result().success:
            get_logger('captioner').error(
                'could not be configured and activated, see above for why; once that is mended: '
                f'ros2 lifecycle set {node.node_name} configure, then activate')
            return
