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

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
import time
from typing import Any

import numpy as np
import psutil

from .bag import Bag, Frame, open_bag
from .captions import CaptionRecord
from .errors import ReplayError
from .folder import ReplayFolder, Timing
from .report import write_report
from ..images.image_decoding import decode_compressed, decode_image

MB = 1 << 20
MAX_NOTICES = 3  # of skipped frames, for each topic


@dataclass(frozen=True)
class ReplaySettings:
    """What decides which captions come out; kept in replay.json."""

    topics: tuple[str, ...] = ()  # empty: all image topics
    every: float = 0.5  # s at least between two captions of a topic, 0 for every frame
    captioner: dict[str, Any] = field(default_factory=dict)  # fields of CaptionerSettings


@dataclass
class ReplayResult:
    """How the replay of a bag ended; kept in replay.json."""

    bag: str
    start: int | None  # bag time of the first message, ns
    complete: bool  # read to the end of the bag, or to where it breaks
    captions: int = 0
    changes: int = 0
    skipped: int = 0  # frames that could not be decoded
    seconds: float = 0.0  # of computing, over all runs
    problems: list[str] = field(default_factory=list)


class Observer:
    """What a replay tells and asks while it runs; the base class is silent."""

    def opened(self, bag: Bag) -> None:
        """Take note that frames are about to be read."""

    def advanced(self, bag_time: int) -> None:
        """Take note of the bag time of the frame at hand, ns."""

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
        previous = folder.read_summary()
        _check_settings(previous, bag, settings, out)
        result = ReplayResult(path.name, bag.start, False)
        if previous:
            result = ReplayResult(**previous['result'])
            captions = sum(state.captions for state in folder.topics.values())
            if result.complete and result.captions == captions:
                return result
        began = time.monotonic() - result.seconds

        def write(complete: bool) -> None:
            states = folder.topics.values()
            result.complete = complete
            result.captions = sum(state.captions for state in states)
            result.changes = sum(state.changes for state in states)
            result.skipped = sum(state.skipped for state in states)
            result.seconds = round(time.monotonic() - began, 3)
            result.problems = bag.problems
            folder.write_summary({'settings': asdict(settings), 'result': asdict(result)})

        write(complete=False)
        complete = False
        try:
            complete = _caption_frames(bag, folder, settings, get_captioner(), observer)
        finally:
            write(complete)
            write_report(folder, result)
    return result


def _caption_frames(
        bag: Bag, folder: ReplayFolder, settings: ReplaySettings, captioner: Any,
        observer: Observer) -> bool:
    """Caption the frames that are due; return whether the bag has been read to its end."""
    observer.opened(bag)
    every = round(settings.every * 1e9)
    done = {topic: state.last_time for topic, state in folder.topics.items()}
    topics = settings.topics or tuple(bag.image_topics)
    after = min((done.get(topic, -1) for topic in topics), default=-1)
    for frame in bag.frames(settings.topics, after):
        if observer.stopped():
            return False
        observer.advanced(frame.bag_time)
        state = folder.state(frame.topic)
        since_caption = frame.bag_time - state.last_captioned
        if frame.bag_time <= done.get(frame.topic, -1) or state.captions and since_caption < every:
            continue
        try:
            message = frame.message()
            compressed = frame.msgtype == 'sensor_msgs/msg/CompressedImage'
            image = decode_compressed(message) if compressed else decode_image(message)
        except ValueError as error:
            folder.skip(frame.bag_time, frame.topic, str(error))
            if state.skipped <= MAX_NOTICES:
                observer.notice(f'a frame of {frame.topic} is skipped: {error}')
            continue
        record, timing = _caption(frame, message.header, image, captioner)
        folder.add(record, timing, image)
    if not folder.topics:
        bag.problems.append('no image was found')
    return True


def _caption(
        frame: Frame, header: Any, image: np.ndarray,
        captioner: Any) -> tuple[CaptionRecord, Timing]:
    began = time.perf_counter()
    caption = captioner.caption(image)
    latency = time.perf_counter() - began
    record = CaptionRecord(
        frame.bag_time, header.stamp.sec * 10**9 + header.stamp.nanosec, frame.topic,
        header.frame_id, caption.text, round(caption.score, 4), caption.model)
    timing = Timing(
        frame.bag_time, latency * 1e3, caption.seconds * 1e3, _memory_mb(None),
        _memory_mb(captioner.worker_pid))
    return record, timing


def _memory_mb(pid: int | None) -> float:
    """Return the resident memory of a process, of this one for None; 0 if it is gone."""
    try:
        return psutil.Process(pid).memory_info().rss / MB
    except psutil.NoSuchProcess:
        return 0.0


def _check_topics(bag: Bag, settings: ReplaySettings) -> None:
    if not bag.image_topics:  # nothing intact to learn them from: what is there will be read
        return
    unknown = [topic for topic in settings.topics if topic not in bag.image_topics]
    if unknown:
        raise ReplayError(
            f'{bag.path} has no images on {", ".join(unknown)}; its image topics are '
            + ', '.join(sorted(bag.image_topics)))


def _check_settings(
        previous: dict[str, Any], bag: Bag, settings: ReplaySettings, out: Path) -> None:
    if not previous:
        return
    if previous['result']['bag'] != bag.path.name:
        raise ReplayError(
            f'{out} holds a replay of {previous["result"]["bag"]}; choose another --out')
    before, now = (
        {'topics': list(values['topics']), 'every': values['every'], **values['captioner']}
        for values in (previous['settings'], asdict(settings)))
    for key, value in now.items():
        # Where a checkpoint is does not matter, it is known by its SHA-256.
        if key != 'checkpoint' and before.get(key) != value:
            raise ReplayError(
                f'{out} was made with {key} {before.get(key)}, not {value}: go on with the same'
                ' options, or choose another --out')
