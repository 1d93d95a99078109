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

"""
The image messages of a rosbag2, one at a time, whatever state the bag is in.

A bag is a folder with storage files (.db3, .mcap, either compressed by file or by message) or one
such file. The files are read one after the other in the recorder's order, each in its own. At no
time is more than a message, or a chunk of an .mcap file, in memory.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
import re
from typing import Any

from rosbags.typesys import get_typestore, Stores

from . import storage
from .errors import ReplayError
from .metadata import Metadata, read_metadata

IMAGE_TYPES = ('sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage')
# The image messages have been the same in all distributions, so one store serves all bags.
TYPESTORE = get_typestore(Stores.ROS2_HUMBLE)


@dataclass(frozen=True)
class Frame:
    """One image message, still serialized."""

    bag_time: int  # when it was recorded, ns
    topic: str
    msgtype: str
    data: bytes

    def message(self) -> Any:
        """
        Return the message, unpacked if the bag is compressed by message.

        :raises ValueError: for bytes that are no such message.
        """
        try:
            data = self.data  # a CDR message starts with a zero byte
            if data.startswith(storage.ZSTD_MAGIC):
                data = storage.unpack_message(data)
            return TYPESTORE.deserialize_cdr(data, self.msgtype)
        except Exception as error:  # damaged bytes raise anything
            raise ValueError(f'not a {self.msgtype}: {error}') from error


@dataclass
class Bag:
    """A bag on disk; `problems` grows while its frames are read."""

    path: Path
    files: list[Path]
    image_topics: dict[str, str]  # topic -> message type, as far as known before reading
    counts: dict[str, int] | None  # topic -> images recorded, None if nobody counted
    start: int | None = None  # bag time of the first message, ns, None if not known
    problems: list[str] = field(default_factory=list)  # what cannot be read, and why
    notes: list[str] = field(default_factory=list)  # what is odd but costs nothing

    def frames(self, topics: Collection[str] = ()) -> Iterator[Frame]:
        """
        Yield the image messages of the topics (of all if empty).

        Where a file is damaged, what it is and where is added to `problems`, and what can be read
        behind it follows.

        :raises ReplayError: if a file cannot be read today but may be another day.
        """
        def wanted(topic: str, msgtype: str) -> bool:
            return msgtype in IMAGE_TYPES and (not topics or topic in topics)

        for file in self.files:
            damage: list[str] = []
            count, last_time = 0, 0
            try:
                for message in storage.read_messages(file, wanted, damage.append):
                    count, last_time = count + 1, message.bag_time
                    self.start = min(last_time, last_time if self.start is None else self.start)
                    yield Frame(last_time, message.topic, message.msgtype, message.data)
            except storage.UnreadableFile as error:
                raise ReplayError(f'{file.name} cannot be read: {error}') from error
            if damage:
                held = f'{count} images of it were read' if count else 'no image was read'
                if self.start is not None and count:
                    held += f', the last at {(last_time - self.start) / 1e9:.3f} s'
                more = f' (and {len(damage) - 1} more places)' if len(damage) > 1 else ''
                self.problems.append(f'{file.name} is damaged, {damage[0]}{more}; {held}')


def open_bag(path: Path) -> Bag:
    """
    Return the bag at a path, a folder or a storage file.

    :raises ReplayError: if there is none.
    """
    if path.suffix == '.bag':
        raise ReplayError(f'{path} is a ROS 1 bag: convert it with rosbags-convert first')
    metadata = Metadata()
    bag = Bag(path, [path], {}, None)
    try:
        if path.is_dir():
            try:
                metadata = read_metadata(path)
            except FileNotFoundError:
                bag.notes.append('it has no metadata.yaml, the recorder was not ended properly')
            if metadata.problem:
                bag.problems.append(f'its metadata.yaml cannot be read: {metadata.problem}')
            bag.files = _choose_files(path, metadata, bag.problems)
        elif not path.exists():
            raise ReplayError(f'{path} does not exist')
        elif not is_storage_file(path):
            raise ReplayError(f'{path} is neither a .db3 nor an .mcap file')
    except OSError as error:
        raise ReplayError(f'{path} cannot be read: {error.strerror}') from error
    if not bag.files:
        raise ReplayError(f'{path} holds no .db3 or .mcap file')
    summaries = [metadata] if metadata.counts is not None else [
        storage.read_summary(file) for file in bag.files]
    bag.image_topics = {
        topic: msgtype for summary in summaries for topic, msgtype in summary.topics.items()
        if msgtype in IMAGE_TYPES}
    counts = [summary.counts for summary in summaries if summary.counts is not None]
    if len(counts) == len(summaries):
        bag.counts = {
            topic: sum(count.get(topic, 0) for count in counts) for topic in bag.image_topics}
    bag.start = min(
        (summary.start for summary in summaries if summary.start is not None), default=None)
    return bag


def is_storage_file(path: Path) -> bool:
    """Return whether a path is a file named as storage files are."""
    return path.name.endswith(storage.SUFFIXES) and path.is_file()


def storage_files(folder: Path) -> list[Path]:
    """Return a folder's storage files, `_2` before `_10`; raise OSError if it is unreadable."""
    def by_number(file: Path) -> list[Any]:
        return [int(part) if part.isdecimal() else part
                for part in re.split(r'([0-9]+)', file.name)]
    return sorted((file for file in folder.iterdir() if is_storage_file(file)), key=by_number)


def _choose_files(folder: Path, metadata: Metadata, problems: list[str]) -> list[Path]:
    """Return the files to read, in the recorder's order; what it did not list yet follows."""
    files: dict[str, Path] = {}
    for file in storage_files(folder):  # a plain file before its compressed twin
        name = file.name.removesuffix('.zstd')
        if name not in files or not storage.is_whole(files[name]):
            files[name] = file
    listed = [name.removesuffix('.zstd') for name in metadata.files]
    problems += [f'{name} is missing' for name in listed if name not in files]
    chosen = [files.pop(name) for name in dict.fromkeys(listed) if name in files]
    series = {_series(name) for name in listed}
    for name, file in files.items():
        if listed and _series(name) not in series:
            problems.append(
                f'{file.name} is left out: its metadata.yaml does not list it (replay it alone)')
        else:
            chosen.append(file)
    return chosen


def _series(name: str) -> str:
    """Return what the names of a recording's files have in common."""
    return re.sub(r'(_[0-9]+)?\.(db3|mcap)$', '', name)
