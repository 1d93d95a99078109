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

The model lives in a worker process, which `keeper.py` keeps. Where the model asked for does not
fit, dies or hangs, its stand-in takes over, and it returns when it can. No ROS in here.
"""

from collections.abc import Callable
import time
from types import TracebackType
from typing import Any

import numpy as np

from .caption import Caption
from .errors import CaptionerError
from .keeper import Keeper
from .settings import CaptionerSettings
from .stages import Stage
from .worker_process import RequestError, WorkerError

__all__ = ['Caption', 'Captioner', 'CaptionerError']


class Captioner:
    """
    Captions images with a worker that is replaced when it must be.

    All methods may be called from any thread.

    :param on_stage: called after each stage of loading a model.
    :param log: called with a severity ('info', 'warning', 'error') and a text.
    """

    def __init__(
            self, settings: CaptionerSettings,
            on_stage: Callable[[Stage], None] | None = None,
            log: Callable[[str, str], None] | None = None) -> None:
        self.settings = settings
        self._keeper = Keeper(
            settings, on_stage or (lambda stage: None), log or (lambda severity, text: None))

    def __enter__(self) -> 'Captioner':
        return self

    def __exit__(
            self, kind: type[BaseException] | None, error: BaseException | None,
            traceback: TracebackType | None) -> None:
        self.close()

    @property
    def model_in_use(self) -> str:
        """Return the name of the model that captions, '' while there is none."""
        worker = self._keeper.worker
        return worker.name if worker else ''

    @property
    def worker_pid(self) -> int | None:
        """Return the process of the model in use."""
        worker = self._keeper.worker
        return worker.pid if worker else None

    @property
    def worker_rss_mb(self) -> float:
        """Return the resident memory of the model's process, as it last said; in MB."""
        worker = self._keeper.worker
        return worker.rss_mb if worker else 0.0

    @property
    def stages(self) -> list[Stage]:
        """Return what the stages of loading the model in use took."""
        worker = self._keeper.worker
        return worker.stages if worker else []

    @property
    def facts(self) -> dict[str, Any]:
        """Return what the model in use says of its checkpoint and libraries."""
        worker = self._keeper.worker
        return worker.facts if worker else {}

    @property
    def degraded(self) -> bool:
        """Say whether another model captions than the one asked for, or none."""
        return self.model_in_use != self.settings.model

    @property
    def reason(self) -> str:
        """Return why the model in use is not the one asked for, or why there is none."""
        return self._keeper.reason

    @property
    def swap_failure(self) -> str:
        """Return why the model asked for last was not taken on, '' if it was."""
        return self._keeper.swap_failure

    @property
    def loading(self) -> str:
        """Return the model that is being loaded beside the one in use, '' if none is."""
        return self._keeper.loading

    @property
    def restarts(self) -> int:
        """Return how often a worker was lost."""
        return self._keeper.restarts

    @property
    def asleep_for(self) -> float | None:
        """Return the seconds since the model's memory was given back for lack of work."""
        since = self._keeper.asleep_since
        return None if since is None else time.monotonic() - since

    def configure(self) -> None:
        """
        Load the model, or its stand-in.

        :raises CaptionerError: with stage and numbers if neither can be.
        """
        self._keeper.start()

    def swap(self, changes: dict[str, Any]) -> None:
        """
        Change settings that need another worker; until it is ready, the one there is captions.

        If it cannot be loaded that one stays, and `swap_failure` says why.
        """
        self._keeper.swap(changes)

    def caption(self, image: np.ndarray) -> Caption:
        """
        Caption an (H, W, 3) uint8 RGB image of any size.

        :raises CaptionerError: if no model is left to do it.
        :raises ValueError: if the image is not of that form.
        """
        with self._keeper.work():
            for _ in range(4):
                worker = self._keeper.ready()
                try:
                    return worker.caption(image, self.settings)
                except WorkerError as error:
                    self._keeper.replace(worker, str(error))
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
        asleep = self.asleep_for is not None
        answer = None if self.degraded and not asleep else self.caption(image)
        if answer is None or answer.model != 'server':
            raise CaptionerError(
                f'the {self.model_in_use} model captions now and takes no questions: '
                f'{self.reason or "the server is being started"}')
        return answer

    def close(self) -> None:
        """End the workers, also those that are loading; nothing can be captioned after."""
        self._keeper.close()
