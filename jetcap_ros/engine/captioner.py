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

The model lives in a worker process. Where the full model does not fit, dies or hangs, the simple
one takes over, and the full one returns when it can. No ROS in here.
"""

from collections.abc import Callable
from dataclasses import dataclass
import os
import sys
import threading
import time
from typing import Any

import numpy as np

from .settings import CaptionerSettings, SHIPPED_CHECKPOINT
from .worker_process import RequestError, WorkerError, WorkerProcess
from ..images.preprocessing import squash
from ..memory.memory_utils import available_memory_mb, check_available_memory, memory_pressure

# A Python with NumPy, before it can check for itself.
WORKER_NEED_MB = 40
SUPERVISE_EVERY_S = 0.2
# Percent of the time in which everything waited for memory, for how long: then give it back.
PRESSURE_LIMIT, PRESSURE_SECONDS = 20.0, 2.0
FIRST_RETRY_S, LAST_RETRY_S = 5.0, 300.0


class CaptionerError(RuntimeError):
    """No model can caption; the message says why."""


@dataclass
class Caption:
    """A caption of one image."""

    text: str
    score: float  # 0..1
    model: str  # that made it
    seconds: float  # in the worker
    attention: np.ndarray  # (7, 7), sums to 1: where the words looked, on average

    @property
    def words(self) -> list[str]:
        """Return the words of the caption."""
        return self.text.split()

    @property
    def peak(self) -> tuple[float, float]:
        """Return where the words looked most, (x, y) as parts of the width and the height."""
        rows, columns = self.attention.shape
        row, column = divmod(int(self.attention.argmax()), columns)
        return (column + 0.5) / columns, (row + 0.5) / rows


class Captioner:
    """
    Holds the worker that captions, and replaces it when it must.

    All methods may be called from any thread.

    :param on_stage: called with a dict (name, seconds, rss_mb, available_mb) after each stage.
    :param log: called with a severity ('info', 'warning', 'error') and a text.
    """

    def __init__(
            self, settings: CaptionerSettings, on_stage: Callable | None = None,
            log: Callable[[str, str], None] | None = None) -> None:
        self.settings = settings
        self.reason = ''  # why the model in use is not the one asked for, or why there is none
        self.stages: list[dict[str, Any]] = []
        self.restarts = 0
        self.facts: dict[str, Any] = {}  # what the worker said of its checkpoint and libraries
        self._on_stage = on_stage or (lambda stage: None)
        self._log_to = log or (lambda severity, text: None)
        self._worker: WorkerProcess | None = None
        self._change = threading.RLock()  # held while one worker replaces another
        self._processes_lock = threading.Lock()
        self._processes: list[WorkerProcess] = []
        self._closing = threading.Event()
        self._supervisor: threading.Thread | None = None
        self._retry_s = FIRST_RETRY_S
        self._retry_at = float('inf')
        self._pressed_since: float | None = None

    def __enter__(self) -> 'Captioner':
        return self

    def __exit__(self, *exc_info) -> None:
        self.close()

    @property
    def model_in_use(self) -> str:
        """Return 'mobilenet', 'simple', or '' while there is none."""
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
    def degraded(self) -> bool:
        """Say whether another model captions than the one asked for, or none."""
        return self.model_in_use != self.settings.model

    def configure(self) -> None:
        """
        Load the model, or the fallback.

        :raises CaptionerError: with stage and numbers if neither can be.
        """
        model = self.settings.model
        try:
            worker = self._start(model)
        except (MemoryError, WorkerError) as error:
            # A checkpoint that is not what was asked for is a mistake to correct, not a shortage
            # to live with: another model must not speak in its place.
            if model == 'simple' or self.settings.fallback == 'none' or self._closing.is_set() \
                    or getattr(error, 'kind', '') == 'CheckpointError':
                self.reason = str(error)
                raise CaptionerError(str(error)) from error
            self.reason = f'full model: {error}'
            self._log('warning', f'{self.reason}; loading the simple model')
            try:
                worker = self._start('simple')
            except (MemoryError, WorkerError) as second:
                self.reason += f'; simple model: {second}'
                raise CaptionerError(self.reason) from second
            self._schedule_retry()
        self._worker = worker
        self._supervisor = threading.Thread(
            target=self._supervise, name='captioner_supervisor', daemon=True)
        self._supervisor.start()

    def caption(self, image: np.ndarray) -> Caption:
        """
        Caption an (H, W, 3) uint8 RGB image of any size.

        :raises CaptionerError: if no model is left to do it.
        :raises ValueError: if the image is not of that form.
        """
        frame = squash(image)
        for _ in range(3):
            worker = self._worker
            if worker is None:
                with self._change:  # a replacement may be on its way
                    worker = self._worker
            if worker is None:
                raise CaptionerError(self.reason or 'no model is loaded')
            try:
                answer = worker.caption(
                    frame, self.settings.beam_size, self.settings.max_length,
                    self.settings.inference_timeout_s)
                return Caption(
                    answer['text'], answer['score'], worker.name, answer['seconds'],
                    answer['attention'])
            except WorkerError as error:
                self._replace(worker, str(error))
            except RequestError as error:
                raise CaptionerError(f'the {worker.name} model: {error}') from error
        raise CaptionerError(self.reason)

    def close(self) -> None:
        """End the workers, also those that are loading; nothing can be captioned after."""
        self._closing.set()
        with self._processes_lock:
            processes, self._processes = self._processes, []
        for process in processes:
            process.kill()
        self._worker = None
        if self._supervisor and self._supervisor is not threading.current_thread():
            self._supervisor.join(timeout=5)

    def _log(self, severity: str, text: str) -> None:
        """Log; what the logger makes of it must not stop us."""
        try:
            self._log_to(severity, text)
        except Exception as error:
            print(f'{severity}: {text} ({type(error).__name__}: {error})', file=sys.stderr)

    def _checkpoint_for(self, model: str) -> str:
        """Return the file a model loads: the simple one reads packed files only."""
        path = os.path.abspath(
            os.path.expanduser(self.settings.checkpoint or SHIPPED_CHECKPOINT))
        if model == self.settings.model or not path.endswith(('.pth', '.pt')):
            return path
        beside = os.path.splitext(path)[0] + '.safetensors'
        if os.path.isfile(beside):
            return beside
        self._log(
            'warning', f'{beside} does not exist: the simple model takes the shipped checkpoint. '
            f'`jetcap pack {path}` makes it')
        return SHIPPED_CHECKPOINT

    def _start(self, model: str) -> WorkerProcess:
        """Start a worker and have it load a model; MemoryError or WorkerError if it cannot."""
        settings = self.settings
        if model == 'mobilenet':
            check_available_memory(settings.min_available_memory_mb, 'the full model')
        checkpoint = self._checkpoint_for(model)
        pinned = checkpoint == self._checkpoint_for(settings.model)
        check_available_memory(WORKER_NEED_MB + settings.reserve_memory_mb, 'a worker process')
        stages: list[dict[str, Any]] = []

        def on_event(message: dict[str, Any]) -> None:
            if message['kind'] == 'stage':
                stage = {
                    'name': str(message.get('name')), **{
                        key: float(message.get(key) or 0)
                        for key in ('seconds', 'rss_mb', 'available_mb')}}
                stages.append(stage)
                self._on_stage(stage)
            elif message['kind'] == 'warning':
                self._log('warning', str(message.get('text')))

        with self._processes_lock:
            if self._closing.is_set():
                raise WorkerError('closed', 'the captioner was closed')
            try:
                worker = WorkerProcess({
                    'name': model, 'checkpoint': checkpoint,
                    'checkpoint_sha256': settings.checkpoint_sha256 if pinned else '',
                    'quantize': settings.quantize, 'device': settings.device,
                    'num_threads': settings.num_threads,
                    'reserve_memory_mb': settings.reserve_memory_mb}, on_event)
            except OSError as error:
                raise WorkerError('crash', f'cannot start a worker process: {error}') from error
            self._processes.append(worker)
        try:
            ready = worker.load(settings.configure_timeout_s)
            worker.rss_mb = float(ready.get('rss_mb') or 0)
        except BaseException:
            self._end(worker)
            raise
        self.stages = stages
        facts = ready.get('facts')
        self.facts = facts if isinstance(facts, dict) else {}
        return worker

    def _end(self, worker: WorkerProcess) -> None:
        worker.kill()
        with self._processes_lock:
            if worker in self._processes:
                self._processes.remove(worker)

    def _replace(self, failed: WorkerProcess, why: str) -> None:
        """Put the fallback in the place of a worker, unless somebody has done so already."""
        with self._change:
            if self._worker is not failed or self._closing.is_set():
                return
            self.restarts += 1
            self.reason = f'{"full" if failed.name == "mobilenet" else "simple"} model: {why}'
            self._worker = None
            self._end(failed)
            self._log('warning' if self.settings.fallback == 'simple' else 'error', self.reason)
            if failed.name == 'simple' or self.settings.fallback == 'simple':
                self._start_simple()
            self._schedule_retry()

    def _start_simple(self) -> None:
        try:
            self._worker = self._start('simple')
            self._log('info', 'the simple model captions')
        except (MemoryError, WorkerError) as error:
            if not self._closing.is_set():
                self.reason += f'; simple model: {error}'
                self._log('error', self.reason)

    def _schedule_retry(self) -> None:
        self._retry_at = time.monotonic() + self._retry_s
        self._retry_s = min(2 * self._retry_s, LAST_RETRY_S)

    def _supervise(self) -> None:
        """Notice what happens between captions: a worker that ends, memory that runs out."""
        while not self._closing.wait(SUPERVISE_EVERY_S):
            try:
                worker = self._worker
                if worker is not None:
                    failure = worker.failure()
                    if failure:
                        self._replace(worker, str(failure))
                    elif worker.name == 'mobilenet' and self.settings.fallback == 'simple':
                        shortage = self._shortage()
                        if shortage:
                            self._replace(worker, shortage)
                if time.monotonic() >= self._retry_at:
                    self._retry()
            except Exception as error:  # the supervisor must outlive whatever it meets
                self._log('error', f'supervisor: {type(error).__name__}: {error}')

    def _shortage(self) -> str:
        """Return why the memory of the full model should be given back, '' if it need not."""
        available = available_memory_mb()
        if available < self.settings.reserve_memory_mb:
            return (
                f'{available:.0f} MB available, less than reserve_memory_mb '
                f'({self.settings.reserve_memory_mb:.0f} MB): its memory was given back')
        now = time.monotonic()
        if not _under_pressure():
            self._pressed_since = None
        elif self._pressed_since is None:
            self._pressed_since = now
        elif now - self._pressed_since >= PRESSURE_SECONDS:
            self._pressed_since = None
            return (
                f'all processes waited for memory over {PRESSURE_LIMIT:.0f}% of the time: its '
                'memory was given back')
        return ''

    def _retry(self) -> None:
        """Try to return to the model asked for; while it loads, the other one captions."""
        self._retry_at = float('inf')
        settings = self.settings
        if not self.degraded:
            self._retry_s = FIRST_RETRY_S
            return
        # To read the libraries again while all wait for memory would make it worse.
        pressed = _under_pressure()
        if settings.model == 'simple' or settings.recover and not pressed:
            try:
                worker = self._start(settings.model)
            except (MemoryError, WorkerError) as error:
                if self._closing.is_set():
                    return
                self._log('info', f'the {settings.model} model still cannot be loaded: {error}')
            else:
                with self._change:
                    old, self._worker = self._worker, worker
                    self.reason = ''
                if old:
                    self._end(old)
                self._log('info', f'the {settings.model} model captions again')
                # Only a model that stays well earns the short delay again.
                self._retry_at = time.monotonic() + self._retry_s
                return
        if self._worker is None and settings.fallback == 'simple':
            with self._change:
                self._start_simple()
        if pressed:
            self._retry_at = time.monotonic() + FIRST_RETRY_S
        else:
            self._schedule_retry()


def _under_pressure() -> bool:
    """Say whether all processes wait for memory too much of the time, where the kernel knows."""
    return (memory_pressure() or 0) >= PRESSURE_LIMIT
