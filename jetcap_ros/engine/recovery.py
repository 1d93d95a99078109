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
When the model asked for gives way to its stand-in, is tried again, or rests.

No process and no thread is begun in here: what happens is told, and time is read from a clock
that a test can turn.
"""

from collections.abc import Callable, Iterator
import contextlib
import threading
import time

# Percent of the time in which everything waited for memory, for how long: then give it back.
PRESSURE_LIMIT, PRESSURE_SECONDS = 20.0, 2.0
FIRST_RETRY_S, LAST_RETRY_S = 5.0, 300.0


class Recovery:
    """
    Decides when memory is given back, and when the model asked for is tried again.

    :param clock: returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._delay_s = FIRST_RETRY_S
        self._due_at = float('inf')
        self._pressed_since: float | None = None
        self._worked_at = clock()
        self._at_work = 0
        self._counting = threading.Lock()

    @contextlib.contextmanager
    def work(self) -> Iterator[None]:
        """Do not rest until this has ended, however long it takes."""
        with self._counting:
            self._at_work += 1
        try:
            yield
        finally:
            with self._counting:
                self._at_work -= 1
                self._worked_at = self._clock()

    def rests(self, after_s: float) -> bool:
        """Say whether there was no work for so long; after 0 s never."""
        return 0 < after_s <= self._clock() - self._worked_at and not self._at_work

    def hurry(self) -> None:
        """Try the model asked for at once."""
        self._due_at = self._clock()

    def forget(self) -> None:
        """Try nothing until something is noted again."""
        self._due_at = float('inf')

    def lost(self) -> None:
        """Note that the model asked for does not caption: try it after a delay that grows."""
        self._due_at = self._clock() + self._delay_s
        self._delay_s = min(2 * self._delay_s, LAST_RETRY_S)

    def put_off(self) -> None:
        """Try it after the short delay; that it was not tried now says nothing about it."""
        self._due_at = self._clock() + FIRST_RETRY_S

    def regained(self) -> None:
        """Note that it captions again; only if it stays well it earns the short delay again."""
        self._due_at = self._clock() + self._delay_s

    def is_due(self) -> bool:
        """Say, once, that it is time to look: `settled` if all is well, else try."""
        due = self._clock() >= self._due_at
        if due:
            self._due_at = float('inf')
        return due

    def settled(self) -> None:
        """Note that the model asked for captions, and has stayed well."""
        self._delay_s = FIRST_RETRY_S

    def shortage(self, available_mb: float, reserve_mb: float, pressure: float | None) -> str:
        """
        Return why the memory of a model should be given back, '' if it need not.

        :param pressure: percent of the time in which all processes waited for memory, None where
            the kernel does not tell.
        """
        if available_mb < reserve_mb:
            return (
                f'{available_mb:.0f} MB available, less than reserve_memory_mb '
                f'({reserve_mb:.0f} MB): its memory was given back')
        now = self._clock()
        if not is_pressed(pressure):
            self._pressed_since = None
        elif self._pressed_since is None:
            self._pressed_since = now
        elif now - self._pressed_since >= PRESSURE_SECONDS:
            self._pressed_since = None
            return (
                f'all processes waited for memory over {PRESSURE_LIMIT:.0f}% of the time: its '
                'memory was given back')
        return ''


def is_pressed(pressure: float | None) -> bool:
    """Say whether all processes wait for memory too much of the time, where the kernel knows."""
    return (pressure or 0) >= PRESSURE_LIMIT
