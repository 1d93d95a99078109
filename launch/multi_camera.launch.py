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

"""Caption several cameras with one captioner: /captioner/<camera>/caption for each."""

from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction, SetLaunchConfiguration)
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration


def generate_launch_description() -> LaunchDescription:
    """Return the arguments and the captioner with a topic for each camera."""
    return LaunchDescription([
        DeclareLaunchArgument(
            'cameras', default_value='front,rear',
            description='names of the cameras, separated by commas; each is the namespace of its '
                        'image topic and part of the name of its outputs'),
        DeclareLaunchArgument(
            'image_name', default_value='image_raw',
            description='the image topic of each camera, in its namespace'),
        OpaqueFunction(function=_set_topics_and_names),
        # Its other arguments pass through.
        IncludeLaunchDescription(PythonLaunchDescriptionSource(
            str(Path(__file__).parent / 'captioner.launch.py'))),
    ])


def _set_topics_and_names(context: LaunchContext) -> list:
    given = LaunchConfiguration('cameras').perform(context)
    cameras = [camera.strip().strip('/') for camera in given.split(',')]
    if not all(cameras):
        raise RuntimeError(f'cameras:={given} has an empty name, expected one between commas')
    image_name = LaunchConfiguration('image_name').perform(context)
    return [
        SetLaunchConfiguration(
            'image_topic', ','.join(f'{camera}/{image_name}' for camera in cameras)),
        SetLaunchConfiguration(
            'camera_names', ','.join(camera.replace('/', '_') for camera in cameras)),
    ]
