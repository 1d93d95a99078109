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

"""Why nothing comes on an image topic, and which topic or setting may be meant."""

from collections.abc import Mapping, Sequence
import difflib
from typing import Any

from .camera_topics import COMPRESSED

TYPES = {
    'sensor_msgs/msg/Image': 'raw', 'sensor_msgs/msg/CompressedImage': 'compressed'}
SUGGESTIONS = 3


def explain_silence(
        topic: str, compressed: bool, publishers: Sequence[Any],
        topics: Mapping[str, Sequence[str]]) -> str:
    """
    Return what is known of a topic that is silent.

    :param topic: as it is subscribed to.
    :param compressed: whether for CompressedImage.
    :param publishers: of the topic, as `Node.get_publishers_info_by_topic` has them.
    :param topics: all there are, with their types.
    """
    transport = 'compressed' if compressed else 'raw'
    if not publishers:
        return f'no publisher{_suggest(topic, transport, topics)}'
    types = sorted({publisher.topic_type for publisher in publishers})
    if transport not in map(TYPES.get, types):
        return f'it is {", ".join(types)}{_other_transport(topic, types)}'
    offers = ', '.join(
        f'{_full_name(publisher)}, {publisher.qos_profile.reliability.name.lower()}'
        for publisher in publishers)
    plural = '' if len(publishers) == 1 else 's'
    lost = '' if compressed else '; raw frames get lost where buffers are small'
    return f'{len(publishers)} publisher{plural} of {", ".join(types)}: {offers}{lost}'


def _full_name(publisher: Any) -> str:
    return f'{publisher.node_namespace.rstrip("/")}/{publisher.node_name}'


def _other_transport(topic: str, types: Sequence[str]) -> str:
    for name in types:
        transport = TYPES.get(name)
        if transport == 'raw':
            return f'; set image_transport to raw and image_topics to {topic}'
        if transport == 'compressed' and topic.endswith(COMPRESSED):
            return '; set image_transport to compressed'
        if transport == 'compressed':
            return f'; set image_transport to compressed and remap {topic}{COMPRESSED} to {topic}'
    return ', which is no picture'


def _suggest(topic: str, transport: str, topics: Mapping[str, Sequence[str]]) -> str:
    """Name image topics that look meant, the likeliest first, and how to ask for them."""
    found: dict[str, str] = {}
    for name, types in topics.items():
        for offered in filter(None, map(TYPES.get, types)):
            base = name.removesuffix(COMPRESSED) if offered == 'compressed' else name
            change = '' if offered == transport else f' with image_transport {offered}'
            if base != name or offered == 'raw':
                found.setdefault(f'{base}{change}', name)
    # Its own name is there, too: the node subscribes to it.
    found.pop(topic.removesuffix(COMPRESSED) if transport == 'compressed' else topic, None)

    def unlikeness(text: str) -> tuple[float, bool]:
        likeness = difflib.SequenceMatcher(
            None, found[text].removesuffix(COMPRESSED), topic.removesuffix(COMPRESSED)).ratio()
        return -likeness, ' with ' in text

    likeliest = sorted(found, key=unlikeness)[:SUGGESTIONS]
    return f'; image_topics may be meant to be {" or ".join(likeliest)}' if likeliest else ''
