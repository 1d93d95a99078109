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
Captioning many bags: a pool of processes, each with one model.

The same jobs run on this machine's cores or, through any `concurrent.futures.Executor` that
spans machines, on a cluster: a job is picklable, needs nothing but the file system that holds the
bags and the output, and goes on from what an earlier attempt has left.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import (
    CancelledError, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor)
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
import functools
import multiprocessing
import multiprocessing.connection
from multiprocessing.synchronize import Event
import os
from pathlib import Path
import queue
import signal
import threading
from typing import Any
from urllib.parse import quote

from .errors import ReplayError
from .runner import Observer, replay_bag, ReplayResult, ReplaySettings
from ..engine.captioner import Captioner, CaptionerError
from ..engine.settings import CaptionerSettings
from ..images.page import render_page
from ..memory.memory_utils import available_memory_mb

# Of a process that reads bags; and of the simple model's, full model's is in its settings.
READER_MB, SIMPLE_MODEL_MB = 150, 150
CONNECT_TIMEOUT_S = 10.0

_TEMPLATE = Path(__file__).with_name('index.html')


@dataclass(frozen=True)
class Job:
    """One bag to be captioned."""

    name: str
    bag: Path
    out: Path
    settings: ReplaySettings
    num_threads: int = 0


Results = Iterator[tuple[Job, ReplayResult]]


class _PoolObserver(Observer):
    """Ends a job when the pool is told to stop."""

    def stopped(self) -> bool:
        """Return whether the pool has been told to stop."""
        return _stop is not None and _stop.is_set()


_stop: Event | None = None  # the event shared by a pool's processes, None outside a pool
_lock = threading.Lock()
_captioner: tuple[ReplaySettings, Captioner] | None = None  # of this process


def make_captioner(
        settings: ReplaySettings, num_threads: int,
        log: Callable[[str, str], None] = lambda severity, text: None) -> Captioner:
    """
    Return a configured Captioner.

    :raises CaptionerError: if its model cannot be loaded.
    """
    captioner = Captioner(
        CaptionerSettings(**settings.captioner, num_threads=num_threads), log=log)
    try:
        captioner.configure()
    except BaseException:
        captioner.close()
        raise
    return captioner


def run_job(job: Job) -> ReplayResult:
    """Caption one bag with this process's model."""
    global _captioner

    def get_captioner() -> Captioner:
        global _captioner
        with _lock:
            if _captioner is None or _captioner[0] != job.settings:
                if _captioner is not None:
                    _captioner[1].close()
                _captioner = (job.settings, make_captioner(job.settings, job.num_threads))
            return _captioner[1]

    try:
        return replay_bag(job.bag, job.out, job.settings, get_captioner, _PoolObserver())
    except CaptionerError:
        with _lock:  # the next bag shall have another chance
            if _captioner is not None:
                _captioner[1].close()
                _captioner = None
        raise


def process_count(settings: ReplaySettings, wanted: int) -> int:
    """Return how many of the wanted processes the cores and the available memory allow."""
    defaults = CaptionerSettings()
    simple = settings.captioner.get('model') == 'simple'
    need_mb = READER_MB + (SIMPLE_MODEL_MB if simple else defaults.min_available_memory_mb)
    fitting = int((available_memory_mb() - defaults.reserve_memory_mb) / need_mb)
    return max(1, min(wanted, cores(), fitting))


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


class Pool(Executor):
    """
    Runs jobs on this machine's cores, each process for itself.

    A ProcessPoolExecutor fails as a whole when one of its processes dies, so there is one for
    each process.
    """

    def __init__(self, processes: int) -> None:
        self.description = f'{processes} at once'
        self._context = multiprocessing.get_context('spawn')  # a fork would copy threads' locks
        self._stop = self._context.Event()
        self._threads = ThreadPoolExecutor(processes)
        self._idle: queue.SimpleQueue[ProcessPoolExecutor] = queue.SimpleQueue()
        for _ in range(processes):
            self._idle.put(self._new_process())

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run a function in the next process that is free."""
        return self._threads.submit(self._run, functools.partial(function, *args, **kwargs))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the processes, those that work after the frame at hand."""
        self._stop.set()
        self._threads.shutdown(cancel_futures=cancel_futures)
        while not self._idle.empty():
            self._idle.get().shutdown()

    def run(self, jobs: list[Job], stopping: threading.Event) -> Results:
        """Yield each job with its result as it ends; see `run_jobs`."""
        def stop_when_stopping() -> None:
            stopping.wait()
            self._stop.set()

        threading.Thread(target=stop_when_stopping, daemon=True).start()
        return run_jobs(jobs, self, stopping)

    def _new_process(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            1, self._context, initializer=_start_pool_process, initargs=(self._stop,))

    def _run(self, function: Callable[[], Any]) -> Any:
        process = self._idle.get()
        try:
            return process.submit(function).result()
        except BrokenProcessPool as error:
            process.shutdown()
            process = self._new_process()
            raise ReplayError('the process that read it was killed') from error
        finally:
            self._idle.put(process)


class Cluster:
    """Runs jobs on a Dask cluster that sees the same files; a context manager."""

    def __init__(self, address: str) -> None:
        try:
            from distributed import Client
        except ImportError as error:
            raise ReplayError(
                "a cluster needs Dask: pip install 'jetcap_ros[dask]'") from error
        try:
            self._client: Any = Client(address, timeout=CONNECT_TIMEOUT_S)
        except OSError as error:
            raise ReplayError(f'there is no Dask scheduler at {address}: {error}') from error
        self.description = f'{len(self._client.scheduler_info()["workers"])} workers'

    def __enter__(self) -> 'Cluster':
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._client.close()

    def run(self, jobs: list[Job], stopping: threading.Event) -> Results:
        """Yield each job with its result as it ends; see `run_jobs`."""
        # A job whose machine went down is tried on another, and goes on from what was written.
        return run_jobs(jobs, self._client.get_executor(pure=False, retries=2), stopping)


def run_jobs(jobs: list[Job], executor: Executor, stopping: threading.Event) -> Results:
    """
    Yield each job with its result as it ends; what went wrong is among the result's problems.

    :param stopping: once set, jobs that have not begun are left out.
    """
    futures = {executor.submit(run_job, job): job for job in jobs}
    ended: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()
    for future in futures:
        future.add_done_callback(ended.put)

    def cancel_when_stopping() -> None:
        stopping.wait()
        for future in futures:
            future.cancel()

    threading.Thread(target=cancel_when_stopping, daemon=True).start()
    for _ in jobs:
        future = ended.get()
        job = futures[future]
        try:
            yield job, future.result()
        except CancelledError:
            continue
        except Exception as error:  # whatever ended one bag's process must not end the others
            text = str(error) or type(error).__name__
            yield job, ReplayResult(job.bag.name, None, False, problems=[text])


def write_index(out: Path, results: dict[str, ReplayResult]) -> None:
    """Write index.html, a table of the bags with links to their reports."""
    page = render_page(
        'Captions of bags', _TEMPLATE.read_text(encoding='utf-8'), results=results,
        links={name: quote(os.fsencode(f'{name}/report.html')) for name in results},
        captions=sum(result.captions for result in results.values()))
    # A bag's name may have bytes that are no text.
    (out / 'index.html').write_text(page, encoding='utf-8', errors='backslashreplace')


def _start_pool_process(stop: Event) -> None:
    global _stop
    _stop = stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which sets `stop`

    def end_with_parent() -> None:
        parent = multiprocessing.parent_process()
        assert parent is not None  # a pool's process is somebody's child
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
