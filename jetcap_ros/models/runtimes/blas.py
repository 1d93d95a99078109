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

"""The simple model's products in NumPy: those of all cells of an image are its BLAS's work."""

import numpy as np

from .runtime import Runtime
from ..decoder import Product, table_product
from ..weight import Weight

ROWS = 128  # of a weight that are in float32 at a time: they stay in the processor's cache


def numpy_runtime() -> Runtime:
    """Return NumPy."""
    return Runtime(
        f'NumPy {np.__version__}', product=table_product, image_product=numpy_product)


def numpy_product(weight: Weight, bias: np.ndarray) -> Product:
    """Return a product that keeps the weight as it is stored."""
    count, inner = weight.values.shape
    block = np.empty((min(ROWS, count), inner), np.float32)

    def product(x: np.ndarray) -> np.ndarray:
        result = np.empty((len(x), count), np.float32)
        for start in range(0, count, ROWS):
            part = block[:count - start]
            np.copyto(part, weight.values[start:start + ROWS])
            np.matmul(x, part.T, out=result[:, start:start + ROWS])
        if weight.scale is not None:
            result *= weight.scale
        result += bias
        return result
    return product


def row_product(weight: Weight, bias: np.ndarray) -> Product:
    """Return a product for one row alone, as fast without a BLAS as with one."""
    return lambda x: (weight.times(x[0]) + bias)[None]
