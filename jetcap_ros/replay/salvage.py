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
What a damaged storage file still holds, read from its start until it breaks.

A recorder that was killed, a full disk or a copy cut short leave files without their index, which
the ordinary readers refuse. These read in the order of the file and need no index. Both yield
(topic, message type, bag time in ns, CDR bytes) and raise BrokenFile where the file breaks.
"""

from collections.abc import Iterator
from pathlib import Path
import sqlite3

from mcap.exceptions import EndOfFile, RecordLengthLimitExceeded
from mcap.records import Channel, Message as McapMessage, Schema
from mcap.stream_reader import StreamReader

Message = tuple[str, str, int, bytes]


class BrokenFile(Exception):
    """The place where a storage file breaks, and why."""


def read_sqlite3(path: Path) -> Iterator[Message]:
    """
    Yield the messages of a .db3 file and of the write-ahead log beside it.

    :raises BrokenFile: after the last message that can be read, if the file is damaged.
    """
    database = sqlite3.connect(f'{path.absolute().as_uri()}?mode=ro', uri=True)
    last_row = 0
    try:
        # Without this SQLite refuses a file that is shorter than its header says.
        database.execute('PRAGMA writable_schema = ON')
        topics = {
            row[0]: row[1:] for row in database.execute('SELECT id, name, type FROM topics')}
        messages = database.execute(
            'SELECT id, topic_id, timestamp, data FROM messages ORDER BY id')
        for last_row, topic_id, time, data in messages:
            if topic_id in topics:
                yield (*topics[topic_id], time, data)
    except sqlite3.Error as error:
        raise BrokenFile(f'it breaks after message {last_row}: {error}') from error
    finally:
        database.close()


def read_mcap(path: Path) -> Iterator[Message]:
    """
    Yield the messages of an .mcap file, chunk by chunk.

    :raises BrokenFile: after the last message that can be read, if the file is damaged.
    """
    schemas, channels = {}, {}
    size = path.stat().st_size
    with path.open('rb') as file:
        # A damaged length must not become an allocation: no record is longer than its file.
        records = StreamReader(file, validate_crcs=True, record_size_limit=size).records
        while True:
            try:
                record = next(records, None)
            except Exception as error:  # damaged bytes raise anything: struct, zstd, lz4, Unicode
                ends = isinstance(error, (EndOfFile, RecordLengthLimitExceeded))
                reason = 'it ends within a record' if ends else f'{type(error).__name__}: {error}'
                raise BrokenFile(
                    f'it breaks at byte {file.tell()} of {size}: {reason}') from error
            if record is None:
                return
            if isinstance(record, Schema):
                schemas[record.id] = record.name
            elif isinstance(record, Channel):
                channels[record.id] = (record.topic, schemas.get(record.schema_id, ''))
            elif isinstance(record, McapMessage) and record.channel_id in channels:
                yield (*channels[record.channel_id], record.log_time, record.data)
