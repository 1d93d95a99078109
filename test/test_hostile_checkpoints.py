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

"""Test that no file makes reading it run code, take much memory, take long or end the process."""

import collections
import io
import json
import os
import pickle
import struct
import subprocess
import sys
import textwrap
import warnings
import zipfile

from checkpoint_bombs import bombs, call, entry, text, with_pickle, zipped
from hypothesis import given, settings, strategies as st
from jetcap_ros.models.checkpoint import read_checkpoint
from jetcap_ros.models.errors import CheckpointError
from jetcap_ros.models.packed import pack
from jetcap_ros.models.pth import map_pth
from jetcap_ros.models.weight_reader import WeightReader
from model_files import checkpoint
import numpy as np
import pytest
import torch

EXAMPLES = settings(max_examples=100, deadline=None, derandomize=True, database=None)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Return a folder with `plain.pth` and `packed.safetensors`."""
    folder = tmp_path_factory.mktemp('hostile')
    torch.save(checkpoint(), folder / 'plain.pth')
    pack(read_checkpoint(str(folder / 'plain.pth')), str(folder / 'packed.safetensors'))
    return folder


@pytest.fixture(scope='module')
def plain(folder):
    """Return the bytes of a `.pth`."""
    return (folder / 'plain.pth').read_bytes()


@pytest.fixture(scope='module')
def packed(folder):
    """Return the bytes of a packed file."""
    return (folder / 'packed.safetensors').read_bytes()


def read(path):
    """Read all of a checkpoint; return the reason if it is refused, '' if not."""
    try:
        metadata = read_checkpoint(path)
        with WeightReader(metadata) as reader:
            for name, shape in metadata.parameter_shapes().items():
                values = reader.array(name)
                assert values.shape == shape and np.isfinite(values).all()
    except CheckpointError as error:
        assert str(error).startswith(path) and str(error).isprintable()
        return str(error)
    return ''


def read_bytes(folder, data):
    path = folder / 'mutated'
    path.write_bytes(data)
    return read(str(path))


def members(data):
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


# Truncation and bit flips

def test_truncated_anywhere(folder, plain, packed):
    header = 8 + struct.unpack('<Q', packed[:8])[0]
    offsets = {value for entry in json.loads(packed[8:header]).values() if 'dtype' in entry
               for value in entry['data_offsets']}
    cuts = {*range(12), header // 2, header - 1, *(header + value for value in offsets)}
    for cut in sorted(cuts - {len(packed)}):
        assert read_bytes(folder, packed[:cut]), cut
    assert read_bytes(folder, packed + b'\0')
    assert not read_bytes(folder, packed)

    with zipfile.ZipFile(io.BytesIO(plain)) as archive:
        starts = [info.header_offset for info in archive.infolist()]
    directory = plain.index(b'PK\x01\x02')
    cuts = {*range(12), *starts[:20:4], *range(directory - 9, len(plain), len(plain) // 2000)}
    for cut in sorted(cuts):
        assert read_bytes(folder, plain[:cut]), cut
    assert not read_bytes(folder, plain)


@EXAMPLES
@given(data=st.data())
def test_flipped_bits_in_a_packed_file(folder, packed, data):
    header = 8 + struct.unpack('<Q', packed[:8])[0]
    mutated = bytearray(packed)
    for _ in range(data.draw(st.integers(1, 3))):
        end = data.draw(st.sampled_from([8, header, header, len(packed)]))
        mutated[data.draw(st.integers(0, end - 1))] ^= 1 << data.draw(st.integers(0, 7))
    read_bytes(folder, bytes(mutated))


@EXAMPLES
@given(data=st.data())
def test_flipped_bits_in_a_zip_file(folder, plain, data):
    mutated = bytearray(plain)
    directory = plain.index(b'PK\x01\x02')
    ranges = [(0, 100), (directory, len(plain)), (len(plain) - 120, len(plain)), (0, len(plain))]
    for _ in range(data.draw(st.integers(1, 3))):
        first, last = data.draw(st.sampled_from(ranges))
        mutated[data.draw(st.integers(first, last - 1))] ^= 1 << data.draw(st.integers(0, 7))
    read_bytes(folder, bytes(mutated))


@EXAMPLES
@given(data=st.data())
def test_flipped_bits_in_the_index_of_a_pth(folder, plain, data):
    contents = members(plain)
    name = next(name for name in contents if name.endswith('data.pkl'))
    index = bytearray(contents[name])
    for _ in range(data.draw(st.integers(1, 3))):
        index[data.draw(st.integers(0, len(index) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    read_bytes(folder, zipped({**contents, name: bytes(index)}))


# Code

class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f'touch {self.path}',)


def test_payloads_are_not_executed(folder, plain, tmp_path):
    witness = tmp_path / 'witness'
    touch = f'touch {witness}'
    pickles = {
        f'protocol {n}': pickle.dumps({'word_map': Payload(witness)}, n) for n in range(6)}
    pickles.update({
        'system': entry(call('posix', 'system', touch)),
        'eval': entry(call('builtins', 'eval', f'__import__("os").system("{touch}")')),
        'exec': entry(call('__builtin__', 'exec', f'open("{witness}", "w")')),
        'old style': b'(S"' + touch.encode() + b'"\niposix\nsystem\n.',
        'object': b'(cposix\nsystem\n' + text(touch) + b'o.',
        'extra': b'\x80\x02' + call('posix', 'system', touch) + b'.'})
    ran = 0
    for name, data in pickles.items():
        try:
            pickle.loads(data)
        except Exception:  # Python 2's builtins; the others do run
            pass
        ran += witness.exists()
        witness.unlink(missing_ok=True)
        reason = read_bytes(folder, with_pickle(data))
        assert 'nothing of it was executed' in reason, (name, reason)
        assert not witness.exists(), name
    assert ran == len(pickles)  # each would have done it
    # In a checkpoint that is good otherwise, and beside a good index.
    contents = checkpoint()
    contents['history'] = Payload(witness)
    torch.save(contents, folder / 'payload.pth')
    assert 'system' in read(str(folder / 'payload.pth'))
    good = members(plain)
    for name in ('other/data.pkl', 'archive/DATA.PKL', 'plain/Data.pkl'):
        assert 'not one that torch.save' in read_bytes(
            folder, zipped({**good, name: pickles['protocol 2']}))
    assert not witness.exists()


@pytest.mark.parametrize('data', [
    entry(b'ctorch.nn\nModule\n)R'), entry(b'cjetcap_ros.models.pth\nmap_pth\n)R'),
    entry(b'cbuiltins\ngetattr\n.'), entry(call('collections', 'OrderedDict', 'ab', 'cd')),
    entry(b'ccollections\nOrderedDict\n}' + text('clear') + b'K\x01sb'),
    entry(b'ctorch._utils\n_rebuild_parameter\n}' + text('__code__') + b'K\x01s\x86b'),
    entry(b'ctorch._utils\n_rebuild_tensor_v2\n)\x81'), entry(text('x') + b')R'),
    entry(b'K\x01Q'), entry(b'K\x01)R'), entry(b'(tQ'), b'\x80\x02.', b'\x80\x02', b'.', b'',
    b'\x80\x02}K\x01s.', b'\x80\x02u.', b'\x80\x02(((t.', b'\x80\x02h\x07.', b'\x80\xff}.',
    entry(b'X\xff\xff\xff\x7fabc'), entry(b'B\xff\xff\xff\xffabc'), entry(b'\x8b\xff\xff\xff\x7f'),
    entry(b'\x8e' + b'\xff' * 8), entry(b'I' + b'9' * 100_000 + b'\n'),
    b'\x80\x04\x95' + b'\xff' * 8])
def test_pickles_that_are_no_data(folder, data):
    assert read_bytes(folder, with_pickle(data))


def test_archives_of_other_kinds(folder):
    contents = checkpoint()
    path = str(folder / 'legacy.pth')
    torch.save(contents, path, _use_new_zipfile_serialization=False)
    assert 'since 1.6' in read(path)
    torch.save(torch.nn.Linear(2, 2), path)
    assert 'torch.nn.modules.linear.Linear' in read(path)
    torch.save([1, 2], path)
    assert 'no dict' in read(path)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path)
    assert 'refused' in read(path)
    assert 'not one that torch.save' in read_bytes(folder, zipped({'a.txt': b'text'}))
    assert 'compressed' in read_bytes(
        folder, zipped({'archive/data.pkl': bytes(1 << 25)}, zipfile.ZIP_DEFLATED))
    for start in (b'\x7fELF', b'\x89HDF\r\n\x1a\n{', b'\x08\x00\x00\x00TFL3{', b'{}' * 20):
        assert read_bytes(folder, start + bytes(100))


# Tensors that are not where they say

class Storage(collections.namedtuple('Storage', 'dtype key count')):
    """Stands for a storage of a `.pth`."""


class Tensor(collections.namedtuple('Tensor', 'storage offset shape strides')):
    """Is written as torch writes a tensor."""

    def __reduce__(self):
        return torch._utils._rebuild_tensor_v2, (*self, False, collections.OrderedDict())


def tensor_file(folder, values, *tensor):
    class Pickler(pickle.Pickler):

        def persistent_id(self, value):
            if isinstance(value, Storage):
                return 'storage', value.dtype, value.key, 'cpu', value.count
            return None

    buffer = io.BytesIO()
    storage = Storage(torch.FloatStorage, '0', tensor[0])
    Pickler(buffer, 2).dump({'model_state_dict': {'decoder.x': Tensor(storage, *tensor[1:])}})
    path = folder / 'tensor.pth'
    path.write_bytes(zipped({
        'archive/data.pkl': buffer.getvalue(), 'archive/version': b'3\n',
        'archive/byteorder': b'little', 'archive/data/0': values.tobytes()}))
    return str(path)


@pytest.mark.parametrize('tensor', [
    (12, 0, (3, 4), (4, 1)), (12, 0, (4, 3), (1, 4)), (12, 2, (3,), (3,)), (12, 0, (), ()),
    (12, 12, (0, 3), (3, 1))])
def test_tensors_inside_their_storage_are_fine(folder, tensor):
    path = tensor_file(folder, np.arange(12, dtype=np.float32), *tensor)
    assert 'encoder' in read(path)  # which it has not
    expected = torch.arange(12.).as_strided(tensor[2], tensor[3], tensor[1])
    assert torch.equal(map_pth(path)['decoder.x'], expected)


@pytest.mark.parametrize('tensor', [
    (12, 0, (1000, 1000), (0, 0)), (12, 0, (12,), (2,)), (12, 1, (3, 4), (4, 1)),
    (12, 10**6, (2,), (1,)), (12, 0, (2, 7), (1, 1)), (12, -4, (4,), (1,)), (12, 8, (4,), (-2,)),
    (12, 0, (2**40, 2**40), (1, 1)), (12, 0, (2**62,) * 2, (0, 0)), (12, 0, (-2, -2), (1, 1)),
    (12, 0, (3, 4), (4,)), (12, 0, (1,) * 65, (1,) * 65), (12, 0, [3, 4], [4, 1]),
    (12, 0, (3.0,), (1,)), (12, 0, (True,), (1,)), (-12, 0, (3,), (1,)), (2**62, 0, (3,), (1,))])
def test_tensors_outside_their_storage_are_refused(folder, tensor):
    path = tensor_file(folder, np.arange(12, dtype=np.float32), *tensor)
    assert 'nothing of it was executed' in read(path)


@pytest.mark.parametrize('tensor', [
    (12, 0, (1000, 1000), (0, 0)), (12, 1, (3, 4), (4, 1)), (12, 10**6, (2,), (1,)),
    (10**6, 0, (10**6,), (1,)), (10**6, 500, (3,), (1,)), (12, -4, (4,), (1,))])
def test_torch_alone_does_not_reach_outside_either(folder, tensor):
    path = tensor_file(folder, np.arange(12, dtype=np.float32), *tensor)
    with pytest.raises(CheckpointError):
        map_pth(path)


# What a packed file claims

def edited(packed, change):
    """Return a packed file whose header was changed."""
    length, = struct.unpack('<Q', packed[:8])
    header = json.loads(packed[8:8 + length])
    header = change(header) or header
    written = json.dumps(header).encode()
    return struct.pack('<Q', len(written)) + written + packed[8 + length:]


def setting(name, **values):
    return lambda header: header[name].update(values)


FC = 'decoder.fc.weight'


@pytest.mark.parametrize('change', [
    lambda h: [h], lambda h: h.clear(), lambda h: h.pop('__metadata__'),
    lambda h: h.update(__metadata__=3), lambda h: h.update(__metadata__={'format': 'pt'}),
    lambda h: h.update({FC: 3}), lambda h: h.update({FC: {}}), lambda h: h.update({FC: ['dtype']}),
    lambda h: h.pop(FC), lambda h: h.update({'decoder.fc': h.pop(FC)}),
    lambda h: h.pop(FC + '.scale'), lambda h: h.update({'extra': h.pop(FC + '.scale')}),
    setting('__metadata__', format='other'), setting('__metadata__', version='2'),
    setting('__metadata__', encoder='resnet'), setting('__metadata__', encoder='mobilenet_v2'),
    setting('__metadata__', quantize='none'), setting('__metadata__', quantize='int4'),
    setting('__metadata__', words='[]'), setting('__metadata__', words='{"<end>": 1}'),
    setting('__metadata__', words='["<start>", "<end>"]'), setting('__metadata__', words='nothing'),
    setting('__metadata__', words=json.dumps(['<start>', '<end>'] + ['twice'] * 38)),
    setting('__metadata__', words=json.dumps([[]] * 40)), setting('__metadata__', words=None),
    setting('__metadata__', words='[' * 10**6),
    setting('__metadata__', search='{"length_penalty": NaN}'),
    setting('__metadata__', search='{"block_ngram": -2}'), setting('__metadata__', search='[]]'),
    setting('__metadata__', search='{"length_penalty": 1' + '0' * 400 + '}'),
    setting('__metadata__', score_calibration='{"slope": Infinity, "intercept": 0}'),
    setting('__metadata__', score_calibration='{"slope": 1}'),
    setting(FC, dtype='F32'), setting(FC, dtype='F64'), setting(FC, dtype=[]),
    setting(FC, shape=[2**40, 2**40]), setting(FC, shape=[-40, -35]), setting(FC, shape=[35, 40]),
    setting(FC, shape=[40, 35.0]), setting(FC, shape=[True, 1400]), setting(FC, shape='40'),
    setting(FC, shape=[40, 35, 1]), setting(FC, shape=[]), setting(FC, shape=[10**300] * 3),
    setting(FC, shape=[1] * 70_000), setting(FC, data_offsets=[0, 1400]),
    setting(FC, data_offsets=[1400, 0]), setting(FC, data_offsets=[2**60, 2**60 + 1400]),
    setting(FC, data_offsets=[-1400, 0]), setting(FC, data_offsets=[0]),
    setting(FC, data_offsets=None), setting(FC + '.scale', shape=[])])
def test_headers_that_claim_something_else(folder, packed, change):
    assert read_bytes(folder, edited(packed, change))


def test_headers_are_read_as_they_are(folder, packed):
    """The last test's edits alone are what was refused."""
    assert not read_bytes(folder, edited(packed, lambda header: None))


@pytest.mark.parametrize('length', [0, 1, 7, 2**22 + 1, 2**31, 2**63, 2**64 - 1])
def test_header_lengths(folder, packed, length):
    assert read_bytes(folder, struct.pack('<Q', length) + packed[8:])


def test_bombs_are_refused_with_little_memory_and_in_little_time(plain, tmp_path):
    program = textwrap.dedent("""
        import resource, signal, sys
        import numpy
        from jetcap_ros.models.errors import CheckpointError
        from jetcap_ros.models.checkpoint import read_checkpoint
        import jetcap_ros.models.pth
        size = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + (250 << 20),) * 2)
        for path in sys.argv[1:]:
            signal.alarm(20)  # ends the process
            try:
                read_checkpoint(path)
            except CheckpointError as error:
                assert len(str(error)) < len(path) + 320 and str(error).isprintable()
                print(error, flush=True)
            else:
                sys.exit('read')
    """)
    paths = []
    index = next(data for name, data in members(plain).items() if name.endswith('data.pkl'))
    for name, data in bombs(index):
        paths.append(str(tmp_path / name))
        (tmp_path / name).write_bytes(data)
    done = subprocess.run(
        [sys.executable, '-c', program, *paths], capture_output=True, text=True,
        env={**os.environ, 'OPENBLAS_NUM_THREADS': '1'}, timeout=120)
    reached = len(done.stdout.splitlines())
    assert done.returncode == 0, f'{paths[reached]}: {done.returncode} {done.stderr[-500:]}'
    assert reached == len(paths)
