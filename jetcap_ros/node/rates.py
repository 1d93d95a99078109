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

"""How many captions come, and how long after their frames."""

from collections.abc import Sequence
import time


class Rates:
    """Rate and latency of the captions of the last seconds."""

    WINDOW_S = 10.0

    def __init__(self) -> None:
        self._recent: list[tuple[float, float, float]] = []

    def add(self, latency_s: float, model_s: float) -> None:
        """Note a caption: how long after its frame it came, and the model's part of that."""
        now = time.monotonic()
        self._recent = [entry for entry in self._recent if now - entry[0] < self.WINDOW_S]
        self._recent.append((now, latency_s, model_s))

    def values(self) -> dict[str, str]:
        """Return what diagnostics show."""
        now = time.monotonic()
        recent = [entry[1:] for entry in list(self._recent) if now - entry[0] < self.WINDOW_S]
        values = {'captions per second': f'{len(recent) / self.WINDOW_S:.1f}'}
        if recent:
            latencies, of_model = zip(*recent)
            values['latency, median (ms)'] = f'{_median(latencies) * 1e3:.1f}'
            values['latency, longest (ms)'] = f'{max(latencies) * 1e3:.1f}'
            values['of it the model, median (ms)'] = f'{_median(of_model) * 1e3:.1f}'
        return values


def _median(values: Sequence[float]) -> float:
    # Not NumPy's: it would have its code in memory, and this is asked while the node sleeps.
    return sorted(values)[len(values) // 2]
