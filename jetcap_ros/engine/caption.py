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

"""What a model says of a picture."""

from dataclasses import dataclass

import numpy as np


@dataclass
class Caption:
    """A caption of one image."""

    text: str
    score: float | None  # 0..1, None where the model gives none
    score_kind: str | None  # 'calibrated', or 'token_probability': the mean of its tokens
    model: str  # that made it
    seconds: float  # in the worker
    attention: np.ndarray | None  # (cells, cells), sums to 1: where the words looked; if known

    @property
    def words(self) -> list[str]:
        """Return the words of the caption."""
        return self.text.split()

    @property
    def peak(self) -> tuple[float, float] | None:
        """Return where the words looked most, (x, y) as parts of the width and the height."""
        if self.attention is None:
            return None
        rows, columns = self.attention.shape
        row, column = divmod(int(self.attention.argmax()), columns)
        return (column + 0.5) / columns, (row + 0.5) / rows
