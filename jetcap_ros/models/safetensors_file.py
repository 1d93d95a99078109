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
Read and write the safetensors format, mapped from the file; only for weights is NumPy imported.

The library of that name is in no ROS distribution's package index, and the format is small: eight
bytes with the length of a JSON header, the header, the tensors. What a header claims is checked
before anything is done with it.
"""

from collections.abc import Mapping
import json
import math
import mmap
import os
import struct
from typing import Any, TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

DTYPES = {'F32': 'float32', 'I8': 'int8'}  # by their names there: NumPy's
ITEM_SIZES = {'float32': 4, 'int8': 1}  # bytes
MAX_HEADER = 4 << 20  # bytes; 200,000 words take about 3 MB
MAX_DIMENSIONS = 8


class SafetensorsError(ValueError):
    """A file that is not what the format allows, or holds more than this package writes."""


class SafetensorsFile:
    """
    A file opened for reading; tensors are mapped, and read when they are asked for.

    :raises SafetensorsError: if its header does not describe exactly the file.
    """

    def __init__(self, path: str) -> None:
        with open(path, 'rb') as file:
            size = os.fstat(file.fileno()).st_size
            start = file.read(8)
            if len(start) < 8:
                raise SafetensorsError(f'only {size} bytes')
            length, = struct.unpack('<Q', start)
            if length > min(MAX_HEADER, size - 8):
                raise SafetensorsError(
                    f'its header claims {length} bytes of {size}: truncated, or another format')
            try:
                header = json.loads(file.read(length).decode())
            except (ValueError, RecursionError) as error:
                raise SafetensorsError(f'its header is not JSON ({error})') from error
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if not isinstance(header, dict):
            raise SafetensorsError('its header is not a JSON object')
        self.metadata: dict[str, str] = self._texts(header.pop('__metadata__', {}))
        self._start = 8 + length
        self._tensors: dict[str, tuple[str, tuple[int, ...], int]] = {}
        end = 0
        try:
            entries = sorted(header.items(), key=lambda item: item[1]['data_offsets'])
            for name, entry in entries:
                end = self._enter(name, entry, end)
        except (KeyError, TypeError) as error:
            raise SafetensorsError(f'its header is damaged ({error})') from error
        if self._start + end != size:
            raise SafetensorsError(
                f'its header describes {self._start + end} bytes, the file has {size}')

    @staticmethod
    def _texts(metadata: Any) -> dict[str, str]:
        if not isinstance(metadata, dict) or not all(
                isinstance(value, str) for value in metadata.values()):
            raise SafetensorsError('its metadata is not a map of texts')
        return metadata

    def _enter(self, name: str, entry: Mapping[str, Any], end: int) -> int:
        """Check one tensor, which must begin where the last one ended; return its end."""
        if entry['dtype'] not in DTYPES:
            raise SafetensorsError(f'{name} is {entry["dtype"]!r}, expected {", ".join(DTYPES)}')
        shape, (first, last) = entry['shape'], entry['data_offsets']
        numbers = [*shape, first, last]
        if len(shape) > MAX_DIMENSIONS or not all(
                type(number) is int and 0 <= number < 1 << 48 for number in numbers):
            raise SafetensorsError(f'{name} has no proper shape or place')
        dtype = DTYPES[entry['dtype']]
        if first != end or last - first != math.prod(shape) * ITEM_SIZES[dtype]:
            raise SafetensorsError(f'{name} of shape {shape} is not at {first} to {last}')
        self._tensors[name] = dtype, tuple(shape), first
        return int(last)

    @property
    def tensors(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Return the type and the shape of each tensor, by name."""
        return {name: (dtype, shape) for name, (dtype, shape, _) in self._tensors.items()}

    def tensor(self, name: str) -> 'np.ndarray':
        """Return a tensor; a copy, since the file may be cut or written over later."""
        import numpy as np
        dtype, shape, first = self._tensors[name]
        first += self._start
        # To touch a page beyond the end of a file that has shrunk ends the process.
        if self._map.size() < first + math.prod(shape) * ITEM_SIZES[dtype]:
            raise SafetensorsError(f'{name} is gone: the file was cut while it was read')
        return np.frombuffer(self._map, dtype, math.prod(shape), first).reshape(shape).copy()


def write_safetensors(
        path: str, tensors: Mapping[str, 'np.ndarray'], metadata: Mapping[str, str]) -> None:
    """
    Write a file, all at once: a reader never sees half of it.

    :raises SafetensorsError: if its header would be longer than is read.
    """
    import numpy as np
    names = {dtype: name for name, dtype in DTYPES.items()}
    header: dict[str, dict[str, Any]] = {'__metadata__': {**metadata}}
    offset = 0
    # The larger items first, so that each begins at a multiple of its size.
    ordered = sorted(tensors, key=lambda name: -tensors[name].itemsize)
    for name in ordered:
        values = tensors[name]
        header[name] = {
            'dtype': names[values.dtype.name], 'shape': values.shape,
            'data_offsets': [offset, offset + values.nbytes]}
        offset += values.nbytes
    text = json.dumps(header, separators=(',', ':')).encode()
    text += b' ' * (-len(text) % 8)
    if len(text) > MAX_HEADER:
        raise SafetensorsError(
            f'the names and words take {len(text)} bytes, at most {MAX_HEADER} are read')
    partial = f'{path}.{os.getpid()}.partial'
    try:
        with open(partial, 'wb') as file:
            file.write(struct.pack('<Q', len(text)) + text)
            for name in ordered:
                file.write(np.ascontiguousarray(tensors[name]).data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        if os.path.exists(partial):
            os.remove(partial)
