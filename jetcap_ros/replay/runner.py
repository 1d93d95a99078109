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

"""Captioning one bag: which frames, in what order, and what is written when it ends."""

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
import math
from pathlib import Path
import time
from typing import Any

import numpy as np

from .bag import Bag, Frame, open_bag
from .captions import CaptionRecord
from .errors import ReplayError
from .folder import ReplayFolder, Timing
from .report import write_report
from ..images.image_decoding import decode_compressed, decode_image
from ..images.still import Scene
from ..memory.memory_utils import process_memory

MAX_NOTICES = 3  # of skipped frames, for each topic


@dataclass(frozen=True)
class ReplaySettings:
    """What decides which captions come out; kept in replay.json."""

    topics: tuple[str, ...] = ()  # empty: all image topics
    every: float = 0.5  # s at least between two captions of a topic, 0 for every frame
    captioner: dict[str, Any] = field(default_factory=dict)  # fields of CaptionerSettings
    still_threshold: float = 0.0  # frames that differ less from the last captioned are left out


@dataclass
class ReplayResult:
    """How the replay of a bag ended; kept in replay.json."""

    bag: str
    start: int | None  # bag time of the first message, ns
    complete: bool  # all was read that can be read
    captions: int = 0
    changes: int = 0  # captions that differ from the one before on their topic
    skipped: int = 0  # frames that could not be decoded
    still: int = 0  # frames left out, as they showed what the last captioned one did
    lost: int = 0  # frames that were recorded and cannot be read, as far as their number is known
    seconds: float = 0.0  # of computing, over all runs
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what is odd but costs nothing

    @property
    def whole(self) -> bool:
        """Whether nothing was left out."""
        return self.complete and self.captions > 0 and not self.skipped and not self.problems


class Observer:
    """What a replay tells and asks while it runs; the base class is silent."""

    def opened(self, images: int | None) -> None:
        """Take note that frames are about to be read, and of their number if it is known."""

    def advanced(self) -> None:
        """Take note that another frame has been read."""

    def notice(self, text: str) -> None:
        """Tell of frames that are skipped."""

    def stopped(self) -> bool:
        """Return whether the replay shall end now, with everything written."""
        return False


def replay_bag(
        path: Path, out: Path, settings: ReplaySettings, get_captioner: Callable[[], Any],
        observer: Observer = Observer()) -> ReplayResult:
    """
    Caption a bag into a folder, going on from what the folder already holds.

    :param get_captioner: returns a configured Captioner; only called if there is work to do.
    :raises ReplayError: if there is no bag or no such topic, or the folder is of another replay
        or being written by another process.
    """
    bag = open_bag(path)
    _check_topics(bag, settings)
    with ReplayFolder(out) as folder:
        result = ReplayResult(path.name, bag.start, False)
        previous = folder.read_summary()
        if previous:
            result = _check_previous(previous, bag, settings, out)
            captions = sum(state.captions for state in folder.topics.values())
            if result.complete and result.captions == captions:
                return result
        began = time.monotonic() - result.seconds

        def write(complete: bool) -> None:
            states = folder.topics.values()
            result.start, result.complete = bag.start, complete
            result.captions = sum(state.captions for state in states)
            result.changes = sum(max(0, state.segments - 1) for state in states)
            result.skipped = sum(state.skipped for state in states)
            result.seconds = round(time.monotonic() - began, 3)
            result.problems, result.notes = bag.problems, bag.notes
            folder.write_summary({'settings': asdict(settings), 'result': asdict(result)})

        write(complete=False)
        complete = False
        try:
            complete = _caption_frames(bag, folder, settings, get_captioner(), observer, result)
        except ReplayError as error:
            bag.problems.append(str(error))
        finally:
            write(complete)
            write_report(folder, result)
    return result


def _caption_frames(
        bag: Bag, folder: ReplayFolder, settings: ReplaySettings, captioner: Any,
        observer: Observer, result: ReplayResult) -> bool:
    """Caption the frames that are due; return whether the bag has been read to its end."""
    counts = {
        topic: count for topic, count in (bag.counts or {}).items()
        if not settings.topics or topic in settings.topics}
    observer.opened(None if bag.counts is None else sum(counts.values()))
    every = round(settings.every * 1e9)
    read: Counter[str] = Counter()
    last_looked_at: dict[str, int] = {}  # topic -> bag time, ns
    scenes: defaultdict[str, Scene] = defaultdict(Scene)  # by topic: what was captioned last
    result.still = 0
    for frame in bag.frames(settings.topics):
        if observer.stopped():
            return False
        observer.advanced()
        read[frame.topic] += 1
        key = (frame.topic, frame.bag_time)
        if folder.captioned[key]:
            folder.captioned[key] -= 1
            last_looked_at[frame.topic] = frame.bag_time
            if settings.still_threshold:  # it is what the next ones are compared with
                scenes[frame.topic].look(_decode(frame)[1])
                scenes[frame.topic].keep()
            continue
        if folder.skipped[key]:
            folder.skipped[key] -= 1
            continue
        # A clock that was set back does not stop the captions.
        if abs(frame.bag_time - last_looked_at.get(frame.topic, math.inf)) < every:
            continue
        try:
            header, image = _decode(frame)
        except ValueError as error:
            folder.skip(frame.bag_time, frame.topic, str(error))
            if folder.state(frame.topic).skipped <= MAX_NOTICES:
                observer.notice(f'a frame of {frame.topic} is skipped: {error}')
            continue
        last_looked_at[frame.topic] = frame.bag_time
        if settings.still_threshold:
            if scenes[frame.topic].look(image) < settings.still_threshold:
                result.still += 1
                continue
            scenes[frame.topic].keep()
        record, timing = _caption(frame, header, image, captioner)
        folder.add(record, timing, image)
    result.lost = sum(max(0, count - read[topic]) for topic, count in counts.items())
    if result.lost:
        bag.problems.append(
            f'{result.lost} of {sum(counts.values())} recorded frames cannot be read')
    if not folder.topics:
        bag.problems.append('no image was found')
    return True


def _decode(frame: Frame) -> tuple[Any, np.ndarray]:
    """Return a frame's header and its picture; ValueError says what it is not."""
    message = frame.message()
    compressed = frame.msgtype == 'sensor_msgs/msg/CompressedImage'
    return message.header, decode_compressed(message) if compressed else decode_image(message)


def _caption(
        frame: Frame, header: Any, image: np.ndarray,
        captioner: Any) -> tuple[CaptionRecord, Timing]:
    began = time.perf_counter()
    caption = captioner.caption(image)
    latency = time.perf_counter() - began
    record = CaptionRecord(
        frame.bag_time, header.stamp.sec * 10**9 + header.stamp.nanosec, frame.topic,
        header.frame_id, caption.text,
        None if caption.score is None else round(caption.score, 4), caption.model)
    timing = Timing(
        frame.bag_time, latency * 1e3, caption.seconds * 1e3, process_memory().rss_mb,
        captioner.worker_rss_mb)
    return record, timing


def _check_topics(bag: Bag, settings: ReplaySettings) -> None:
    if not bag.image_topics:  # nothing intact to learn them from: what is there will be read
        return
    unknown = [topic for topic in settings.topics if topic not in bag.image_topics]
    if unknown:
        raise ReplayError(
            f'{bag.path} has no images on {", ".join(unknown)}; its image topics are '
            + ', '.join(sorted(bag.image_topics)))


def _check_previous(
        previous: dict[str, Any], bag: Bag, settings: ReplaySettings, out: Path) -> ReplayResult:
    """Return the result of the replay that is gone on with, if it was made in the same way."""
    try:
        result = ReplayResult(**previous['result'])
        before, now = (
            {'topics': list(values['topics']), 'every': values['every'],
             'still_threshold': values['still_threshold'], **values['captioner']}
            for values in (previous['settings'], asdict(settings)))
    except (KeyError, TypeError) as error:
        raise ReplayError(
            f'{out / "replay.json"} is not of this version ({error!r}): choose another --out'
        ) from error
    if result.bag != bag.path.name:
        raise ReplayError(f'{out} holds a replay of {result.bag}; choose another --out')
    for key, value in now.items():
        # Where a checkpoint is does not matter, it is known by its SHA-256.
        if key not in ('checkpoint', 'inference_timeout_s') and before.get(key) != value:
            raise ReplayError(
                f'{out} was made with {key} {before.get(key)}, not {value}: go on with the same'
                ' options, or choose another --out')
    return result
