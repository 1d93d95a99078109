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

"""What a recorder writes of a bag: its metadata.yaml, in which anything may be wrong."""

from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

import ruamel.yaml


@dataclass
class Metadata:
    """What is used of a metadata.yaml, as far as it can be read."""

    files: list[str] = field(default_factory=list)  # names, in the order of recording
    topics: dict[str, str] = field(default_factory=dict)  # topic -> message type
    counts: dict[str, int] | None = None  # topic -> messages, None if not told
    start: int | None = None  # bag time of the first message, ns
    problem: str = ''  # what cannot be read, in one line


def read_metadata(folder: Path) -> Metadata:
    """
    Return what the folder's metadata.yaml tells.

    :raises FileNotFoundError: if there is none.
    """
    metadata = Metadata()
    try:
        # In bytes, so that the parser decodes them.
        text = (folder / 'metadata.yaml').read_bytes()
        document = ruamel.yaml.YAML(typ='safe').load(text)
        information = _get(document, dict, 'rosbag2_bagfile_information')
        metadata.files = [
            PurePath(_check(name, str, 'relative_file_paths')).name
            for name in _get(information, list, 'relative_file_paths')]
        counts: dict[str, int] = {}
        for entry in _get(information, list, 'topics_with_message_count'):
            name = _get(entry, str, 'topic_metadata', 'name')
            metadata.topics[name] = _get(entry, str, 'topic_metadata', 'type')
            counts[name] = counts.get(name, 0) + _get(entry, int, 'message_count')
        metadata.counts = counts
        if any(counts.values()):
            metadata.start = _get(
                information, int, 'starting_time', 'nanoseconds_since_epoch')
    except FileNotFoundError:
        raise
    except Exception as error:  # the parser raises more than its own errors
        metadata.problem = ' '.join(str(error).split())
    return metadata


def _get(value: Any, expected: type, *path: str) -> Any:
    for key in path:
        value = _check(value, dict, key).get(key)
    return _check(value, expected, '.'.join(path))


def _check(value: Any, expected: type, name: str) -> Any:
    if not isinstance(value, expected):
        raise ValueError(f'{name}: expected {expected.__name__}, not {str(value)[:40]!r}')
    return value
