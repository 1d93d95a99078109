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

"""Work that is done beside other work while a model is loaded."""

from collections.abc import Callable
import threading
from typing import Generic, TypeVar

Result = TypeVar('Result')


class Beside(Generic[Result]):
    """
    Does a piece of work in a thread of its own.

    Somebody waits for the process to start, and importing concurrent.futures takes 6 ms.
    """

    def __init__(self, work: Callable[[], Result]) -> None:
        self._work = work
        self._results: list[Result] = []
        self._errors: list[BaseException] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._results.append(self._work())
        except BaseException as error:
            self._errors.append(error)

    def wait(self) -> None:
        """Wait for the end of the work."""
        self._thread.join()

    def result(self) -> Result:
        """Return the result when it is there, or raise what the work raised."""
        self.wait()
        for error in self._errors:
            raise error
        return self._results[0]
