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

"""Start the captioner under Nav2's lifecycle manager, watched by a bond where bondpy is."""

from importlib.util import find_spec
from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, GroupAction, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue


def generate_launch_description() -> LaunchDescription:
    """Return the arguments, the captioner and its manager."""
    captioner = PythonLaunchDescriptionSource(str(Path(__file__).parent / 'captioner.launch.py'))
    return LaunchDescription([
        DeclareLaunchArgument(
            'autostart', default_value='true', choices=['true', 'false', 'True', 'False'],
            description='the manager configures and activates the captioner at once; false waits '
                        'for its service manage_nodes'),
        DeclareLaunchArgument(
            'bond_timeout', default_value='4.0' if find_spec('bondpy') else '0.0',
            description='seconds without a heartbeat after which the manager takes the captioner '
                        'for dead; 0.0 is without a bond, as it must be where bondpy is missing'),
        DeclareLaunchArgument(
            'namespace', default_value='',
            description='namespace of the captioner and of its manager, which must share it'),
        # In a group of its own, so that autostart stays as it is out here. Its other arguments
        # pass through.
        GroupAction([IncludeLaunchDescription(
            captioner, launch_arguments={'autostart': 'false'}.items())]),
        Node(
            package='nav2_lifecycle_manager', executable='lifecycle_manager',
            name='lifecycle_manager_captioner', namespace=LaunchConfiguration('namespace'),
            parameters=[{
                'node_names': ['captioner'],
                'autostart': ParameterValue(LaunchConfiguration('autostart'), value_type=bool),
                'bond_timeout': ParameterValue(
                    LaunchConfiguration('bond_timeout'), value_type=float),
            }],
            output='screen', emulate_tty=True),
    ])
