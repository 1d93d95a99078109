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

"""What the parts of the captioner node read of it: its model, its cameras, how it fares."""

import platform
from typing import Any

import cv2
import numpy as np

from .cameras import Camera
from .caption_loop import CaptionLoop
from .managed_node import ManagedNode
from .rates import Rates
from .. import __version__
from ..engine.captioner import Captioner


class CaptionerBase(ManagedNode):
    """Holds what diagnostics, services and the watch over the cameras look at."""

    def __init__(self, **kwargs: Any) -> None:
        self.captioner: Captioner | None = None
        self.cameras: list[Camera] = []
        self.failure = ''  # why the last configure failed
        self.loop: CaptionLoop | None = None  # of the last time the node was active
        self.rates = Rates()
        self.versions = {
            'version': __version__, 'OpenCV': cv2.__version__, 'NumPy': np.__version__,
            'Python': platform.python_version()}
        super().__init__('captioner', **kwargs)

    @property
    def is_asleep(self) -> bool:
        """Say whether the model's memory was given back for lack of work."""
        return self.captioner is not None and self.captioner.asleep_for is not None
