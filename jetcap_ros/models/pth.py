"""
Read `.pth` files without trusting them.

What a file says of itself is read with the standard library alone, by an unpickler that knows
dicts, numbers, texts and the shapes of tensors and refuses every other name. The weights are then
mapped by torch, with `weights_only`.
"""

import collections
import io
import math
import pickle
import zipfile
from typing import Any, Dict, Tuple

from .checkpoint import MAX_PARAMETERS, CheckpointError

MAX_PICKLE_BYTES = 16 << 20  # 200,000 words take about 5 MB


class _Stub:
    """Stands for a tensor or a storage: remembers a shape, holds no data."""

    shape: Tuple[int, ...] = ()

    def __setstate__(self, state) -> None:
        pass


def _tensor(storage, offset, size, stride, *_) -> _Stub:
    stub = _Stub()
    if not isinstance(size, tuple) or not all(type(n) is int and n >= 0 for n in size):
        raise pickle.UnpicklingError('a tensor without a proper size')
    stub.shape = size
    return stub


def _parameter(data, *_) -> Any:
    return data


class _MetadataUnpickler(pickle._Unpickler):
    # The unpickler written in Python: the one in C allocates whatever a hostile memo index asks.
    NAMES = {
        ('collections', 'OrderedDict'): collections.OrderedDict,
        ('torch._utils', '_rebuild_tensor_v2'): _tensor,
        ('torch._utils', '_rebuild_parameter'): _parameter,
    }
    STORAGES = {
        'FloatStorage', 'DoubleStorage', 'HalfStorage', 'BFloat16Storage', 'LongStorage',
        'IntStorage', 'ShortStorage', 'CharStorage', 'ByteStorage', 'BoolStorage'}

    def find_class(self, module: str, name: str) -> Any:
        if module == 'torch' and name in self.STORAGES:
            return _Stub
        try:
            return self.NAMES[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f'it asks for {module}.{name}, which a checkpoint has no need of') from None

    def persistent_load(self, pid: Any) -> _Stub:
        return _Stub()


def read_pth_metadata(path: str) -> Tuple[Dict[str, Any], Dict[str, Tuple[int, ...]]]:
    """
    Return the entries of a checkpoint that are no tensors, and the shapes of those that are.

    :raises CheckpointError: if it is damaged, foreign or holds anything but data.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if any(member.compress_type != zipfile.ZIP_STORED for member in members):
                raise CheckpointError('compressed inside, which torch.save never does: refused')
            pickles = [member for member in members if member.filename.endswith('/data.pkl')]
            if len(pickles) != 1:
                raise CheckpointError('a zip file, but not one that torch.save wrote')
            if pickles[0].file_size > MAX_PICKLE_BYTES:
                raise CheckpointError(
                    f'its index has {pickles[0].file_size} bytes, at most {MAX_PICKLE_BYTES}')
            data = archive.read(pickles[0])
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise CheckpointError(f'truncated or damaged ({error})') from error
    try:
        contents = _MetadataUnpickler(io.BytesIO(data)).load()
    except pickle.UnpicklingError as error:
        raise CheckpointError(f'refused, nothing of it was executed: {error}') from None
    except Exception as error:  # whatever a damaged pickle trips over
        raise CheckpointError(f'damaged index ({type(error).__name__}: {error})') from error
    if not isinstance(contents, dict) or not isinstance(contents.get('model_state_dict'), dict):
        raise CheckpointError('no dict with a model_state_dict')
    shapes = {}
    for name, tensor in contents['model_state_dict'].items():
        if not isinstance(name, str) or not isinstance(tensor, _Stub):
            raise CheckpointError(f'model_state_dict: {name!r} is not a tensor')
        if math.prod(tensor.shape) > MAX_PARAMETERS:
            raise CheckpointError(f'{name} claims the shape {tensor.shape}')
        shapes[name] = tensor.shape
    rest = {name: value for name, value in contents.items() if name != 'model_state_dict'}
    return rest, shapes


def map_pth(path: str):
    """
    Return the model_state_dict of a checkpoint, mapped from the file (torch).

    :raises CheckpointError: if torch refuses it or a tensor claims more than the file holds.
    """
    import torch
    try:
        contents = torch.load(path, map_location='cpu', weights_only=True, mmap=True)
    except Exception as error:  # torch raises whatever the damage trips
        raise CheckpointError(
            f'torch cannot read it ({type(error).__name__}: {str(error).splitlines()[0]})'
        ) from error
    tensors = contents['model_state_dict']
    for name, tensor in tensors.items():
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise CheckpointError(f'{name} claims more values than the file holds')
    return tensors
