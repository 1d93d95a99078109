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

"""Play a bag through the captioner in its own time, and record the captions."""

from pathlib import Path
import signal

from jetcap_ros.replay.played_bag import check_play, check_recorded, read_image_settings
from launch import LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument, EmitEvent, ExecuteProcess, IncludeLaunchDescription, LogInfo,
    OpaqueFunction, RegisterEventHandler, TimerAction)
from launch.event_handlers import OnProcessExit
from launch.events import matches_action, Shutdown
from launch.events.process import SignalProcess
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.event_handlers import OnStateTransition


def generate_launch_description() -> LaunchDescription:
    """Return the arguments, the captioner, and recorder and player once that is active."""
    captioner = PythonLaunchDescriptionSource(str(Path(__file__).parent / 'captioner.launch.py'))
    return LaunchDescription([
        DeclareLaunchArgument('bag', description='the bag to play, with the camera in it'),
        DeclareLaunchArgument(
            'output', default_value='captions',
            description='the bag to record the captions in; it must not exist yet'),
        DeclareLaunchArgument(
            'rate', default_value='1.0', description='speed of playing; 1.0 is that of the robot'),
        OpaqueFunction(function=_check),
        # Its other arguments pass through.
        IncludeLaunchDescription(captioner, launch_arguments={
            'use_sim_time': 'true', 'autostart': 'true', 'respawn': 'false'}.items()),
        *_play_and_record(),
    ])


def _check(context: LaunchContext) -> list:
    """Raise an error if nothing could come of it; launch ends with it."""
    def given(argument: str) -> str:  # those of captioner.launch.py are not declared yet
        return context.launch_configurations.get(argument, '')

    settings = read_image_settings(given('params_file'))
    topics = given('image_topic').split(',') if given('image_topic') else settings.get(
        'image_topics', ['image_raw'])
    namespace = f'/{given("namespace").strip("/")}/'.replace('//', '/')
    check_play(
        given('bag'), given('rate'), given('output'),
        [topic if topic.startswith('/') else namespace + topic for topic in map(str.strip, topics)],
        given('image_transport') or settings.get('image_transport', 'raw'))
    return []


def _play_and_record() -> list:
    # Without --delay, the first messages are lost while the subscribers are being found.
    play = ExecuteProcess(
        cmd=['ros2', 'bag', 'play', LaunchConfiguration('bag'), '--clock', '--delay', '5',
             '--rate', LaunchConfiguration('rate'), '--disable-keyboard-controls'],
        name='play', output='screen')
    record = ExecuteProcess(
        cmd=['ros2', 'bag', 'record', '--use-sim-time', '-o', LaunchConfiguration('output'),
             '--regex', '.*/captioner/(.*/)?caption(_info)?'],
        name='record', output='screen')
    has_played = False

    def on_exit(event, context) -> list:
        nonlocal has_played
        if context.is_shutdown:
            return []
        if event.action is play and event.returncode == 0:
            has_played = True
            # The last frame is still being captioned.
            return [TimerAction(period=3.0, actions=[EmitEvent(event=SignalProcess(
                signal_number=signal.SIGINT, process_matcher=matches_action(record)))])]
        if event.action is record and has_played:
            count = check_recorded(LaunchConfiguration('output').perform(context))
            return [LogInfo(msg=f'{count} captions were recorded'),
                    EmitEvent(event=Shutdown(reason='the bag has been captioned'))]
        raise RuntimeError(f'{event.process_name} has ended with code {event.returncode}')

    def on_failure(context: LaunchContext) -> list:
        if context.is_shutdown:
            return []
        raise RuntimeError('the captioner could not be configured')

    return [
        RegisterEventHandler(
            OnStateTransition(goal_state='active', entities=[record, play], handle_once=True)),
        RegisterEventHandler(OnStateTransition(
            start_state='configuring', goal_state='unconfigured',
            entities=[OpaqueFunction(function=on_failure)])),
        RegisterEventHandler(OnProcessExit(on_exit=on_exit)),
    ]
