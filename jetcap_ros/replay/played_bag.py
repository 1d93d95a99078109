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

"""What `replay.launch.py` checks: a bag before it is played, and the bag that was recorded."""

from collections.abc import Sequence
from pathlib import Path
import shutil
from typing import Any

import yaml

from .errors import ReplayError

METADATA = 'metadata.yaml'
IMAGE_TYPES = {
    'raw': 'sensor_msgs/msg/Image', 'compressed': 'sensor_msgs/msg/CompressedImage'}


def check_play(
        bag: str, rate: str, output: str, topics: Sequence[str], transport: str) -> None:
    """
    Check what is about to be played and recorded.

    :param topics: of images, with their namespaces.
    :param transport: 'raw' or 'compressed'.
    :raises ReplayError: if nothing could be captioned or recorded.
    """
    try:
        ok = float(rate) > 0
    except ValueError:
        ok = False
    if not ok:
        raise ReplayError(f'rate:={rate}: expected a number above 0')
    if Path(output).exists():
        raise ReplayError(f'output:={output} exists already: name another, or remove it')
    if not Path(bag).exists():
        raise ReplayError(f'bag:={bag}: there is no such bag')
    if Path(bag).is_dir():  # of a single file, `ros2 bag play` says what is wrong
        _check_topics(bag, topics, transport)


def _check_topics(bag: str, topics: Sequence[str], transport: str) -> None:
    recorded = read_topics(Path(bag))
    wanted = [
        topic + '/compressed' if transport == 'compressed' and not topic.endswith('/compressed')
        else topic for topic in topics]
    missing = []
    for topic in wanted:
        kind, count = recorded.get(topic, ('', 0))
        if kind != IMAGE_TYPES[transport] or not count:
            missing.append(topic)
    if missing:
        images = [
            f'{name} ({kind.rpartition("/")[2]}, {count})'
            for name, (kind, count) in recorded.items() if kind in IMAGE_TYPES.values()]
        raise ReplayError(
            f'bag:={bag} has no {IMAGE_TYPES[transport].rpartition("/")[2]} on '
            f'{", ".join(missing)}. It has {", ".join(images) or "no images at all"}; set '
            'image_topic, and image_transport:=compressed for CompressedImage on TOPIC/compressed')


def read_topics(bag: Path) -> dict[str, tuple[str, int]]:
    """
    Return the type and the number of messages of each topic of a bag.

    :raises ReplayError: if its metadata cannot be read.
    """
    try:
        contents: Any = yaml.safe_load((bag / METADATA).read_text(encoding='utf-8'))
        return {
            entry['topic_metadata']['name']:
                (entry['topic_metadata']['type'], int(entry['message_count']))
            for entry in contents['rosbag2_bagfile_information']['topics_with_message_count']}
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise ReplayError(
            f'{bag / METADATA} cannot be read: `ros2 bag reindex {bag}` writes it anew') from error


def read_image_settings(params_file: str) -> dict[str, Any]:
    """Return `image_topics` and `image_transport` of a parameter file, where it has them."""
    found: dict[str, Any] = {}

    def search(value: Any) -> None:
        if isinstance(value, dict):
            for key, child in value.items():
                if key in ('image_topics', 'image_transport'):
                    found.setdefault(key, child)
                search(child)

    try:
        search(yaml.safe_load(Path(params_file).read_text(encoding='utf-8')))
    except (OSError, ValueError, yaml.YAMLError):
        pass  # the node says what is wrong with it
    return found


def check_recorded(output: str) -> int:
    """
    Return how many captions were recorded.

    :raises ReplayError: if there is none; the recorded bag is removed then, as it is in the way.
    """
    topics = read_topics(Path(output)) if Path(output).exists() else {}
    count = sum(count for name, (_, count) in topics.items() if name.endswith('/caption'))
    if not count:
        shutil.rmtree(output, ignore_errors=True)
        raise ReplayError('nothing was captioned: the log above and /diagnostics say why')
    return count
