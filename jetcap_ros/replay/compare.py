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

"""Comparing the captions of a replay with those of an earlier one."""

from collections.abc import Iterable, Iterator
import difflib
from typing import NamedTuple

from .captions import CaptionRecord

MAX_SHOWN = 20

_Key = tuple[int, str, int]  # bag time, topic, number among the frames of that time and topic


class Difference(NamedTuple):
    """One frame whose captions are not alike enough; None where there is no caption."""

    bag_time: int  # ns
    topic: str
    expected: str | None
    actual: str | None
    similarity: float


class Comparison(NamedTuple):
    """What a comparison found."""

    compared: int  # captions expected
    start: int  # bag time of the first of them, ns
    mean_similarity: float
    differences: list[Difference]

    def __str__(self) -> str:
        """Return the differences for people to read."""
        lines = [
            f'{self.compared} captions expected, {len(self.differences)} differences,'
            f' mean similarity {self.mean_similarity:.3f}']
        for difference in self.differences[:MAX_SHOWN]:
            seconds = (difference.bag_time - self.start) / 1e9
            if difference.expected is None:
                note = 'no caption was expected'
            elif difference.actual is None:
                note = 'the caption is missing'
            else:
                note = f'similarity {difference.similarity:.2f}'
            lines.append(
                f'at {seconds:.3f} s ({difference.bag_time}) on {difference.topic}: {note}')
            if difference.expected is not None:
                lines.append(f'  - {difference.expected}')
            if difference.actual is not None:
                lines.append(f'  + {difference.actual}')
        if len(self.differences) > MAX_SHOWN:
            lines.append(f'and {len(self.differences) - MAX_SHOWN} more')
        return '\n'.join(lines)


def similarity(expected: str, actual: str) -> float:
    """Return the share of words two captions have in common in the same order, 0 to 1."""
    matcher = difflib.SequenceMatcher(None, expected.split(), actual.split(), autojunk=False)
    return matcher.ratio()


def compare(
        expected: Iterable[CaptionRecord], actual: Iterable[CaptionRecord],
        threshold: float = 1.0) -> Comparison:
    """
    Compare the captions frame by frame; frames are the same by topic and bag time.

    :param threshold: the similarity each caption must reach; at 1 the words must be the same.
    :return: with a difference for each caption below the threshold, missing or not expected.
    """
    wanted: dict[_Key, str] = dict(_by_frame(expected))
    compared = len(wanted)
    start = min(wanted, default=(0,))[0]
    differences, total = [], 0.0
    for key, caption in _by_frame(actual):
        expected_caption = wanted.pop(key, None)
        likeness = 0.0
        if expected_caption is not None:
            likeness = similarity(expected_caption, caption)
            total += likeness
        if expected_caption is None or likeness < threshold:
            differences.append(Difference(*key[:2], expected_caption, caption, likeness))
    differences += [
        Difference(*key[:2], caption, None, 0.0) for key, caption in wanted.items()]
    differences.sort(key=lambda difference: difference.bag_time)
    return Comparison(compared, start, total / compared if compared else 1.0, differences)


def _by_frame(records: Iterable[CaptionRecord]) -> Iterator[tuple[_Key, str]]:
    seen: dict[str, tuple[int, int]] = {}  # topic -> bag time and number of the last frame
    for record in records:
        last_time, number = seen.get(record.topic, (-1, 0))
        number = number + 1 if record.bag_time == last_time else 0
        seen[record.topic] = (record.bag_time, number)
        yield (record.bag_time, record.topic, number), record.caption
