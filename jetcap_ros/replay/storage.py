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
The messages of a storage file, read from its start in the order they were recorded.

No index is needed, so that what a killed recorder, a full disk or a copy cut short has left is
read like a whole file. Where a file is damaged, what can be read behind the damage follows.
"""

from collections.abc import Callable, Iterator
import contextlib
from dataclasses import dataclass, field
import errno
import io
import os
from pathlib import Path
import sqlite3
import tempfile
from typing import Any, IO, NamedTuple
import zlib

import lz4.frame
from mcap.exceptions import EndOfFile
from mcap.reader import make_reader
from mcap.records import Channel, Chunk, McapRecord, Message as McapMessage, Schema
from mcap.stream_reader import StreamReader
import zstandard

from ..images.limits import MAX_BYTES

SUFFIXES = ('.db3', '.mcap', '.db3.zstd', '.mcap.zstd')
ZSTD_MAGIC = b'\x28\xb5\x2f\xfd'

_MCAP_MAGIC = b'\x89MCAP0\r\n'
_DAMAGE = (errno.EIO, errno.ENOENT, errno.ELOOP)  # of a file; other errors may be gone tomorrow

Wanted = Callable[[str, str], bool]  # of a topic and its type
Tell = Callable[[str], None]


class Message(NamedTuple):
    """One message, still serialized."""

    topic: str
    msgtype: str
    bag_time: int  # when it was recorded, ns
    data: bytes


class UnreadableFile(Exception):
    """What keeps a file from being read today, though it may be whole."""


@dataclass
class Summary:
    """What a file says of itself."""

    topics: dict[str, str] = field(default_factory=dict)  # topic -> message type
    counts: dict[str, int] | None = None  # topic -> messages, None if not told
    start: int | None = None  # bag time of the first message, ns


def read_messages(file: Path, wanted: Wanted, tell: Tell) -> Iterator[Message]:
    """
    Yield the wanted messages of a storage file.

    :param tell: is called with each damage that costs messages.
    :raises UnreadableFile: if it may be read another day.
    """
    try:
        with file.open('rb') as packed:
            if file.suffix == '.mcap':
                yield from _read_mcap(packed, file.stat().st_size, wanted, tell)
            elif file.suffix == '.db3':
                yield from _read_sqlite3(file, wanted, tell)
            elif file.stem.endswith('.mcap'):
                unpacked: Any = zstandard.ZstdDecompressor().stream_reader(
                    packed, read_across_frames=True)
                yield from _read_mcap(unpacked, None, wanted, tell)
            else:
                with _unpack(packed, file.stem) as unpacked:
                    yield from _read_sqlite3(unpacked, wanted, tell)
    except OSError as error:
        if error.errno not in _DAMAGE:
            raise UnreadableFile(error.strerror) from error
        tell(str(error.strerror))
    except MemoryError as error:
        raise UnreadableFile('there is not enough memory for it') from error


def read_summary(file: Path) -> Summary:
    """Return what a file tells of its messages, as far as it is whole."""
    summary = Summary()
    with contextlib.suppress(Exception):  # damaged bytes raise anything
        if file.suffix == '.mcap':
            with file.open('rb') as stream:
                told = _mcap_summary(stream)
            names = {channel.id: channel.topic for channel in told.channels.values()}
            summary.topics = {
                channel.topic: told.schemas[channel.schema_id].name
                for channel in told.channels.values() if channel.schema_id in told.schemas}
            if told.statistics:
                summary.counts = dict.fromkeys(summary.topics, 0)
                for channel_id, count in told.statistics.channel_message_counts.items():
                    summary.counts[names[channel_id]] += count
                summary.start = told.statistics.message_start_time
        elif file.suffix == '.db3':
            with contextlib.closing(_connect(file)) as database:
                summary.topics = dict(database.execute('SELECT name, type FROM topics'))
                summary.start, = database.execute('SELECT min(timestamp) FROM messages').fetchone()
    return summary


def is_whole(file: Path) -> bool:
    """Return whether a file has been written to its end, as far as head and tail tell."""
    with contextlib.suppress(OSError), file.open('rb') as stream:
        head = stream.read(100)
        size = stream.seek(0, os.SEEK_END)
        if file.suffix == '.mcap':
            stream.seek(max(0, size - len(_MCAP_MAGIC)))
            return head.startswith(_MCAP_MAGIC) and stream.read() == _MCAP_MAGIC
        page_size = int.from_bytes(head[16:18], 'big')
        pages = int.from_bytes(head[28:32], 'big')
        return 0 < pages * (65536 if page_size == 1 else page_size) <= size
    return False


def unpack_message(data: bytes) -> bytes:
    """
    Return the bytes of a message that was compressed by itself.

    :raises ValueError: if it is larger than `MAX_BYTES`.
    """
    told: int = zstandard.frame_content_size(data)  # -1 if it is not told
    if told <= MAX_BYTES:
        with zstandard.ZstdDecompressor().stream_reader(data) as stream:
            unpacked: bytes = stream.read((MAX_BYTES if told < 0 else told) + 1)
        if len(unpacked) <= MAX_BYTES:
            return unpacked
    raise ValueError(f'it unpacks to more than {MAX_BYTES >> 20} MB')


def _read_sqlite3(file: Path, wanted: Wanted, tell: Tell) -> Iterator[Message]:
    """Yield the messages of a .db3 file and of the write-ahead log beside it."""
    try:
        with contextlib.closing(_connect(file)) as database:
            topics = {
                row[0]: row[1:] for row in database.execute('SELECT id, name, type FROM topics')
                if wanted(*row[1:])}
            query = (
                'SELECT id, topic_id, timestamp, data FROM messages WHERE id > ? AND topic_id IN'
                f' ({",".join("?" * len(topics))}) ORDER BY id')
            last_row, step = -1, 1
            while True:
                try:
                    for last_row, topic_id, time, data in database.execute(
                            query, (last_row, *topics)):
                        step = 1
                        topic, msgtype = topics[topic_id]
                        # A damaged row is passed on, to be counted with what cannot be decoded.
                        yield Message(
                            topic, msgtype, time if isinstance(time, int) else 0,
                            data if isinstance(data, bytes) else b'')
                    return
                except sqlite3.Error as error:
                    tell(f'it breaks after message {max(last_row, 0)}: {error}')
                    end, = database.execute('SELECT max(id) FROM messages').fetchone()
                    last_row, step = last_row + step, 2 * step
                    if last_row >= end:
                        return
    except (sqlite3.Error, TypeError, OverflowError) as error:
        tell(f'{error}')


def _connect(file: Path) -> sqlite3.Connection:
    log = Path(f'{file}-wal')
    # What nobody writes is immutable; SQLite would want to write beside a file in WAL mode.
    mode = 'mode=ro' if log.exists() and log.stat().st_size else 'immutable=1'
    database = sqlite3.connect(f'{file.absolute().as_uri()}?{mode}', uri=True)
    database.text_factory = lambda text: text.decode('utf-8', 'replace')
    # Without this SQLite refuses a file that is shorter than its header says.
    database.execute('PRAGMA writable_schema = ON')
    return database


@contextlib.contextmanager
def _unpack(packed: IO[bytes], name: str) -> Iterator[Path]:
    """Give a file unpacked in the folder for temporary files, for the while."""
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix='jetcap-'))
            unpacked = Path(folder, name)
            with unpacked.open('wb') as target:
                with contextlib.suppress(zstandard.ZstdError):  # what came before is read
                    zstandard.ZstdDecompressor().copy_stream(packed, target)
        except OSError as error:
            if error.errno == errno.EIO:
                raise
            raise UnreadableFile(
                f'it cannot be unpacked, {error.strerror}: point TMPDIR to a folder with room'
            ) from error
        yield unpacked


def _read_mcap(
        stream: IO[bytes], size: int | None, wanted: Wanted, tell: Tell) -> Iterator[Message]:
    """
    Yield the messages of an .mcap file, chunk by chunk.

    :param size: of the file; None for a stream that cannot be sought.
    """
    schemas: dict[int, str] = {}
    channels: dict[int, tuple[str, str]] = {}
    if size:
        # Where the chunk that tells of a channel is damaged, the summary does.
        with contextlib.suppress(Exception):  # damaged bytes raise anything
            summary = _mcap_summary(stream)
            channels = {
                channel.id: (channel.topic, summary.schemas[channel.schema_id].name)
                for channel in summary.channels.values() if channel.schema_id in summary.schemas}
        stream.seek(0)
    for record in _mcap_records(stream, size, tell):
        if isinstance(record, Schema):
            schemas[record.id] = record.name
        elif isinstance(record, Channel):
            channels[record.id] = (record.topic, schemas.get(record.schema_id, ''))
        elif isinstance(record, McapMessage):
            channel = channels.get(record.channel_id)
            if channel and wanted(*channel):
                yield Message(*channel, record.log_time, record.data)


def _mcap_records(stream: IO[bytes], size: int | None, tell: Tell) -> Iterator[McapRecord]:
    """Yield the records, those of a chunk in its place; after a break from the next chunk on."""
    position = 0
    while True:
        source: Any = _Bounded(stream, min(size or MAX_BYTES, MAX_BYTES))
        records = StreamReader(
            source, emit_chunks=True, validate_crcs=True, skip_magic=position > 0).records
        try:
            for record in records:
                position = stream.tell()
                if isinstance(record, Chunk):
                    yield from _chunk_records(record, tell)
                else:
                    yield record
            return
        except (OSError, MemoryError):
            raise
        except Exception as error:  # damaged bytes raise anything: struct, zstd, Unicode
            tell(f'it breaks at byte {position} of {size or "its contents"}: {_reason(error)}')
        following = _next_chunk(stream, position) if size else None
        if following is None:
            return
        stream.seek(following)
        position = following


def _next_chunk(stream: IO[bytes], position: int) -> int | None:
    """Return where the next chunk begins, if the file's index is whole and knows one."""
    try:
        starts = (index.chunk_start_offset for index in _mcap_summary(stream).chunk_indexes)
        size = stream.seek(0, os.SEEK_END)
        return min((start for start in starts if position < start < size), default=None)
    except Exception:  # damaged bytes raise anything
        return None


def _mcap_summary(stream: IO[bytes]) -> Any:
    bounded: Any = _Bounded(stream, stream.seek(0, os.SEEK_END))
    stream.seek(0)
    return make_reader(bounded).get_summary()


def _chunk_records(chunk: Chunk, tell: Tell) -> Iterator[McapRecord]:
    try:
        data = _unpack_chunk(chunk)
        stream = io.BytesIO(data)
        records = StreamReader(stream, skip_magic=True).records
        while stream.tell() < len(data):
            record = next(records, None)
            if record is None:
                raise EndOfFile
            yield record
    except MemoryError:
        raise
    except Exception as error:  # damaged bytes raise anything
        tell(f'a chunk cannot be read: {_reason(error)}')


def _unpack_chunk(chunk: Chunk) -> bytes:
    data = chunk.data
    if chunk.compression == 'zstd':
        data = unpack_message(data)
    elif chunk.compression == 'lz4':
        data = lz4.frame.LZ4FrameDecompressor().decompress(data, MAX_BYTES + 1)
    elif chunk.compression:
        raise ValueError(f'its compression {chunk.compression[:20]!r} is not known')
    if len(data) > MAX_BYTES:
        raise ValueError(f'it unpacks to more than {MAX_BYTES >> 20} MB')
    if len(data) != chunk.uncompressed_size:
        raise EndOfFile
    if chunk.uncompressed_crc and zlib.crc32(data) != chunk.uncompressed_crc:
        raise ValueError('its checksum is wrong')
    return data


class _Bounded:
    """A stream that refuses to read more than there can be: a damaged length asks for anything."""

    def __init__(self, stream: IO[bytes], most: int) -> None:
        self._stream, self._most = stream, most
        self.seek, self.tell, self.seekable = stream.seek, stream.tell, stream.seekable

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes."""
        if size > self._most:
            raise EndOfFile
        return self._stream.read(size)


def _reason(error: Exception) -> str:
    if isinstance(error, EndOfFile):
        return 'it ends within a record'
    return f'{error}' if isinstance(error, ValueError) else f'{type(error).__name__}: {error}'
