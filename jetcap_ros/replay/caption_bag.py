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

"""Captions as a rosbag2, at the times of their frames, each beside its image topic."""

from collections.abc import Iterable
import json
from pathlib import Path
from typing import Any

from rosbags.rosbag2 import StoragePlugin, Writer

from .bag import TYPESTORE
from .captions import CaptionRecord


def write_caption_bag(path: Path, records: Iterable[CaptionRecord]) -> None:
    """
    Write TOPIC/caption and TOPIC/caption_info, what the node publishes, for each image topic.

    The bag is sqlite3, which every distribution reads.

    :param path: of the new bag, a folder that does not exist.
    """
    string = TYPESTORE.types['std_msgs/msg/String']
    connections: dict[str, tuple[Any, ...]] = {}
    with Writer(path, version=8, storage_plugin=StoragePlugin.SQLITE3) as writer:
        for record in records:
            if record.topic not in connections:
                connections[record.topic] = tuple(
                    writer.add_connection(
                        f'{record.topic}/{name}', string.__msgtype__, typestore=TYPESTORE)
                    for name in ('caption', 'caption_info'))
            seconds, nanoseconds = divmod(record.stamp, 10**9)
            info = json.dumps({
                'stamp': {'sec': seconds, 'nanosec': nanoseconds}, 'frame_id': record.frame_id,
                'topic': record.topic, 'caption': record.caption, 'score': record.score,
                'model': record.model})
            for connection, text in zip(connections[record.topic], (record.caption, info)):
                data = TYPESTORE.serialize_cdr(string(text), string.__msgtype__)
                writer.write(connection, record.bag_time, data)
