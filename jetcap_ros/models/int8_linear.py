"""Linear layers on torch's int8 kernels, where this torch has them."""

import functools
import warnings
from typing import Optional

import numpy as np
import torch
from torch import nn

from .quantization import Weight


class Int8Linear(nn.Module):
    """
    A linear layer with int8 weights; the input is quantized as it comes (dynamically).

    The weights are handed to torch as they are stored: no float32 copy of them is made.
    """

    def __init__(self, weight: Weight, bias: Optional[np.ndarray]) -> None:
        super().__init__()
        with warnings.catch_warnings():
            # Newer versions announce that these tensors will go one day; `has_int8_engine`
            # finds out when they have.
            warnings.simplefilter('ignore')
            values = torch._make_per_channel_quantized_tensor(
                torch.from_numpy(np.ascontiguousarray(weight.values)),
                torch.from_numpy(weight.scale.astype(np.float64)),
                torch.zeros(len(weight.scale), dtype=torch.long), 0)
        self._packed = torch.ops.quantized.linear_prepack(
            values, None if bias is None else torch.from_numpy(np.ascontiguousarray(bias)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.ops.quantized.linear_dynamic(x, self._packed)


@functools.lru_cache(maxsize=None)
def has_int8_engine() -> bool:
    """Say whether this torch runs int8 layers: some Jetson wheels are built without."""
    try:
        engines = [e for e in torch.backends.quantized.supported_engines if e != 'none']
        if not engines:
            return False
        if torch.backends.quantized.engine not in engines:
            torch.backends.quantized.engine = engines[0]
        layer = Int8Linear(Weight(np.array([[127, 0]], np.int8), np.array([1], np.float32)), None)
        return abs(layer(torch.tensor([[1.0, 0.5]])).item() - 127) < 2
    except (RuntimeError, AttributeError, NotImplementedError):
        return False


def linear(
        weight: Weight, bias: np.ndarray, device: torch.device = torch.device('cpu'),
        dtype: torch.dtype = torch.float32) -> nn.Module:
    """Return a linear layer: int8 where the weight is and the device is the CPU."""
    if weight.scale is not None and device.type == 'cpu' and has_int8_engine():
        return Int8Linear(weight, bias)
    rows, columns = weight.values.shape
    layer = nn.Linear(columns, rows, device='meta')
    layer.weight = nn.Parameter(
        torch.from_numpy(weight.dequantized()).to(device, dtype), requires_grad=False)
    layer.bias = nn.Parameter(torch.from_numpy(bias).to(device, dtype), requires_grad=False)
    return layer
