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

"""Products for the decoder on torch: int8 kernels where this torch has them."""

import functools
import warnings

import numpy as np
import torch

from .decoder import Product
from .int8_input import joined, LEVELS, two_parts
from .weight import Weight


def int8_product(weight: Weight, bias: np.ndarray) -> Product:
    """
    Return a product with int8 weights, handed to torch as they are stored.

    Torch quantizes an input to 0..255 by its range.
    """
    assert weight.scale is not None
    values = np.ascontiguousarray(weight.values)
    inner = values.shape[1]
    if inner == 1:  # the range of the input takes two, see below
        values = np.pad(values, ((0, 0), (0, 1)))
    columns = values.shape[1]
    with warnings.catch_warnings():
        # Newer versions announce that these tensors will go one day; `has_int8_engine` finds
        # out when they have.
        warnings.simplefilter('ignore')
        quantized = torch._make_per_channel_quantized_tensor(
            torch.from_numpy(values),
            torch.from_numpy(weight.scale.astype(np.float64)),
            torch.zeros(len(weight.scale), dtype=torch.long), 0)
    packed = torch.ops.quantized.linear_prepack(quantized, None)
    linear = torch.ops.quantized.linear_dynamic.default

    def product(x: np.ndarray) -> np.ndarray:
        rows = np.zeros((2 * len(x) + 1, columns), np.float32)
        rows[:-1, :inner], step = two_parts(x)
        # The last row gives all rows the range in which torch's own step is 1.
        rows[-1, :2] = -LEVELS, 255 - LEVELS
        result = joined(linear(torch.from_numpy(rows), packed).numpy()[:-1], step)
        result += bias
        return result
    return product


@functools.lru_cache(maxsize=None)
def has_int8_engine() -> bool:
    """Say whether this torch runs int8 layers: some Jetson wheels are built without."""
    try:
        engines = [e for e in torch.backends.quantized.supported_engines if e != 'none']
        if not engines:
            return False
        if torch.backends.quantized.engine not in engines:
            torch.backends.quantized.engine = engines[0]
        weight = Weight(np.array([[127, 0], [-9, 3]], np.int8), np.array([1, 2], np.float32))
        found = int8_product(weight, np.ones(2, np.float32))(np.array([[1, 0.5]], np.float32))
        return bool(np.allclose(found, [[128, -14]], atol=0.1))
    except (RuntimeError, AttributeError, NotImplementedError):
        return False


def torch_product(weight: Weight, bias: np.ndarray, device: str = 'cpu') -> Product:
    """Return a product on a device: int8 where the weight is and the CPU can, else floating."""
    if weight.scale is not None and device == 'cpu' and has_int8_engine():
        return int8_product(weight, bias)
    # Half precision is what small GPUs are made for; CPUs compute in float32.
    dtype = torch.float32 if device == 'cpu' else torch.float16
    values = torch.tensor(weight.dequantized()).to(device, dtype)
    offset = torch.tensor(bias).to(device, dtype)
    return lambda x: torch.nn.functional.linear(
        torch.from_numpy(x).to(device, dtype), values, offset).float().cpu().numpy()
