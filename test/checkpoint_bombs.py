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

"""Files that are small, and mean to take much memory or time where they are read."""

import io
import json
import struct
import zipfile


def zipped(contents, compression=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w', compression) as archive:
        for name, data in contents.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def with_pickle(data):
    return zipped({'archive/data.pkl': data})


def text(value):
    """Return the pickle instruction for a text."""
    value = value.encode()
    return b'X' + struct.pack('<I', len(value)) + value


def call(module, name, *arguments):
    """Return pickle instructions that call a function with texts."""
    return f'c{module}\n{name}\n('.encode() + b''.join(map(text, arguments)) + b'tR'


def entry(value, key='word_map'):
    """Return a pickle of a dict with one entry."""
    return b'\x80\x02}' + text(key) + value + b's.'


NESTED = b')' + b'\x85' * 450_000


def laughs(begin, end, levels=12):
    """Return a list or tuple of 10 times the same one of 10 times the same one, and so on."""
    data = begin + b'K\x01' + end + b'q\x00'
    for level in range(levels):
        data = begin + data + bytes([ord('h'), level]) * 9 + end + bytes([ord('q'), level + 1])
    return data


LISTS, TUPLES = laughs(b'](', b'e'), laughs(b'(', b't')


def state(name, value):
    return b'\x80\x02}' + text('model_state_dict') + b'}' + name + value + b'ss.'


def bombs(index):
    """Yield the names and the bytes of files that are small and mean no good."""
    def also(name, value):
        """Return the good index with one more entry, or another one."""
        return index[:-1] + text(name) + value + b's.'

    big = b'\x8a\xff' + b'\x7f' * 255
    tensor = b'ctorch._utils\n_rebuild_tensor_v2\n('
    storage = b'(' + text('storage') + b'ctorch\nFloatStorage\n' + text('0') + text('cpu')
    pickles = {
        'nested tuples as a key': b'\x80\x02}' + NESTED + b'K\x01s.',
        'nested tuples as a size': state(
            text('a'), tensor + storage + b'K\x01tQK\x00' + NESTED + b')tR'),
        'nested lists': entry(b']' * 240_000 + b'a' * 239_999),
        'nested dicts': entry((b'}' + text('')) * 150_000 + b'K\x01' + b's' * 150_000),
        'many dicts as words': entry(b'](' + b'}' * 490_000 + b'e'),
        'many marks': b'\x80\x02' + b'(' * 8_000_000,
        'many calls': b'\x80\x02(' + b'ccollections\nOrderedDict\n)R' * 160_000 + b't.',
        'many memos': b'\x80\x02K\x01' + b''.join(
            b'r' + struct.pack('<I', 2**32 - 1 - 8191 * n) for n in range(450_000)) + b'.',
        'memo of a large index': b'\x80\x02K\x01r\xff\xff\xff\xffj\xff\xff\xff\xff.',
        'numbers with one hash': b'\x80\x02}(' + b''.join(
            b'\x8a\x10' + (n * (2**61 - 1)).to_bytes(16, 'little') + b'N'
            for n in range(1, 200_000)) + b'u.',
        'texts of numbers with one hash': also('rev_word_map', b'}(' + b''.join(
            text(str(n * (2**61 - 1))) + b'N' for n in range(1, 150_000)) + b'u'),
        'large numbers as a size': state(
            text('a'), tensor + storage + b'K\x01tQK\x00(' + big * 20_000 + b't)tR'),
        'a long number': entry(b'\x8b' + struct.pack('<I', 8_000_000) + b'\x7f' * 8_000_000),
        'a long decimal': entry(b'L' + b'9' * 8_000_000 + b'L\n'),
        'a long text': entry(text('a' * 8_000_000)),
        'a long name': state(text('\n' * 8_000_000), b'K\x01'),
        'a long class': entry(b'c' + b'a' * 4_000_000 + b'\n' + b'b' * 4_000_000 + b'\n'),
        'laughs as the number of words': also('vocab_size', LISTS),
        'laughs as a calibration': also('score_calibration', b'}' + text('slope') + LISTS + b's'),
        'laughs as an index': also('word_map', b'}' + text('<end>') + TUPLES + b's'),
        'laughs as words': also('rev_word_map', b'}K\x00' + LISTS + b's'),
        'laughs as a storage': entry(TUPLES + b'Q'),
        'laughs as a tensor': state(text('a'), TUPLES)}
    for name, data in pickles.items():
        yield name, with_pickle(data)
    yield 'a zip bomb', zipped({'archive/data.pkl': bytes(1 << 28)}, zipfile.ZIP_DEFLATED)
    yield 'many members', b'PK\x03\x04' + zipped(
        {'archive/data.pkl': b'.'})[4:-22] + b''.join(_directory(200_000))
    huge = bytearray(with_pickle(entry(b'}')))
    at = huge.index(b'PK\x01\x02')
    huge[at + 20:at + 28] = struct.pack('<II', 2**31, 2**31)
    yield 'a huge member', bytes(huge)
    for name, header in {
            'nested JSON': b'{"a":' + b'[' * 4_000_000,
            'many lists of JSON': b'{"a":[' + b'[],' * 1_300_000 + b'[]]}',
            'many names of JSON': b'{' + b','.join(
                b'"%d":{}' % n for n in range(330_000)) + b'}',
            'a long number of JSON': b'{"a":' + b'9' * 4_000_000 + b'}',
            'large sizes of JSON': b'{"a":{"dtype":"F32","data_offsets":[0,1],"shape":[%s1]}}' % (
                (b'9' * 4000 + b',') * 900),
            'nested words': json.dumps({'__metadata__': {
                'format': 'jetcap_ros', 'version': '1', 'words': '[' * 4_000_000}}).encode(),
            'many lists as words': json.dumps({'__metadata__': {
                'format': 'jetcap_ros', 'version': '1',
                'words': '[' + '[],' * 1_300_000 + '[]]'}}).encode()}.items():
        yield name, struct.pack('<Q', len(header)) + header


def _directory(count):
    record = b'PK\x01\x02' + struct.pack('<HHHHHHIIIHHHHHII', *[20, 20] + [0] * 7, 5, *[0] * 6)
    yield (record + b'a/b/c') * count
    yield b'PK\x05\x06' + struct.pack('<HHHHIIH', 0, 0, 65535, 65535, 51 * count, 120, 0)
