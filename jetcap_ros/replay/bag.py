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
such file. Intact files are read in the order of time by `rosbags`; a damaged one in its own order
by `salvage`, up to where it breaks. At no time is more than a message, or a chunk of an .mcap
file, in memory; a file compressed as a whole is unpacked into the folder for temporary files, one
file at a time.
"""

from collections.abc import Collection, Iterable, Iterator
import contextlib
from dataclasses import dataclass, field
from pathlib import Path
import re
import tempfile
from typing import Any

from rosbags.rosbag2 import Reader
from rosbags.typesys import get_typestore, Stores
import ruamel.yaml
import zstandard

from . import salvage
from .errors import ReplayError

IMAGE_TYPES = ('sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage')
# The image messages have been the same in all distributions, so one store serves all bags.
TYPESTORE = get_typestore(Stores.ROS2_HUMBLE)

_STORAGE_SUFFIXES = ('.db3', '.mcap', '.db3.zstd', '.mcap.zstd')
_ZSTD_MAGIC = b'\x28\xb5\x2f\xfd'  # a CDR message starts with a zero byte


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
            data = self.data
            if data[:4] == _ZSTD_MAGIC:
                data = zstandard.ZstdDecompressor().decompressobj().decompress(data)
            return TYPESTORE.deserialize_cdr(data, self.msgtype)
        except Exception as error:  # damaged bytes raise anything
            raise ValueError(f'not a {self.msgtype}: {error}') from error


@dataclass
class Bag:
    """A bag on disk; `problems` grows while its frames are read."""

    path: Path
    files: list[Path]
    image_topics: dict[str, str]  # topic -> message type, as far as known before reading
    start: int | None = None  # bag time of the first message, ns, None if not known
    end: int | None = None
    problems: list[str] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(file.stat().st_size for file in self.files)

    def frames(self, topics: Collection[str] = (), after: int = -1) -> Iterator[Frame]:
        """
        Yield the image messages of the topics (of all if empty) recorded later than `after`, ns.

        Where a file breaks, what it is and where is added to `problems`, and the next follows.
        """
        for file in self.files:
            count, last_time = 0, None
            try:
                with _unpacked(file) as storage_file:
                    for topic, msgtype, time, data in _messages(storage_file, topics, after):
                        self.start = time if self.start is None else self.start
                        yield Frame(time, topic, msgtype, data)
                        count, last_time = count + 1, time
            except (salvage.BrokenFile, OSError) as error:
                held = f'{count} images before that were read' if count else 'no image was read'
                if last_time is not None:
                    held += f', the last at {(last_time - self.start) / 1e9:.3f} s'
                self.problems.append(f'{file.name} is damaged, {error}; {held}')


def open_bag(path: Path) -> Bag:
    """
    Return the bag at a path, a folder or a storage file.

    :raises ReplayError: if there is none.
    """
    if path.suffix == '.bag':
        raise ReplayError(f'{path} is a ROS 1 bag: convert it with rosbags-convert first')
    if not path.exists():
        raise ReplayError(f'{path} does not exist')
    problems: list[str] = []
    metadata = _read_metadata(path, problems) if path.is_dir() else {}
    files = [path]
    if path.is_dir():
        files = _storage_files(path)
        listed = [path / Path(name).name for name in metadata.get('relative_file_paths', [])]
        for file in listed:
            if file not in files:
                problems.append(f'{file.name} is missing')
        # The recorder's order; what it did not come to list follows.
        files.sort(key=lambda file: listed.index(file) if file in listed else len(listed))
    elif not path.name.endswith(_STORAGE_SUFFIXES):
        raise ReplayError(f'{path} is neither a .db3 nor an .mcap file')
    if not files:
        raise ReplayError(f'{path} holds no .db3 or .mcap file')
    bag = Bag(path, files, {}, problems=problems)
    try:
        topics = [entry['topic_metadata'] for entry in metadata['topics_with_message_count']]
        bag.image_topics = {
            topic['name']: topic['type'] for topic in topics if topic['type'] in IMAGE_TYPES}
        bag.start = metadata['starting_time']['nanoseconds_since_epoch']
        bag.end = bag.start + metadata['duration']['nanoseconds']
    except (KeyError, TypeError):
        _read_extent(bag)
    return bag


def find_bags(paths: Iterable[Path]) -> dict[str, Path]:
    """
    Return the bags at and below the paths by name, which is the path below the folder given.

    A folder is one bag if it has a metadata.yaml, or if its storage files are named as the
    recorder names them, after the folder; otherwise each storage file is a bag of its own.

    :raises ReplayError: if there is none, or two have the same name.
    """
    found: dict[str, Path] = {}
    for path in paths:
        if not path.is_dir() or _is_bag(path):
            bags = {path.absolute().name: path}
        else:
            folders = [path, *sorted(entry for entry in path.rglob('*') if entry.is_dir())]
            bags = {
                str(bag.relative_to(path)): bag for folder in folders
                for bag in ([folder] if _is_bag(folder) else _storage_files(folder))}
        if not bags:
            raise ReplayError(f'there is no bag in {path}')
        for name in bags.keys() & found.keys():
            raise ReplayError(
                f'{found[name]} and {bags[name]} have the same name: replay them apart')
        found.update(bags)
    return found


def _is_bag(folder: Path) -> bool:
    if (folder / 'metadata.yaml').exists():
        return True
    named_after_folder = re.compile(re.escape(folder.name) + r'(_\d+)?\.(db3|mcap)(\.zstd)?')
    files = _storage_files(folder)
    return bool(files) and all(named_after_folder.fullmatch(file.name) for file in files)


def _storage_files(folder: Path) -> list[Path]:
    """Return a folder's storage files, `_2` before `_10`."""
    def by_number(file: Path) -> list[Any]:
        return [int(part) if part.isdigit() else part for part in re.split(r'(\d+)', file.name)]
    return sorted(
        (file for file in folder.iterdir() if file.name.endswith(_STORAGE_SUFFIXES)),
        key=by_number)


def _read_metadata(folder: Path, problems: list[str]) -> dict[str, Any]:
    path = folder / 'metadata.yaml'
    if not path.exists():
        problems.append('it has no metadata.yaml, the recorder was not ended properly')
        return {}
    try:
        return ruamel.yaml.YAML(typ='safe').load(path)['rosbag2_bagfile_information']
    except (ruamel.yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError) as error:
        problems.append(f'its metadata.yaml cannot be read: {error}')
        return {}


def _read_extent(bag: Bag) -> None:
    """Take topics and times from the files themselves, as far as they are intact."""
    for file in bag.files:
        reader = None if file.suffix == '.zstd' else _open_intact(file)
        if reader is None:
            continue
        with contextlib.closing(reader):
            bag.image_topics.update(
                (connection.topic, connection.msgtype) for connection in reader.connections
                if connection.msgtype in IMAGE_TYPES)
            if reader.message_count:
                starts_ends = [time for time in (bag.start, bag.end) if time is not None]
                starts_ends += [reader.start_time, reader.end_time]
                bag.start, bag.end = min(starts_ends), max(starts_ends)


def _open_intact(file: Path) -> Reader | None:
    """Return an open reader, None if the file is damaged or was not closed by its recorder."""
    log = Path(f'{file}-wal')
    if log.exists() and log.stat().st_size:
        return None  # `rosbags` would not see the messages in it
    try:
        reader = Reader(file)
        reader.open()
    except Exception:  # damaged bytes raise anything
        return None
    return reader


def _messages(
        file: Path, topics: Collection[str], after: int) -> Iterator[salvage.Message]:
    """Yield the wanted messages of one file, by salvage from where the ordinary reader fails."""
    last_times: dict[str, int] = {}
    reader = _open_intact(file)
    if reader is not None:
        with contextlib.closing(reader):
            connections = [
                connection for connection in reader.connections
                if _is_wanted(connection.topic, connection.msgtype, topics)]
            messages = reader.messages(connections, start=after + 1) if connections else iter(())
            while True:
                try:
                    message = next(messages, None)
                except Exception:  # damaged bytes raise anything
                    break
                if message is None:
                    return
                connection, time, data = message
                yield connection.topic, connection.msgtype, time, data
                last_times[connection.topic] = time
    read = salvage.read_mcap if file.suffix == '.mcap' else salvage.read_sqlite3
    for topic, msgtype, time, data in read(file):
        if _is_wanted(topic, msgtype, topics) and time > last_times.get(topic, after):
            yield topic, msgtype, time, data


def _is_wanted(topic: str, msgtype: str, topics: Collection[str]) -> bool:
    return msgtype in IMAGE_TYPES and (not topics or topic in topics)


@contextlib.contextmanager
def _unpacked(file: Path) -> Iterator[Path]:
    """Give the storage file itself, unpacked for the while if it is compressed as a whole."""
    if file.suffix != '.zstd':
        yield file
        return
    with tempfile.TemporaryDirectory(prefix='jetcap-') as folder:
        unpacked = Path(folder, file.stem)
        with file.open('rb') as source, unpacked.open('wb') as target:
            with contextlib.suppress(zstandard.ZstdError):  # what came before is salvaged
                zstandard.ZstdDecompressor().copy_stream(source, target)
        yield unpacked
