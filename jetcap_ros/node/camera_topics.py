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

"""Which topics the cameras are on, and what the cameras are called."""

from collections.abc import Sequence

from rclpy.node import Node

COMPRESSED = '/compressed'


def resolve_image_topics(node: Node, topics: Sequence[str], compressed: bool) -> list[str]:
    """
    Return the topics to subscribe to, with namespace, remappings and transport.

    :raises ValueError: if two are the same.
    """
    resolved: dict[str, str] = {}
    for topic in topics:
        name = node.resolve_topic_name(topic)
        if compressed and not name.endswith(COMPRESSED):
            name += COMPRESSED
        if name in resolved:
            raise ValueError(
                f'parameter image_topics: {resolved[name]} and {topic} are both {name}, expected '
                'each topic once')
        resolved[name] = topic
    return list(resolved)


def camera_names(topics: Sequence[str], given: Sequence[str]) -> list[str]:
    """
    Return a name for the outputs of each camera: the given ones, else from the namespaces.

    :raises ValueError: if names are given, but not one for each topic, or one comes twice.
    """
    given = [name for name in given if name]
    if given:
        if len(given) != len(topics) or len(set(given)) != len(given):
            raise ValueError(
                f'camera_names has {len(given)} names for {len(topics)} image_topics, expected '
                'one for each, each once')
        return given
    parts = [
        [part for part in topic.removesuffix(COMPRESSED).split('/') if part] for topic in topics]
    # /front/camera/image_raw and /rear/camera/image_raw are front_camera and rear_camera.
    names = [path[:-1][-1] if path[:-1] else path[-1] for path in parts]
    if len(set(names)) < len(names):
        names = ['_'.join(path[:-1] or path) for path in parts]
    if len(set(names)) < len(names):
        names = ['_'.join(path) for path in parts]
    return names
