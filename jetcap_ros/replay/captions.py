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
The captions of a replay: one JSON object a line, the same bytes from every run.

A line is written whole as soon as its caption is there, so that whatever ends a replay leaves a
file that can be read and gone on with. Times of computing are kept elsewhere (`timings.csv`).
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
import json
import mmap
from pathlib import Path
from typing import Any, TextIO

from .errors import ReplayError


@dataclass(frozen=True)
class CaptionRecord:
    """One caption of one frame."""

    bag_time: int  # when the frame was recorded, ns
    stamp: int  # header.stamp, ns
    topic: str
    frame_id: str
    caption: str
    score: float | None  # None of a server that does not tell
    model: str


def _score(value: Any) -> float | None:
    return None if value is None else float(value)


_FIELDS: dict[str, Any] = {
    field.name: field.type for field in fields(CaptionRecord)} | {'score': _score}


def write_record(file: TextIO, record: CaptionRecord) -> None:
    """Append a record to an open text file and hand it to the system."""
    file.write(json.dumps(asdict(record), ensure_ascii=False) + '\n')
    file.flush()


def read_records(path: Path) -> Iterator[CaptionRecord]:
    """
    Yield the records of a captions.jsonl.

    :raises ReplayError: for a line that is none; names the line.
    """
    for number, values in enumerate(read_lines(path), 1):
        try:
            record = CaptionRecord(**{name: type_(values[name]) for name, type_ in _FIELDS.items()})
        except (ValueError, KeyError, TypeError) as error:
            raise ReplayError(
                f'{path}, line {number}, is not a caption record: {error!r}') from error
        yield record


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """
    Yield the JSON objects of a file with one a line.

    :raises ReplayError: for a line that is none; names the line.
    """
    with path.open('rb') as file:
        for number, line in enumerate(file, 1):
            try:
                values = json.loads(line)
                if not isinstance(values, dict):
                    raise ValueError('expected a JSON object')
            except ValueError as error:
                raise ReplayError(f'{path}, line {number}: {error}') from error
            yield values


def drop_partial_line(path: Path) -> None:
    """Cut what follows a file's last line end, as left by a process killed while writing."""
    if not path.exists():
        return
    with path.open('rb+') as file:
        if path.stat().st_size:  # an empty file cannot be mapped
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                end = content.rfind(b'\n') + 1
            file.truncate(end)
