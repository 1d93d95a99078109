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

"""Read the weights of a checkpoint one by one, those of a `.pth` with batch norm folded in."""

import os
from typing import Any

import numpy as np

from .architectures import norm_epsilon, parameter_shapes, SqueezeExcitation
from .checkpoint import Checkpoint, is_quantized
from .errors import CheckpointError, reading
from .safetensors_file import SafetensorsFile
from .weight import quantize_rows, Weight


class WeightReader:
    """
    Gives the parameters of a checkpoint one by one, in float32 or quantized.

    For use as a context manager. Only the parameter asked for is held.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self._shapes = checkpoint.parameter_shapes()
        self._plain_shapes: dict[str, tuple[int, ...]] = {}  # of a `.pth`, unfolded
        self._norms: dict[str, str] = {}
        self._size = 0
        self._source: Any = None  # a SafetensorsFile, or a mapped state dict

    def __enter__(self) -> 'WeightReader':
        checkpoint = self._checkpoint
        with reading(checkpoint.path):
            if checkpoint.packed:
                self._source = SafetensorsFile(checkpoint.path)
                return self
            from .pth import map_pth
            self._source = map_pth(checkpoint.path)
            self._size = os.path.getsize(checkpoint.path)
        self._plain_shapes = {
            f'encoder.{name}': shape
            for name, shape in parameter_shapes(checkpoint.blocks).items()}
        self._norms = {
            f'encoder.{layer.name}': f'encoder.{layer.norm}'
            for block in checkpoint.blocks for layer in block.layers
            if not isinstance(layer, SqueezeExcitation)}
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._source = None

    def read(self, name: str, quantize: str | None = None) -> Weight:
        """
        Return the parameter of a name in `Checkpoint.parameter_shapes`.

        :param quantize: 'int8' or 'none'; None: as it is stored. Only what
            `is_quantized` says is ever int8, with a scale for each row (output channel).
        :raises CheckpointError: if it holds a value that is not finite, or if the file is no
            longer the one whose metadata were read.
        """
        with reading(self._checkpoint.path), np.errstate(all='ignore'):
            stored = self._packed(name) if self._checkpoint.packed else self._folded(name)
            if stored.values.shape != self._shapes[name]:
                raise CheckpointError(f'{name} has another shape now: the file was changed')
        if not is_quantized(stored.values.shape) or quantize is None \
                or (quantize == 'int8') == (stored.scale is not None):
            return stored
        if quantize == 'int8':
            return quantize_rows(stored.values)
        return Weight(stored.dequantized())

    def array(self, name: str) -> np.ndarray:
        """Return the parameter of a name as float32."""
        return self.read(name).dequantized()

    def _packed(self, name: str) -> Weight:
        values = self._source.tensor(name)
        if values.dtype == np.int8:
            return Weight(values, self._finite(name + '.scale', self._source.tensor(
                name + '.scale')))
        return Weight(self._finite(name, values))

    def _folded(self, name: str) -> Weight:
        """Return a parameter of a `.pth`, with batch normalization folded in."""
        prefix, _, kind = name.rpartition('.')
        norm = self._norms.get(prefix)
        if norm is None:
            return Weight(self._plain(name))
        # y = (W x - mean) * gamma / sqrt(var + eps) + beta
        gain = self._plain(norm + '.weight') / np.sqrt(
            self._plain(norm + '.running_var') + norm_epsilon(self._checkpoint.architecture))
        if kind == 'bias':
            values = self._plain(norm + '.bias') - self._plain(norm + '.running_mean') * gain
        else:
            values = self._plain(name) * gain[:, None, None, None]
        return Weight(self._finite(name, values))

    def _plain(self, name: str) -> np.ndarray:
        """Return a tensor of a `.pth` as it is, in float32."""
        if os.path.getsize(self._checkpoint.path) < self._size:
            raise CheckpointError('the file was cut while it was read')
        expected = self._plain_shapes.get(name)
        if name not in self._source and name.startswith('encoder.'):
            name = 'encoder.features.' + name[len('encoder.'):]
        values = self._source[name].float().numpy().copy()  # the file may be cut later
        if expected is not None and values.shape != expected:
            raise CheckpointError(f'{name} has shape {values.shape}, expected {expected}')
        return self._finite(name, values)

    @staticmethod
    def _finite(name: str, values: np.ndarray) -> np.ndarray:
        if not np.isfinite(values).all():
            raise CheckpointError(f'{name} holds values that are not finite')
        return values.astype(np.float32, copy=False)
