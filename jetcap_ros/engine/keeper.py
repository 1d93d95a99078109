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
Keeps a worker that captions: loads it, replaces it, has it sleep, wakes it and swaps it.

`Captioner` asks it for the worker; a thread of its own looks after that between captions.
"""

from collections.abc import Callable
from dataclasses import replace
import sys
import threading
import time
from typing import Any

from .errors import CaptionerError
from .recovery import is_pressed, Recovery
from .settings import CaptionerSettings
from .stages import Stage
from .worker_process import WorkerError, WorkerProcess
from .workers import Workers
from ..memory.file_pages import release_file_pages
from ..memory.memory_utils import available_memory_mb, memory_pressure, pre_cleanup

SUPERVISE_EVERY_S = 0.2
Failure = (MemoryError, WorkerError)
# Of a worker's errors, those that no waiting and no other model should make up for.
MISTAKES = ('CheckpointError', 'ServerOptionError')


class Keeper:
    """
    Keeps a worker, of the model asked for or of its stand-in.

    :param on_stage: called after each stage of loading a model.
    :param log: called with a severity ('info', 'warning', 'error') and a text.
    """

    def __init__(
            self, settings: CaptionerSettings, on_stage: Callable[[Stage], None],
            log: Callable[[str, str], None]) -> None:
        self.settings = settings
        self.worker: WorkerProcess | None = None
        self.reason = ''  # why that is not of the model asked for, or why there is none
        self.swap_failure = ''  # why the settings asked for last were not taken on
        self.loading = ''  # the model that is loaded beside it
        self.restarts = 0
        self.asleep_since: float | None = None  # monotonic
        self._log_to = log
        self._workers = Workers(on_stage, self._log)
        self._recovery = Recovery()
        self.work = self._recovery.work  # in its context there is no falling asleep
        self._change = threading.RLock()  # held while one worker replaces another
        self._changes: dict[str, Any] = {}  # of settings, to be swapped to
        self._wakes = False  # the model asked for is to be loaded after a sleep
        self._closing = threading.Event()
        self._stir = threading.Event()  # the supervisor should look now
        self._supervisor = threading.Thread(
            target=self._supervise, name='captioner_supervisor', daemon=True)

    def start(self) -> None:
        """
        Load the model asked for, or its stand-in.

        :raises CaptionerError: with stage and numbers if neither can be.
        """
        with self.work():
            self._load()
        self._supervisor.start()

    def ready(self) -> WorkerProcess:
        """
        Return the worker to ask for a caption; wake it if it sleeps.

        :raises CaptionerError: if there is none.
        """
        if self._closing.is_set():
            raise CaptionerError('the captioner was closed')
        worker = self.worker
        if worker is None:
            with self._change:  # a replacement may be on its way
                if self.asleep_since is not None:
                    self._wake()
                worker = self.worker
        if worker is None:
            raise CaptionerError(self.reason or 'no model is loaded')
        return worker

    def replace(self, failed: WorkerProcess, why: str) -> None:
        """Put the stand-in in the place of a worker, unless somebody has done so already."""
        with self._change:
            if self.worker is not failed or self._closing.is_set():
                return
            self.restarts += 1
            self.reason = f'{_title(failed.name)}: {why}'
            self.worker = None
            self._workers.end(failed)
            self._log('warning' if self.settings.stand_ins(failed.name) else 'error', self.reason)
            self._start_stand_in(failed.name)
            self._recovery.lost()

    def swap(self, changes: dict[str, Any]) -> None:
        """Load a model with other settings soon; until it is ready, the one there is captions."""
        with self._change:
            self._changes.update(changes)
        self._stir.set()

    def close(self) -> None:
        """End the workers, also those that are loading."""
        self._closing.set()
        self._stir.set()
        self._workers.close()
        self.worker = None
        if self._supervisor.is_alive() and self._supervisor is not threading.current_thread():
            self._supervisor.join(timeout=5)

    def _log(self, severity: str, text: str) -> None:
        """Log; what the logger makes of it must not stop us."""
        try:
            self._log_to(severity, text)
        except Exception as error:
            print(f'{severity}: {text} ({type(error).__name__}: {error})', file=sys.stderr)

    def _load(self) -> None:
        """Load the model asked for, else a stand-in; CaptionerError says why neither could be."""
        model = self.settings.model
        try:
            self.worker = self._workers.start(model, self.settings)
            self.reason = ''
        except Failure as error:
            # A checkpoint that is not what was asked for is a mistake to correct, not a shortage
            # to live with: another model must not speak in its place.
            if model == 'simple' or not self.settings.stand_ins(model) or self._closing.is_set() \
                    or getattr(error, 'kind', '') in MISTAKES:
                self.reason = str(error)
                raise CaptionerError(str(error)) from error
            self.reason = f'{_title(model)}: {error}'
            self._log('warning', self.reason)
            self._start_stand_in(model)
            if self.worker is None:
                raise CaptionerError(self.reason) from error
            self._recovery.lost()

    def _start_stand_in(self, lost: str, awaited: bool = False) -> None:
        """Start the first model that can be, in the place of one; if none can, say why."""
        for model in self.settings.stand_ins(lost):
            try:
                self.worker = self._workers.start(model, self.settings, awaited)
                self._log('info', f'the {model} model captions')
                return
            except Failure as error:
                if self._closing.is_set():
                    return
                self.reason = '; '.join(filter(None, (self.reason, f'{_title(model)}: {error}')))
                self._log('error', self.reason)

    def _supervise(self) -> None:
        """Notice what happens between captions: a worker that ends, memory that runs out."""
        while not self._closing.is_set():
            self._stir.wait(SUPERVISE_EVERY_S if self.asleep_since is None else None)
            self._stir.clear()
            try:
                self._look()
            except Exception as error:  # the supervisor must outlive whatever it meets
                self._log('error', f'supervisor: {type(error).__name__}: {error}')

    def _look(self) -> None:
        worker = self.worker
        if worker is not None:
            why = str(worker.failure() or '') or self._shortage(worker)
            if why:
                self.replace(worker, why)
            elif self._recovery.rests(self.settings.sleep_after_s):
                self._sleep(worker)
        if self._changes:
            self._swap()
        elif self.asleep_since is None and self._recovery.is_due():
            self._recover()

    def _shortage(self, worker: WorkerProcess) -> str:
        """Return why a worker should make room for the stand-in, '' if it need not."""
        if worker.name == 'simple' or not self.settings.stand_ins(worker.name):
            return ''
        return self._recovery.shortage(
            available_memory_mb(), self.settings.reserve_memory_mb, memory_pressure())

    def _recover(self) -> None:
        """Try to return to the model asked for; while it loads, the other one captions."""
        settings = self.settings
        if self.worker is not None and self.worker.name == settings.model:
            self._recovery.settled()
            return
        # To read the libraries again while all wait for memory would make it worse.
        pressed = is_pressed(memory_pressure())
        if settings.model == 'simple' or (settings.recover or self._wakes) and not pressed:
            self._wakes = False
            try:
                self._take_over(self._load_wanted(settings), 'captions again')
                self._recovery.regained()
                return
            except Failure as error:
                if self._closing.is_set():
                    return
                self.reason = self.reason or f'{_title(settings.model)}: {error}'
                self._log('info', f'the {settings.model} model still cannot be loaded: {error}')
        if self.worker is None and settings.model != 'simple':
            with self._change:
                self._start_stand_in(settings.model)
        if pressed:
            self._recovery.put_off()
        else:
            self._recovery.lost()

    def _load_wanted(self, settings: CaptionerSettings, awaited: bool = False) -> WorkerProcess:
        """Return a worker of the model that settings ask for; meanwhile `loading` names it."""
        self.loading = settings.model
        try:
            return self._workers.start(settings.model, settings, awaited)
        finally:
            self.loading = ''

    def _take_over(self, worker: WorkerProcess, how: str) -> None:
        """Have a worker of the model asked for caption."""
        with self._change:
            old, self.worker = self.worker, worker
            self.asleep_since = None
            self.reason = ''
        if old is not None:
            self._workers.end(old)
        self._log('info', f'the {worker.name} model {how}')

    # Sleep

    def _sleep(self, worker: WorkerProcess) -> None:
        """End the worker until a caption is asked for."""
        with self._change:
            if self.worker is not worker:
                return
            self._workers.end(worker)  # who asks it for a caption just now will ask again
            self._recovery.forget()
            self.asleep_since = time.monotonic()
            self.worker = None
        pre_cleanup()  # here, too
        release_file_pages(apart_s=0.1)
        self._log('info', f'asleep: the {worker.name} model had nothing to do for '
                  f'{self.settings.sleep_after_s:.0f} s, its memory was given back')

    def _wake(self) -> None:
        """Load a model again: the simple one at once, and the one asked for meanwhile."""
        settings = self.settings
        self.asleep_since = None
        self._stir.set()  # the supervisor slept, too
        self.reason = ''
        if settings.model != 'simple' and 'simple' in settings.stand_ins(settings.model):
            self.loading = 'simple'
            self._start_stand_in('simple', awaited=True)
            self.loading = ''
            self._wakes = True
            self._recovery.hurry()
            self._stir.set()
            return
        try:
            self.worker = self._load_wanted(settings, awaited=True)
        except Failure as error:
            self.reason = f'{_title(settings.model)}: {error}'
            self._log('error', self.reason)
            self._recovery.lost()

    # Swap

    def _swap(self) -> None:
        """Load a model with other settings beside the one there is, else in its place."""
        with self._change:
            changes, self._changes = self._changes, {}
            wanted = replace(self.settings, **changes)
            if wanted == self.settings:
                self.swap_failure = ''
                return
        if self.asleep_since is None:
            try:
                try:
                    worker = self._load_wanted(wanted)
                except Failure as error:
                    if self.worker is None or not _lacks_memory(error):
                        raise
                    worker = self._load_in_place(wanted)
            except Failure as error:
                if not self._closing.is_set():
                    self.swap_failure = f'{_title(wanted.model)}: {error}'
                    self._log('warning', f'not changed: {self.swap_failure}')
                return
            self._take_over(worker, 'captions from now on')
            self._recovery.settled()
        self.swap_failure = ''
        # One object, of which others may be changed meanwhile.
        for name, value in changes.items():
            setattr(self.settings, name, value)

    def _load_in_place(self, wanted: CaptionerSettings) -> WorkerProcess:
        """Load with other settings where there is no room for two; return to the old if not."""
        with self._change:  # who asks for a caption waits
            self.loading = wanted.model
            old, self.worker = self.worker, None
            if old is not None:
                self._workers.end(old)
            try:
                return self._load_wanted(wanted)
            except Failure:
                self.loading = self.settings.model
                try:
                    self._load()
                except CaptionerError as error:
                    self._log('error', str(error))
                    self._recovery.lost()
                raise
            finally:
                self.loading = ''


def _lacks_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or getattr(error, 'kind', '') in ('MemoryError', 'oom')


def _title(model: str) -> str:
    """Return how messages call a model."""
    return f'{"full" if model == "mobilenet" else model} model'
