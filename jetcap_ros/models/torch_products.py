"""Products for the decoder on torch: int8 kernels where this torch has them."""

import functools
import warnings

import numpy as np
import torch

from .decoder import Product
from .quantization import Weight


def int8_product(weight: Weight, bias: np.ndarray) -> Product:
    """
    Return a product with int8 weights; the input is quantized as it comes (dynamically).

    The weights are handed to torch as they are stored: no float32 copy of them is made.
    """
    with warnings.catch_warnings():
        # Newer versions announce that these tensors will go one day; `has_int8_engine` finds
        # out when they have.
        warnings.simplefilter('ignore')
        values = torch._make_per_channel_quantized_tensor(
            torch.from_numpy(np.ascontiguousarray(weight.values)),
            torch.from_numpy(weight.scale.astype(np.float64)),
            torch.zeros(len(weight.scale), dtype=torch.long), 0)
    packed = torch.ops.quantized.linear_prepack(
        values, torch.from_numpy(np.ascontiguousarray(bias)))
    linear = torch.ops.quantized.linear_dynamic.default
    return lambda x: linear(torch.from_numpy(x), packed).numpy()


@functools.lru_cache(maxsize=None)
def has_int8_engine() -> bool:
    """Say whether this torch runs int8 layers: some Jetson wheels are built without."""
    try:
        engines = [e for e in torch.backends.quantized.supported_engines if e != 'none']
        if not engines:
            return False
        if torch.backends.quantized.engine not in engines:
            torch.backends.quantized.engine = engines[0]
        product = int8_product(
            Weight(np.array([[127, 0]], np.int8), np.array([1], np.float32)),
            np.zeros(1, np.float32))
        return abs(product(np.array([[1, 0.5]], np.float32)).item() - 127) < 2
    except (RuntimeError, AttributeError, NotImplementedError):
        return False


def torch_product(weight: Weight, bias: np.ndarray, device: str = 'cpu') -> Product:
    """Return a product on a device: int8 where the weight is and the CPU can, else floating."""
    if weight.scale is not None and device == 'cpu' and has_int8_engine():
        return int8_product(weight, bias)
    # Half precision is what small GPUs are made for; CPUs compute in float32.
    dtype = torch.float32 if device == 'cpu' else torch.float16
    values = torch.from_numpy(np.ascontiguousarray(weight.dequantized())).to(device, dtype)
    offset = torch.from_numpy(bias).to(device, dtype)
    return lambda x: torch.nn.functional.linear(
        torch.from_numpy(x).to(device, dtype), values, offset).float().cpu().numpy()
