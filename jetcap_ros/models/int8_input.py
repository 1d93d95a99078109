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
Inputs of int8 products in two parts, so that captions are those of float32 inputs.

A coarse and a fine part of 7 bits each go through an int8 kernel as rows of one matrix: a word
costs the same, since reading the weights is what takes the time.
"""

import numpy as np

# Inputs are kept in the lower half of 8 bits, since older CPUs add two products of full range in
# 16 bits, which would overflow.
LEVELS = 63


def two_parts(x: np.ndarray) -> tuple[np.ndarray, np.float32]:
    """Return (2K, M) whole numbers of at most LEVELS, coarse rows before fine ones, and a step."""
    count = len(x)
    step = np.float32(max(float(x.max()), -float(x.min()), 1e-30) / LEVELS)
    parts = np.empty((2 * count, x.shape[1]), np.float32)
    coarse, fine = parts[:count], parts[count:]
    np.divide(x, step, out=fine)
    np.rint(fine, out=coarse)
    fine -= coarse
    fine *= 2 * LEVELS
    np.rint(fine, out=fine)
    return parts, step


def joined(products: np.ndarray, step: np.float32) -> np.ndarray:
    """Return (K, N) products of an input from the (2K, N) of its parts, which are written over."""
    count = len(products) // 2
    result = products[count:]
    result *= np.float32(0.5 / LEVELS)
    result += products[:count]
    result *= step
    return result
