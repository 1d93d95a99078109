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

"""The report of a replay: one HTML file whose size does not grow with the bag."""

import bisect
from collections.abc import Iterator
import csv
from dataclasses import dataclass, field
import difflib
import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from .charts import Chart, clock, line_chart, time_labels
from .folder import ReplayFolder, thumbnail_stride, Timing
from ..images.page import data_uri, render_page

MAX_LINES = 12  # captions listed in a card below the one of its picture
STRIP_WIDTH = 1000  # of a timeline's own coordinates; what is narrower than 1 is not drawn
FILM_LENGTH = 10  # pictures below a timeline

_TEMPLATE = Path(__file__).with_name('report.html')


@dataclass
class Segment:
    """A run of frames of one topic with the same caption."""

    start: float  # s from the start of the bag
    end: float  # of the next segment's start, or of the last frame
    caption: str
    words: list[tuple[str, bool]]  # and whether the caption before had not the word there
    score: float | None
    model: str
    frames: int = 1


@dataclass
class Card:
    """A picture, its segment and those that follow until the next picture."""

    number: int
    picture: str
    segments: list[Segment] = field(default_factory=list)

    @property
    def hidden(self) -> int:
        """How many segments are not listed."""
        return max(0, len(self.segments) - 1 - MAX_LINES)


@dataclass
class Topic:
    """What the report shows of one topic."""

    name: str
    segments: list[Segment] = field(default_factory=list)
    cards: list[Card] = field(default_factory=list)


def write_report(folder: ReplayFolder, result: Any) -> None:
    """
    Write report.html into the folder.

    :param result: the ReplayResult of the folder.
    """
    start, topics = _read_topics(folder, result.start)
    timings = _read_timings(folder.path / 'timings.csv')
    ends = [topic.segments[-1].end for topic in topics]
    duration = max(ends, default=0.0)
    for topic in topics:
        for segment, following in zip(topic.segments, topic.segments[1:]):
            segment.end = following.start
        topic.cards = list(_make_cards(folder, topic))
    page = render_page(
        f'Captions of {result.bag}', _TEMPLATE.read_text(encoding='utf-8'),
        result=result, topics=topics, duration=duration, timings=timings,
        models=sorted({segment.model for topic in topics for segment in topic.segments}),
        charts=_make_charts(timings, start, duration),
        strips={topic.name: list(_make_strip(topic, duration)) for topic in topics},
        films={topic.name: _pick_film(topic, duration) for topic in topics},
        time_labels=time_labels(duration), clock=clock, percentile=np.percentile,
        max_lines=MAX_LINES)
    partial = folder.path / 'report.html.partial'
    # A bag's name may have bytes that are no text.
    partial.write_text(page, encoding='utf-8', errors='backslashreplace')
    partial.replace(folder.path / 'report.html')


def _read_topics(folder: ReplayFolder, start: int | None) -> tuple[int, list[Topic]]:
    """Return the bag time that counts as 0, ns, and the topics with their segments."""
    topics: dict[str, Topic] = {}
    for record in folder.records():
        start = record.bag_time if start is None else start
        seconds = (record.bag_time - start) / 1e9
        segments = topics.setdefault(record.topic, Topic(record.topic)).segments
        if segments and segments[-1].caption == record.caption:
            segments[-1].end = seconds
            segments[-1].frames += 1
        else:
            before = segments[-1].caption if segments else record.caption
            segments.append(Segment(
                seconds, seconds, record.caption, _mark_new_words(before, record.caption),
                record.score, record.model))
    return start or 0, [topics[name] for name in sorted(topics)]


def _mark_new_words(before: str, caption: str) -> list[tuple[str, bool]]:
    words = caption.split()
    matcher = difflib.SequenceMatcher(None, before.split(), words, autojunk=False)
    return [
        (word, tag != 'equal') for tag, _, _, start, end in matcher.get_opcodes()
        for word in words[start:end]]


def _make_cards(folder: ReplayFolder, topic: Topic) -> Iterator[Card]:
    stride = thumbnail_stride(len(topic.segments) - 1)
    for number in range(0, len(topic.segments), stride):
        path = folder.thumbnail_path(topic.name, number)
        picture = data_uri(path.read_bytes()) if path.exists() else ''
        yield Card(number, picture, topic.segments[number:number + stride])


def _make_strip(topic: Topic, duration: float) -> Iterator[dict[str, Any]]:
    """Yield the rectangles of a topic's timeline, equal captions in equal colours."""
    stride = thumbnail_stride(len(topic.segments) - 1)
    scale = STRIP_WIDTH / duration if duration else 0
    drawn_to = -1.0
    for number, segment in enumerate(topic.segments):
        x, width = segment.start * scale, (segment.end - segment.start) * scale
        if x + width < drawn_to + 1 and number < len(topic.segments) - 1:
            continue
        drawn_to = x + width
        digest = hashlib.sha256(segment.caption.encode('utf-8')).digest()
        yield {
            'x': round(x, 1), 'width': round(max(width, 1), 1), 'segment': segment,
            'hue': int.from_bytes(digest[:2], 'big') % 360, 'card': number // stride * stride}


def _pick_film(topic: Topic, duration: float) -> list[Card]:
    """Return the cards of FILM_LENGTH moments, evenly over the time."""
    starts = [card.segments[0].start for card in topic.cards]
    moments = (duration * (part + 0.5) / FILM_LENGTH for part in range(FILM_LENGTH))
    return [topic.cards[max(0, bisect.bisect(starts, moment) - 1)] for moment in moments]


def _read_timings(path: Path) -> dict[str, np.ndarray]:
    """Return the columns of timings.csv."""
    with path.open(encoding='utf-8', newline='') as file:
        rows = csv.reader(file)
        next(rows)
        table = np.array(list(rows), np.float64).reshape(-1, len(Timing._fields))
    return dict(zip(Timing._fields, table.T))


def _make_charts(
        timings: dict[str, np.ndarray], start: int, duration: float) -> list[Chart]:
    times = (timings['bag_time'] - start) / 1e9
    if not len(times):
        return []
    return [
        line_chart(
            'Time for a caption, ms', times, {'latency': timings['latency_ms']}, duration,
            banded=True),
        line_chart('Resident memory, MB', times, {
            'model': timings['model_memory_mb'], 'replay': timings['memory_mb']}, duration)]
