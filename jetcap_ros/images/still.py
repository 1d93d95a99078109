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

"""Whether a picture still shows what the last one did, to a caption's eye."""

import cv2
import numpy as np

# Grey levels; docs/performance.md says how it was chosen.
STILL_THRESHOLD = 1.5
GRID = 16  # cells, of both sides
# A camera's exposure wavers by so much; what changes more is another light.
FLICKER = 0.1


class Scene:
    """Remembers a picture, coarsely, and says by how much others differ from it."""

    def __init__(self) -> None:
        self._kept: np.ndarray | None = None
        self._seen: np.ndarray | None = None

    def look(self, image: np.ndarray) -> float:
        """
        Return the mean difference of a picture from the one kept, in grey levels.

        Of the means of the grid's cells, after a wavering exposure is evened out; infinite where
        none is kept.

        :param image: (H, W, 3) uint8, of any size.
        """
        # Averaging leaves nothing of a sensor's noise.
        self._seen = cv2.resize(image, (GRID, GRID), interpolation=cv2.INTER_AREA).astype(
            np.float32)
        if self._kept is None:
            return float('inf')
        gain = float(self._kept.mean()) / max(float(self._seen.mean()), 1.0)
        gain = min(max(gain, 1 - FLICKER), 1 + FLICKER)
        return float(np.abs(self._seen * gain - self._kept).mean())

    def keep(self) -> None:
        """Compare with the picture looked at last from now on."""
        self._kept = self._seen

    def forget(self) -> None:
        """Compare with none: the next picture is another one."""
        self._kept = None
