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
The folder a replay writes, and from which it can go on.

    captions.jsonl   the captions, repeatable byte for byte
    skipped.jsonl    the frames that could not be decoded, and why
    timings.csv      what each caption cost
    thumbnails/      pictures for the report
    replay.json      how it was run and how it ended
    report.html      the report
Every line is handed to the system as it is written, so the folder is whole at any moment.
"""

from collections import Counter
from collections.abc import Iterator
import csv
from dataclasses import dataclass, field
import fcntl
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .captions import CaptionRecord, drop_partial_line, read_lines, read_records, write_record
from .errors import ReplayError
from ..images.page import thumbnail

# For each topic; a report stays small enough to be opened and sent.
MAX_THUMBNAILS = 120


class Timing(NamedTuple):
    """What one caption cost."""

    bag_time: int  # of its frame, ns
    latency_ms: float  # of the call, with the way to the model's process and back
    model_ms: float  # in the model's process
    memory_mb: float  # resident, of the replay
    model_memory_mb: float  # resident, of the model's process


@dataclass
class TopicState:
    """How far one topic has come."""

    caption: str = ''
    captions: int = 0
    segments: int = 0  # runs of equal captions
    skipped: int = 0


@dataclass
class ReplayFolder:
    """An open folder; a context manager."""

    path: Path
    topics: dict[str, TopicState] = field(default_factory=dict)
    # What an earlier run has done, as (topic, bag time); frames are taken out as they come again.
    captioned: Counter[tuple[str, int]] = field(default_factory=Counter)
    skipped: Counter[tuple[str, int]] = field(default_factory=Counter)

    def __enter__(self) -> 'ReplayFolder':
        """
        Make the folder, or take up the state of the replay it holds.

        :raises ReplayError: if another process is writing to it.
        """
        (self.path / 'thumbnails').mkdir(parents=True, exist_ok=True)
        self._captions = (self.path / 'captions.jsonl').open('a', encoding='utf-8')
        self._lock()
        for name in ('captions.jsonl', 'skipped.jsonl', 'timings.csv'):
            drop_partial_line(self.path / name)
        for record in self.records():
            self._count(record)
            self.captioned[record.topic, record.bag_time] += 1
        for topic, bag_time in self._read_skipped():
            self.state(topic).skipped += 1
            self.skipped[topic, bag_time] += 1
        self._skipped = (self.path / 'skipped.jsonl').open('a', encoding='utf-8')
        self._timings = (self.path / 'timings.csv').open('a', encoding='utf-8', buffering=1)
        if not self._timings.tell():
            csv.writer(self._timings).writerow(Timing._fields)
        return self

    def __exit__(self, *exception: object) -> None:
        """Close the files."""
        for file in (self._captions, self._skipped, self._timings):
            file.close()

    def state(self, topic: str) -> TopicState:
        """Return the state of a topic, new if it has none."""
        return self.topics.setdefault(topic, TopicState())

    def add(self, record: CaptionRecord, timing: Timing, image: np.ndarray) -> None:
        """Write a caption, and keep a thumbnail if it says something new."""
        changed = self._count(record)
        write_record(self._captions, record)
        csv.writer(self._timings).writerow(
            [timing.bag_time, *(f'{value:.2f}' for value in timing[1:])])
        if changed:
            self._keep_thumbnail(record, image)

    def skip(self, bag_time: int, topic: str, reason: str) -> None:
        """Note a frame that could not be decoded."""
        self.state(topic).skipped += 1
        line = {'bag_time': bag_time, 'topic': topic, 'reason': reason}
        self._skipped.write(json.dumps(line, ensure_ascii=False) + '\n')
        self._skipped.flush()

    def records(self) -> Iterator[CaptionRecord]:
        """Yield the captions written so far."""
        path = self.path / 'captions.jsonl'
        return read_records(path) if path.exists() else iter(())

    def thumbnail_path(self, topic: str, change: int) -> Path:
        """Return where the picture of a topic's nth change of caption is, if it is kept."""
        return self.path / 'thumbnails' / f'{topic.strip("/").replace("/", "-")}-{change:06}.jpg'

    def read_summary(self) -> dict[str, Any]:
        """
        Return replay.json, empty if there is none or a power cut has left nothing in it.

        :raises ReplayError: if it is damaged.
        """
        path = self.path / 'replay.json'
        content = path.read_bytes().strip(b'\0 \n') if path.exists() else b''
        try:
            summary = json.loads(content or b'{}')
            if isinstance(summary, dict):
                return summary
        except ValueError:
            pass
        raise ReplayError(
            f'{path} is damaged: delete it and go on with the same options, or choose another'
            ' --out')

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Write replay.json, whole or not at all."""
        partial = self.path / 'replay.json.partial'
        with partial.open('w', encoding='utf-8') as file:
            file.write(json.dumps(summary, indent=2) + '\n')
            file.flush()
            os.fsync(file.fileno())  # else a power cut may leave the new name without content
        partial.replace(self.path / 'replay.json')

    def _lock(self) -> None:
        """Keep the folder from a second writer until this one closes it or ends."""
        try:
            fcntl.flock(self._captions, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._captions.close()
            raise ReplayError(f'another replay is writing to {self.path}') from None
        except OSError:
            pass  # a file system without locks

    def _count(self, record: CaptionRecord) -> bool:
        """Take a record into its topic's state and return whether a new segment begins."""
        state = self.state(record.topic)
        state.captions += 1
        changed = state.captions == 1 or record.caption != state.caption
        state.segments += changed
        state.caption = record.caption
        return changed

    def _read_skipped(self) -> Iterator[tuple[str, int]]:
        path = self.path / 'skipped.jsonl'
        for values in read_lines(path) if path.exists() else ():
            yield values['topic'], values['bag_time']

    def _keep_thumbnail(self, record: CaptionRecord, image: np.ndarray) -> None:
        """Keep every change's picture, later every second, every fourth..., evenly over time."""
        change = self.state(record.topic).segments - 1
        stride = thumbnail_stride(change)
        if stride > thumbnail_stride(change - 1):
            for old in range(stride // 2, change, stride):
                self.thumbnail_path(record.topic, old).unlink(missing_ok=True)
        if change % stride == 0:
            self.thumbnail_path(record.topic, change).write_bytes(thumbnail(image))


def thumbnail_stride(last_change: int) -> int:
    """Return of every how many changes the picture is kept, once there are that many, from 0."""
    stride = 1
    while last_change // stride >= MAX_THUMBNAILS:
        stride *= 2
    return stride
