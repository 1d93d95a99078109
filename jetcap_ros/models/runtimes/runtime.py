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

"""What a library is to the simple model: the parts of it that it can run."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ..architectures import Block
from ..decoder import MakeProduct
from ..encoder_graph import Read

# From an image (1, 3, size, size) to features (1, C, h, w), both float32.
Encoder = Callable[[np.ndarray], np.ndarray]
MakeEncoder = Callable[[list[Block], Read, int], Encoder]


class Runtime(NamedTuple):
    """A library, and its ways to do what the simple model consists of, as far as it has any."""

    name: str  # with its version
    encoder: MakeEncoder | None = None
    product: MakeProduct | None = None  # for each word, of few rows: arranged to be fast
    image_product: MakeProduct | None = None  # once an image: the weight stays as it is stored
