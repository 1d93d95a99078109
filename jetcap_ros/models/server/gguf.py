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
What a GGUF file says of itself, read without its weights.

GGUF is the file of llama.cpp: a header, keys with values, a table of tensors, their data. What
comes from outside is bounded: no more is kept than is asked for later, nothing is believed that
the file is too short for.
"""

from dataclasses import dataclass
import os
import struct
from typing import Any, BinaryIO

from ..errors import CheckpointError, reading

MAGIC = b'GGUF'
VERSIONS = (2, 3)
STRING, ARRAY = 8, 9
SCALARS = {
    0: 'B', 1: 'b', 2: 'H', 3: 'h', 4: 'I', 5: 'i', 6: 'f', 7: '?', 10: 'Q', 11: 'q', 12: 'd'}
MAX_ENTRIES = 65_536  # keys, or tensors
MAX_STRING = 1 << 20  # bytes of a string that is kept; a chat template takes some thousand
MAX_KEPT = 1024  # numbers of an array that is kept: one for each layer, say

Value = bool | int | float | str | list[Any]


@dataclass(frozen=True)
class GgufFile:
    """A GGUF file: its size in bytes, and the keys of its header."""

    path: str
    size: int
    metadata: dict[str, Value]  # without long arrays
    lengths: dict[str, int]  # of all arrays

    @property
    def architecture(self) -> str:
        """Return what it is: 'clip' of a projector, else the text model's family."""
        return str(self.metadata.get('general.architecture', ''))

    def number(self, key: str, default: float = 0) -> float:
        """Return the number of a key, `default` where there is none; of a list, the sum."""
        value = self.metadata.get(key, default)
        if isinstance(value, list):
            return float(sum(v for v in value if isinstance(v, (int, float))))
        return float(value) if isinstance(value, (int, float)) else default


def read_gguf(path: str) -> GgufFile:
    """
    Return what a GGUF file says of itself.

    :raises CheckpointError: if it is missing, something else, cut short or damaged.
    """
    with reading(path), open(path, 'rb') as file:
        size = os.fstat(file.fileno()).st_size
        if file.read(4) != MAGIC:
            raise CheckpointError('is no GGUF file: give a model as llama.cpp reads them')
        return _Reader(file, size).read(path)


class _Reader:
    """Reads a header from its fifth byte on."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._size = size

    def read(self, path: str) -> GgufFile:
        version, = self._unpack('I')
        if version not in VERSIONS:
            raise CheckpointError(f'is GGUF of version {version}, expected 2 or 3')
        tensors, keys = self._unpack('QQ')
        if max(tensors, keys) > MAX_ENTRIES:
            raise CheckpointError(f'claims {keys} keys and {tensors} tensors')
        metadata: dict[str, Value] = {}
        lengths: dict[str, int] = {}
        for _ in range(keys):
            key = self._string()
            kind, = self._unpack('I')
            if kind == ARRAY:
                inner, lengths[key] = self._unpack('IQ')
                values = self._array(inner, lengths[key])
                if values is not None:
                    metadata[key] = values
            else:
                metadata[key] = self._value(kind)
        last = max((self._tensor() for _ in range(tensors)), default=0)
        if self._file.tell() + last > self._size:
            raise CheckpointError(
                f'is cut short: {self._size} bytes, the last tensor begins beyond: fetch it again')
        return GgufFile(path, self._size, metadata, lengths)

    def _unpack(self, form: str) -> tuple[Any, ...]:
        form = '<' + form
        data = self._file.read(struct.calcsize(form))
        if len(data) < struct.calcsize(form):
            raise CheckpointError('is cut short within its header: fetch it again')
        return struct.unpack(form, data)

    def _skip(self, count: int) -> None:
        if self._file.tell() + count > self._size:
            raise CheckpointError('is cut short within its header: fetch it again')
        self._file.seek(count, os.SEEK_CUR)

    def _string(self) -> str:
        length, = self._unpack('Q')
        if length > MAX_STRING:
            raise CheckpointError(f'has a string of {length} bytes, at most {MAX_STRING}')
        return str(self._unpack(f'{length}s')[0], 'utf-8', 'replace')

    def _value(self, kind: int) -> Value:
        if kind == STRING:
            return self._string()
        if kind not in SCALARS:
            raise CheckpointError(f'has a value of the unknown type {kind}')
        value: Value = self._unpack(SCALARS[kind])[0]
        return value

    def _array(self, kind: int, count: int) -> list[Any] | None:
        """Read past an array; return it if it is a short one of numbers."""
        if kind == STRING:
            # A length each: a claim the file is too short for ends at the end of the file.
            for _ in range(count):
                self._skip(self._unpack('Q')[0])
            return None
        if kind not in SCALARS:
            raise CheckpointError(f'has an array of the unknown type {kind}')
        if count <= MAX_KEPT:
            return list(self._unpack(f'{count}{SCALARS[kind]}'))
        self._skip(count * struct.calcsize('<' + SCALARS[kind]))
        return None

    def _tensor(self) -> int:
        """Read past the entry of a tensor; return where its data begin, after the table."""
        self._string()
        dimensions, = self._unpack('I')
        if dimensions > 8:
            raise CheckpointError(f'has a tensor of {dimensions} dimensions')
        *_, offset = self._unpack(f'{dimensions}QIQ')
        return int(offset)
