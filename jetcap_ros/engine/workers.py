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

"""The processes of the models: started for a model, kept account of, ended together."""

from collections.abc import Callable
import threading
from typing import Any

from .settings import CaptionerSettings, SHIPPED_CHECKPOINT
from .stages import Stage, WORKER_NEED_MB
from .worker_process import WorkerError, WorkerProcess
from ..memory.memory_utils import check_available_memory
from ..models.server.address import is_local


class Workers:
    """
    Starts a process for a model, and can end them all, also those that are loading.

    :param on_stage: called with each stage that a worker has finished.
    :param log: called with a severity ('info', 'warning', 'error') and a text.
    """

    def __init__(
            self, on_stage: Callable[[Stage], None], log: Callable[[str, str], None]) -> None:
        self._on_stage = on_stage
        self._log = log
        self._lock = threading.Lock()
        self._processes: list[WorkerProcess] = []
        self._closed = False
        self._avoid_onnxruntime = False
        self._announced: set[str] = set()
        # By what they depend on: what a wake, above all, need not time again.
        self._timings: dict[tuple[Any, ...], Any] = {}

    def start(
            self, model: str, settings: CaptionerSettings,
            awaited: bool = False) -> WorkerProcess:
        """
        Return a worker that has loaded a model.

        ONNX Runtime is optional: if a process dies of it, the next one does without.

        :param awaited: a picture waits for its caption.
        :raises MemoryError: if there is too little memory to begin.
        :raises WorkerError: if it could not be loaded, or all were closed meanwhile.
        """
        if model == 'mobilenet':
            check_available_memory(settings.min_available_memory_mb, 'the full model')
        check_available_memory(WORKER_NEED_MB + settings.reserve_memory_mb, 'a worker process')
        arguments = {**self._arguments(model, settings), 'awaited': awaited}
        if model == 'server':
            self._say_where(settings.server_url)
        with self._lock:
            if self._closed:
                raise WorkerError('closed', 'the captioner was closed')
            try:
                worker = WorkerProcess(arguments, self._on_stage, self._log)
            except OSError as error:
                raise WorkerError('crash', f'cannot start a worker process: {error}') from error
            self._processes.append(worker)
        try:
            worker.load(settings.configure_timeout_s)
        except BaseException as error:
            self.end(worker)
            if isinstance(error, WorkerError) and self._blames_onnxruntime(worker, error):
                self._avoid_onnxruntime = True
                self._log('warning', f'{error}; it is tried without ONNX Runtime')
                return self.start(model, settings, awaited)
            raise
        self._timings[_timed(arguments)] = worker.timings
        return worker

    def _blames_onnxruntime(self, worker: WorkerProcess, error: WorkerError) -> bool:
        begun = [*(stage.name for stage in worker.stages), worker.stage]
        return error.kind in ('crash', 'hang') and 'onnxruntime' in begun \
            and not self._avoid_onnxruntime and not self._closed

    def end(self, worker: WorkerProcess) -> None:
        """End one; its memory is the system's again."""
        worker.kill()
        with self._lock:
            if worker in self._processes:
                self._processes.remove(worker)

    def close(self) -> None:
        """End all, and start none any more."""
        with self._lock:
            self._closed = True
            processes, self._processes = self._processes, []
        for process in processes:
            process.kill()

    def _say_where(self, server_url: str) -> None:
        """Say once if pictures will leave the robot."""
        if server_url and not is_local(server_url) and server_url not in self._announced:
            self._announced.add(server_url)
            self._log('warning', f'pictures leave this computer: they are sent to {server_url}')

    def _arguments(self, model: str, settings: CaptionerSettings) -> dict[str, Any]:
        """Return the arguments of LazyModel for a model."""
        checkpoint = settings.checkpoint_for(model)
        wanted = settings.checkpoint_for(settings.model)
        if checkpoint == SHIPPED_CHECKPOINT != wanted and settings.model != 'server':
            self._log(
                'warning', f'{wanted} has no packed file beside it: the {model} model takes the '
                f'shipped checkpoint. `jetcap pack {wanted}` makes one')
        arguments = {
            'name': model, 'checkpoint': checkpoint,
            'checkpoint_sha256': settings.sha256_for(model),
            'quantize': settings.quantize, 'device': settings.device,
            'runtime': 'opencv' if self._avoid_onnxruntime else settings.runtime,
            'num_threads': settings.num_threads,
            'reserve_memory_mb': settings.reserve_memory_mb,
            'server': settings.server_options if model == 'server' else None}
        return {**arguments, 'timings': self._timings.get(_timed(arguments))}


def _timed(arguments: dict[str, Any]) -> tuple[Any, ...]:
    """Return what the timings of a model's runtimes depend on."""
    return tuple(arguments[key] for key in ('name', 'checkpoint', 'runtime', 'num_threads'))
