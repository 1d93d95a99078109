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

"""What a replay shows on the terminal, and how it is stopped from there."""

import signal
import sys
import threading
from typing import Any

from tqdm import tqdm

from .runner import Observer


class Interruption:
    """
    Turns the first Ctrl-C or SIGTERM into an event, so that everything is written before the end.

    While `immediate` is set, and at the second time, it is the usual KeyboardInterrupt.
    """

    def __init__(self) -> None:
        self.event = threading.Event()
        self.immediate = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> 'Interruption':
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exc_info: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: Any) -> None:
        again = self.event.is_set()
        self.event.set()
        if self.immediate or again:
            raise KeyboardInterrupt


class BagProgress(Observer):
    """Shows in a bar how many images of one bag have been read; a context manager."""

    def __init__(self, name: str, stopping: threading.Event) -> None:
        self._stopping = stopping
        self._bar = tqdm(desc=name, unit=' images')

    def __enter__(self) -> 'BagProgress':
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._bar.close()

    def opened(self, images: int | None) -> None:
        """Start the bar; the time left counts from here, not from the loading of the model."""
        self._bar.reset(total=images)

    def advanced(self) -> None:
        """Move the bar."""
        self._bar.update()

    def notice(self, text: str) -> None:
        """Print a line above the bar."""
        self._bar.write(f'jetcap replay: {text}', file=sys.stderr)

    def stopped(self) -> bool:
        """Return whether somebody has asked for the end."""
        return self._stopping.is_set()
