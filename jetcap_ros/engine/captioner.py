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
Captions with the best model that fits: the engine of the node and of the command line.

The model lives in a worker process. Where the model asked for does not fit, dies or hangs, its
stand-in takes over, and it returns when it can. No ROS in here.
"""

from collections.abc import Callable
import sys
import threading
from types import TracebackType
from typing import Any

import numpy as np

from .caption import Caption
from .recovery import is_pressed, Recovery
from .settings import CaptionerSettings
from .stages import Stage
from .worker_process import RequestError, WorkerError, WorkerProcess
from .workers import Workers
from ..memory.memory_utils import available_memory_mb, memory_pressure

SUPERVISE_EVERY_S = 0.2
# Of a worker's errors, those that no waiting and no other model should make up for.
MISTAKES = ('CheckpointError', 'ServerOptionError')


class CaptionerError(RuntimeError):
    """No model can caption; the message says why."""


class Captioner:
    """
    Holds the worker that captions, and replaces it when it must.

    All methods may be called from any thread.

    :param on_stage: called after each stage of loading a model.
    :param log: called with a severity ('info', 'warning', 'error') and a text.
    """

    def __init__(
            self, settings: CaptionerSettings,
            on_stage: Callable[[Stage], None] = lambda stage: None,
            log: Callable[[str, str], None] = lambda severity, text: None) -> None:
        self.settings = settings
        self.reason = ''  # why the model in use is not the one asked for, or why there is none
        self.restarts = 0
        self._log_to = log
        self._workers = Workers(on_stage, self._log)
        self._worker: WorkerProcess | None = None
        self._recovery = Recovery()
        self._change = threading.RLock()  # held while one worker replaces another
        self._closing = threading.Event()
        self._supervisor: threading.Thread | None = None

    def __enter__(self) -> 'Captioner':
        return self

    def __exit__(
            self, kind: type[BaseException] | None, error: BaseException | None,
            traceback: TracebackType | None) -> None:
        self.close()

    @property
    def model_in_use(self) -> str:
        """Return the name of the model that captions, '' while there is none."""
        worker = self._worker
        return worker.name if worker else ''

    @property
    def worker_pid(self) -> int | None:
        """Return the process of the model in use."""
        worker = self._worker
        return worker.pid if worker else None

    @property
    def worker_rss_mb(self) -> float:
        """Return the resident memory of the model's process, as it last said; in MB."""
        worker = self._worker
        return worker.rss_mb if worker else 0.0

    @property
    def stages(self) -> list[Stage]:
        """Return what the stages of loading the model in use took."""
        worker = self._worker
        return worker.stages if worker else []

    @property
    def facts(self) -> dict[str, Any]:
        """Return what the model in use says of its checkpoint and libraries."""
        worker = self._worker
        return worker.facts if worker else {}

    @property
    def degraded(self) -> bool:
        """Say whether another model captions than the one asked for, or none."""
        return self.model_in_use != self.settings.model

    def configure(self) -> None:
        """
        Load the model, or its stand-in.

        :raises CaptionerError: with stage and numbers if neither can be.
        """
        model = self.settings.model
        try:
            self._worker = self._workers.start(model, self.settings)
        except (MemoryError, WorkerError) as error:
            # A checkpoint that is not what was asked for is a mistake to correct, not a shortage
            # to live with: another model must not speak in its place.
            if model == 'simple' or not self.settings.stand_ins(model) or self._closing.is_set() \
                    or getattr(error, 'kind', '') in MISTAKES:
                self.reason = str(error)
                raise CaptionerError(str(error)) from error
            self.reason = f'{_title(model)}: {error}'
            self._log('warning', self.reason)
            self._start_stand_in(model)
            if self._worker is None:
                raise CaptionerError(self.reason) from error
            self._recovery.lost()
        self._supervisor = threading.Thread(
            target=self._supervise, name='captioner_supervisor', daemon=True)
        self._supervisor.start()

    def caption(self, image: np.ndarray) -> Caption:
        """
        Caption an (H, W, 3) uint8 RGB image of any size.

        :raises CaptionerError: if no model is left to do it.
        :raises ValueError: if the image is not of that form.
        """
        for _ in range(4):
            if self._closing.is_set():
                raise CaptionerError('the captioner was closed')
            worker = self._worker
            if worker is None:
                with self._change:  # a replacement may be on its way
                    worker = self._worker
            if worker is None:
                raise CaptionerError(self.reason or 'no model is loaded')
            try:
                return worker.caption(image, self.settings)
            except WorkerError as error:
                self._replace(worker, str(error))
            except RequestError as error:
                raise CaptionerError(f'the {worker.name} model: {error}') from error
        raise CaptionerError(self.reason)

    def ask(self, image: np.ndarray) -> Caption:
        """
        Return the answer to the prompt, which only a model of language can give.

        :raises CaptionerError: if another captions now, or the server fails.
        """
        if self.settings.model != 'server':
            raise CaptionerError(f'the {self.settings.model} model takes no questions')
        answer = None if self.degraded else self.caption(image)
        if answer is None or answer.model != 'server':
            raise CaptionerError(
                f'the {self.model_in_use} model captions now and takes no questions: '
                f'{self.reason}')
        return answer

    def close(self) -> None:
        """End the workers, also those that are loading; nothing can be captioned after."""
        self._closing.set()
        self._workers.close()
        self._worker = None
        if self._supervisor and self._supervisor is not threading.current_thread():
            self._supervisor.join(timeout=5)

    def _log(self, severity: str, text: str) -> None:
        """Log; what the logger makes of it must not stop us."""
        try:
            self._log_to(severity, text)
        except Exception as error:
            print(f'{severity}: {text} ({type(error).__name__}: {error})', file=sys.stderr)

    def _replace(self, failed: WorkerProcess, why: str) -> None:
        """Put the stand-in in the place of a worker, unless somebody has done so already."""
        with self._change:
            if self._worker is not failed or self._closing.is_set():
                return
            self.restarts += 1
            self.reason = f'{_title(failed.name)}: {why}'
            self._worker = None
            self._workers.end(failed)
            self._log('warning' if self.settings.stand_ins(failed.name) else 'error', self.reason)
            self._start_stand_in(failed.name)
            self._recovery.lost()

    def _start_stand_in(self, lost: str) -> None:
        """Start the first model that can be, in the place of one; if none can, say why."""
        for model in self.settings.stand_ins(lost):
            try:
                self._worker = self._workers.start(model, self.settings)
                self._log('info', f'the {model} model captions')
                return
            except (MemoryError, WorkerError) as error:
                if self._closing.is_set():
                    return
                self.reason += f'; {_title(model)}: {error}'
                self._log('error', self.reason)

    def _supervise(self) -> None:
        """Notice what happens between captions: a worker that ends, memory that runs out."""
        while not self._closing.wait(SUPERVISE_EVERY_S):
            try:
                worker = self._worker
                if worker is not None:
                    why = str(worker.failure() or '') or self._shortage(worker)
                    if why:
                        self._replace(worker, why)
                if self._recovery.is_due():
                    self._recover()
            except Exception as error:  # the supervisor must outlive whatever it meets
                self._log('error', f'supervisor: {type(error).__name__}: {error}')

    def _shortage(self, worker: WorkerProcess) -> str:
        """Return why a worker should make room for the stand-in, '' if it need not."""
        if worker.name == 'simple' or not self.settings.stand_ins(worker.name):
            return ''
        return self._recovery.shortage(
            available_memory_mb(), self.settings.reserve_memory_mb, memory_pressure())

    def _recover(self) -> None:
        """Try to return to the model asked for; while it loads, the other one captions."""
        if not self.degraded:
            self._recovery.settled()
            return
        settings = self.settings
        # To read the libraries again while all wait for memory would make it worse.
        pressed = is_pressed(memory_pressure())
        if settings.model == 'simple' or settings.recover and not pressed:
            try:
                worker = self._workers.start(settings.model, settings)
            except (MemoryError, WorkerError) as error:
                if self._closing.is_set():
                    return
                self._log('info', f'the {settings.model} model still cannot be loaded: {error}')
            else:
                self._take_over(worker)
                return
        if self._worker is None and settings.model != 'simple':
            with self._change:
                self._start_stand_in(settings.model)
        if pressed:
            self._recovery.put_off()
        else:
            self._recovery.lost()

    def _take_over(self, worker: WorkerProcess) -> None:
        """Have the model asked for caption again."""
        with self._change:
            old, self._worker = self._worker, worker
            self.reason = ''
        if old:
            self._workers.end(old)
        self._log('info', f'the {worker.name} model captions again')
        self._recovery.regained()


def _title(model: str) -> str:
    """Return how messages call a model."""
    return f'{"full" if model == "mobilenet" else model} model'
