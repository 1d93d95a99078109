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
Read `.pth` files without trusting them.

What a file says of itself is read with the standard library alone: the few pickle instructions
that torch.save writes are followed here, none of which calls anything, and every other one is
refused. The weights are then mapped by torch, with `weights_only`.
"""

from dataclasses import dataclass
import io
import math
import os
import pickletools
from typing import Any
import zipfile

from .errors import CheckpointError, MAX_PARAMETERS

# What a checkpoint of 80,000 words stays under; more is refused before it takes memory or time.
MAX_PICKLE_BYTES = 8 << 20
MAX_INSTRUCTIONS = 500_000
MAX_DIRECTORY_BYTES = 1 << 20
MAX_DIMENSIONS = 8
PROTOCOL = 2

STORAGES = {
    f'torch {kind}Storage' for kind in (
        'Float', 'Double', 'Half', 'BFloat16', 'Long', 'Int', 'Short', 'Char', 'Byte', 'Bool')}
TENSOR, PARAMETER, ORDERED_DICT = (
    'torch._utils _rebuild_tensor_v2', 'torch._utils _rebuild_parameter',
    'collections OrderedDict')
CONSTANTS = {'NONE': None, 'NEWTRUE': True, 'NEWFALSE': False}
EMPTY = {'EMPTY_DICT': dict, 'EMPTY_LIST': list, 'EMPTY_TUPLE': tuple}
TUPLES = {'TUPLE1': 1, 'TUPLE2': 2, 'TUPLE3': 3}


@dataclass(frozen=True)
class _Name:
    """A name that the file asks for; it is only compared, never looked up."""

    text: str


@dataclass(frozen=True)
class _Storage:
    """How many numbers a storage holds."""

    count: int


@dataclass(frozen=True)
class _Tensor:
    """The shape of a tensor; no data."""

    shape: tuple[int, ...]


def read_pth_metadata(path: str) -> tuple[dict[str, Any], dict[str, tuple[int, ...]]]:
    """
    Return the entries of a checkpoint that are no tensors, and the shapes of those that are.

    :raises CheckpointError: if it is damaged, foreign or holds anything but data.
    """
    data = _read_pickle(path)
    try:
        contents = _follow(data)
    except CheckpointError as error:
        raise CheckpointError(f'refused, nothing of it was executed: {error}') from None
    except Exception as error:  # whatever a damaged pickle trips over
        raise CheckpointError(f'damaged index ({type(error).__name__}: {error})') from error
    if not isinstance(contents, dict) or not isinstance(contents.get('model_state_dict'), dict):
        raise CheckpointError('no dict with a model_state_dict')
    shapes = {}
    for name, tensor in contents.pop('model_state_dict').items():
        if not isinstance(name, str) or not isinstance(tensor, _Tensor):
            raise CheckpointError(f'model_state_dict: {name!r} is not a tensor')
        shapes[name] = tensor.shape
    return contents, shapes


class _Bounded(io.FileIO):
    """A file of which nobody reads too much at once, as a zip directory may ask for."""

    def read(self, size: int | None = -1) -> bytes:
        if size and size > MAX_PICKLE_BYTES:
            raise CheckpointError(f'a part of it claims {size} bytes')
        return super().read(size)


def _read_pickle(path: str) -> bytes:
    """Return the index of a file that torch.save wrote."""
    try:
        with _Bounded(path) as file, zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            if any(member.compress_type != zipfile.ZIP_STORED for member in members):
                raise CheckpointError('compressed inside, which torch.save never does: refused')
            # Torch compares names without case.
            pickles = [m for m in members if m.filename.lower().endswith('/data.pkl')]
            if len(pickles) != 1:
                raise CheckpointError('a zip file, but not one that torch.save wrote')
            if pickles[0].file_size > MAX_PICKLE_BYTES:
                raise CheckpointError(
                    f'its index has {pickles[0].file_size} bytes, at most {MAX_PICKLE_BYTES}')
            return archive.read(pickles[0])
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise CheckpointError(f'truncated or damaged ({error})') from error


def _follow(data: bytes) -> Any:
    """Return what the instructions of a pickle build, as far as it is data."""
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def take(start: int) -> list[Any]:
        items = stack[start:]
        del stack[start:]
        return items

    value: Any
    for number, (opcode, value, _) in enumerate(pickletools.genops(data)):
        name = opcode.name
        if number == MAX_INSTRUCTIONS:
            raise CheckpointError(f'more than {MAX_INSTRUCTIONS} instructions')
        if name in ('BINUNICODE', 'BININT', 'BININT1', 'BININT2', 'BINFLOAT', 'LONG1'):
            stack.append(value)
        elif name in ('BINPUT', 'LONG_BINPUT'):
            memo[value] = stack[-1]
        elif name in ('BINGET', 'LONG_BINGET'):
            stack.append(memo[value])
        elif name in CONSTANTS:
            stack.append(CONSTANTS[name])
        elif name in EMPTY:
            stack.append(EMPTY[name]())
        elif name == 'MARK':
            marks.append(len(stack))
        elif name == 'TUPLE':
            stack.append(tuple(take(marks.pop())))
        elif name in TUPLES:
            stack.append(tuple(take(-TUPLES[name])))
        elif name in ('SETITEM', 'SETITEMS'):
            items = take(marks.pop() if name == 'SETITEMS' else -2)
            _fill(stack[-1], items[::2], items[1::2])
        elif name in ('APPEND', 'APPENDS'):
            items = take(marks.pop() if name == 'APPENDS' else -1)
            if type(stack[-1]) is not list:
                raise CheckpointError('it appends to something that is not a list')
            stack[-1].extend(items)
        elif name == 'GLOBAL':
            if value not in STORAGES and value not in (TENSOR, PARAMETER, ORDERED_DICT):
                raise CheckpointError(
                    f'it asks for {value.replace(" ", ".")}, which a checkpoint has no need of')
            stack.append(_Name(value))
        elif name == 'BINPERSID':
            stack[-1] = _storage(stack[-1])
        elif name == 'REDUCE':
            stack.append(_call(*take(-2)))
        elif name == 'BUILD':  # what a state_dict keeps of its modules' versions
            stack.pop()
        elif name == 'STOP':
            return stack.pop()
        elif name != 'PROTO' or value != PROTOCOL:
            raise CheckpointError(f'the pickle instruction {name}, which torch.save does not use')
    raise CheckpointError('it has no end')


def _fill(target: Any, keys: list[Any], values: list[Any]) -> None:
    # Texts and small numbers: others could be made to collide, or to nest without end.
    if type(target) is not dict or len(keys) != len(values) or not all(
            type(key) is str or type(key) is int and abs(key) < 1 << 31 for key in keys):
        raise CheckpointError('a dict whose keys are neither texts nor small whole numbers')
    target.update(zip(keys, values))


def _storage(description: Any) -> _Storage:
    kind, dtype, _, _, count = description
    if kind != 'storage' or not isinstance(dtype, _Name) or dtype.text not in STORAGES:
        raise CheckpointError('a storage of an unknown kind')
    return _Storage(*_sizes((count,)))


def _call(function: Any, arguments: Any) -> Any:
    """Return what stands for the result of one of the three known functions."""
    if function == _Name(ORDERED_DICT) and arguments == ():
        return {}
    if function == _Name(PARAMETER) and isinstance(arguments[0], _Tensor):
        return arguments[0]
    if function != _Name(TENSOR) or not isinstance(arguments[0], _Storage):
        raise CheckpointError('a call that torch.save does not write')
    storage, offset, shape, strides = arguments[:4]
    _sizes((offset,)), _sizes(shape), _sizes(strides)
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides))
    count = math.prod(shape)
    if len(shape) != len(strides) or count > storage.count or count and last >= storage.count:
        raise CheckpointError(
            f'a tensor of shape {shape} and strides {strides} from {offset} on, in a storage of '
            f'{storage.count} values')
    return _Tensor(shape)


def _sizes(numbers: Any) -> tuple[int, ...]:
    """Return what is a proper tuple of sizes."""
    if type(numbers) is not tuple or len(numbers) > MAX_DIMENSIONS or not all(
            type(number) is int and 0 <= number <= MAX_PARAMETERS for number in numbers):
        raise CheckpointError('a tensor without proper sizes')
    return numbers


def map_pth(path: str) -> dict[str, Any]:
    """
    Return the model_state_dict of a checkpoint, mapped from the file (torch).

    :raises CheckpointError: if torch refuses it or a tensor claims more than the file holds.
    """
    import torch
    try:
        tensors: dict[str, Any] = torch.load(
            path, map_location='cpu', weights_only=True, mmap=True)['model_state_dict']
    except Exception as error:  # torch raises whatever the damage trips
        reason = str(error).partition('\n')[0]
        raise CheckpointError(
            f'torch cannot read it ({type(error).__name__}: {reason})') from error
    size = os.path.getsize(path)
    for name, tensor in tensors.items():
        if tensor.numel() * tensor.element_size() > min(size, tensor.untyped_storage().nbytes()):
            raise CheckpointError(f'{name} claims more values than the file holds')
    return tensors
