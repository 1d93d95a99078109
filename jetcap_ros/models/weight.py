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
int8 weights with one scale a row (output channel), symmetric.

The weights of a checkpoint are quantized with NumPy, one tensor at a time; torch is needed only to
run them on its int8 kernels.
"""

from dataclasses import dataclass

import numpy as np


@dataclass
class Weight:
    """A parameter: float32 values, or int8 values with a scale for each row."""

    values: np.ndarray
    scale: np.ndarray | None = None

    def dequantized(self) -> np.ndarray:
        """Return the values as float32."""
        if self.scale is None:
            return self.values
        values = self.values.astype(np.float32)
        values *= self.scale.reshape(-1, *[1] * (values.ndim - 1))
        return values

    def times(self, x: np.ndarray) -> np.ndarray:
        """Return (N,) for (N, M) values and (M,) float32, without a float32 copy of the values."""
        product: np.ndarray = np.einsum('ij,j->i', self.values, x)
        if self.scale is not None:
            product *= self.scale
        return product

    def rows(self, indices: slice | np.ndarray) -> 'Weight':
        """Return these rows of it."""
        scale = None if self.scale is None else self.scale[indices]
        return Weight(self.values[indices], scale)

    def columns(self, start: int, end: int | None) -> 'Weight':
        """Return these columns of it."""
        return Weight(self.values[:, start:end], self.scale)


def concatenate(weights: list[Weight]) -> Weight:
    """Return the rows of several weights, all of one kind, as one."""
    scales = [weight.scale for weight in weights if weight.scale is not None]
    return Weight(
        np.concatenate([weight.values for weight in weights]),
        np.concatenate(scales) if scales else None)


def quantize_rows(values: np.ndarray) -> Weight:
    """Return the weight as int8 -127..127 with the scale of each row (first axis)."""
    rows = values.reshape(len(values), -1)
    scale = np.abs(rows).max(axis=1).astype(np.float32) / 127
    scale[scale == 0] = 1
    quantized = np.rint(rows / scale[:, None]).clip(-127, 127).astype(np.int8)
    return Weight(quantized.reshape(values.shape), scale)
