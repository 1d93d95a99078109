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

from launch import LaunchDescription
from launch.actions import (
    DeclareLaunchArgument, EmitEvent, ExecuteProcess, IncludeLaunchDescription,
    RegisterEventHandler, TimerAction)
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.event_handlers import OnStateTransition


def generate_launch_description() -> LaunchDescription:
    """Return the arguments, the recorder, the captioner, and the player once that is active."""
    # Without --delay, the first messages are lost while the subscribers are being found.
    play = ExecuteProcess(
        cmd=['ros2', 'bag', 'play', LaunchConfiguration('bag'), '--clock', '--delay', '2',
             '--rate', LaunchConfiguration('rate'), '--disable-keyboard-controls'],
        name='play', output='screen')
    record = ExecuteProcess(
        cmd=['ros2', 'bag', 'record', '--use-sim-time', '-o', LaunchConfiguration('output'),
             '--regex', '.*/captioner/(.*/)?caption(_info)?'],
        name='record', output='screen')

    def end(reason: str) -> EmitEvent:
        return EmitEvent(event=Shutdown(reason=reason))

    def on_exit(event, context) -> list:
        if context.is_shutdown:
            return []
        if event.action is play:
            # The last frame is still being captioned.
            return [TimerAction(period=3.0, actions=[end('the bag has been captioned')])]
        return [end(f'{event.process_name} has ended')]

    return LaunchDescription([
        DeclareLaunchArgument('bag', description='the bag to play, with the camera in it'),
        DeclareLaunchArgument(
            'output', default_value='captions',
            description='the bag to record the captions in; it must not exist yet'),
        DeclareLaunchArgument(
            'rate', default_value='1.0', description='speed of playing; 1.0 is that of the robot'),
        record,
        # Its other arguments pass through.
        IncludeLaunchDescription(
            PythonLaunchDescriptionSource(str(Path(__file__).parent / 'captioner.launch.py')),
            launch_arguments={
                'use_sim_time': 'true', 'autostart': 'true', 'respawn': 'false'}.items()),
        RegisterEventHandler(
            OnStateTransition(goal_state='active', entities=[play], handle_once=True)),
        RegisterEventHandler(OnStateTransition(
            start_state='configuring', goal_state='unconfigured',
            entities=[end('the captioner could not be configured')])),
        RegisterEventHandler(OnProcessExit(on_exit=on_exit)),
    ])
