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

"""Picture files: what can be read is, whole; the rest is one line and costs nothing."""

import itertools
import os
import struct
import subprocess
import sys
import tracemalloc
from types import SimpleNamespace
import zlib

import cv2
from jetcap_ros.cli import main
from jetcap_ros.errors import UserError
from jetcap_ros.images import limits
from jetcap_ros.images.headers import picture_size
from jetcap_ros.images.image_decoding import decode_compressed
from jetcap_ros.images.picture import is_picture_file, read_picture
import numpy as np
import pytest


def encode(extension, pixels, *parameters):
    ok, data = cv2.imencode(extension, pixels[..., ::-1], parameters)
    assert ok
    return data.tobytes()


@pytest.fixture(scope='module')
def small(photograph):
    return np.ascontiguousarray(photograph[:, :171])  # 171x256


@pytest.fixture(scope='module')
def jpeg(small):
    return encode('.jpg', small)


def write(path, data):
    path.write_bytes(data)
    return path


KINDS = ['.jpg', '.png', '.gif', '.bmp', '.webp', '.tiff', '.ppm', '.pgm', '.jp2', '.avif']


@pytest.mark.parametrize('extension', KINDS)
def test_every_kind_is_read_and_refused_by_its_size(tmp_path, monkeypatch, small, extension):
    try:
        data = encode(extension, small if extension != '.pgm' else small[..., :1])
    except cv2.error:
        pytest.skip(f'this OpenCV writes no {extension}')
    path = write(tmp_path / f'picture{extension}', data)
    assert is_picture_file(path)
    assert picture_size(data) == (171, 256)
    image = read_picture(path)
    if extension != '.pgm':
        assert np.abs(image.astype(int) - small).mean() < 16  # a GIF has few colours
    monkeypatch.setattr(limits, 'MAX_PIXELS', 171 * 256 - 1)
    with pytest.raises(UserError, match=f'picture{extension}: 171x256 is 0 megapixels'):
        read_picture(path)


def test_lossless_and_wide_webp_tell_their_size(small):
    assert picture_size(encode('.webp', small, cv2.IMWRITE_WEBP_QUALITY, 101)) == (171, 256)
    extended = b'RIFF\0\0\0\0WEBPVP8X' + struct.pack('<IIHBHB', 10, 0, 0x1234, 1, 9, 0)
    assert picture_size(extended) == (0x11235, 10)


def huge_png(width, height):
    """Return a PNG of white pixels, whole."""
    def chunk(kind, content):
        return (struct.pack('>I', len(content)) + kind + content
                + struct.pack('>I', zlib.crc32(kind + content)))
    packer = zlib.compressobj(9)
    row = b'\0' + b'\xff' * (width // 8 + 1)
    content = b''.join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack('>IIBBBBB', width, height, 1, 0, 0, 0, 0)
    return (b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header)
            + chunk(b'IDAT', content) + chunk(b'IEND', b''))


def with_size(jpeg, width, height):
    frame = jpeg.index(b'\xff\xc0')
    return jpeg[:frame + 5] + struct.pack('>HH', height, width) + jpeg[frame + 9:]


def test_what_would_be_huge_is_refused_before_it_is_decoded(tmp_path, jpeg):
    pictures = [huge_png(30_000, 3_000), with_size(jpeg, 60_000, 60_000)]
    tracemalloc.start()
    for data in pictures:
        with pytest.raises(UserError, match='megapixels; 64 are the limit'):
            read_picture(write(tmp_path / 'huge', data))
    assert tracemalloc.get_traced_memory()[1] < 5 << 20
    tracemalloc.stop()


def cut(data):
    return data[:len(data) // 2]


def without_middle(data):
    return data[:len(data) // 2] + data[len(data) * 3 // 4:]


def zeroed(data):
    return data[:len(data) // 2] + bytes(len(data) // 8) + data[len(data) * 5 // 8:]


@pytest.mark.parametrize('damage, extension', [
    *itertools.product([cut, without_middle], ['.jpg', '.png', '.webp', '.tiff', '.bmp']),
    *itertools.product([zeroed], ['.jpg', '.png'])])  # WebP has nothing to tell it by
def test_what_is_not_whole_is_refused(tmp_path, capfd, small, extension, damage):
    path = write(tmp_path / 'picture', damage(encode(extension, small)))
    with pytest.raises(UserError, match='picture: .*(cut off|damaged)') as caught:
        read_picture(path)
    assert '\n' not in str(caught.value)
    assert capfd.readouterr().err == ''  # nothing but the error


def test_frames_and_files_are_refused_alike(tmp_path, jpeg):
    progressive = encode('.jpg', read_picture(write(tmp_path / 'a', jpeg)),
                         cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    for whole in (jpeg, progressive):
        for damage in (cut, without_middle, zeroed, lambda data: cut(data) + b'\xff\xd9'):
            data = damage(whole)
            with pytest.raises(ValueError, match='cut off|damaged'):
                decode_compressed(SimpleNamespace(format='jpeg', data=data))
            with pytest.raises(UserError, match='cut off|damaged'):
                read_picture(write(tmp_path / 'picture', data))


def test_what_trails_a_whole_jpeg_does_not_matter(tmp_path, jpeg):
    whole = read_picture(write(tmp_path / 'whole', jpeg))
    random = np.random.default_rng(1)
    for tail in [random.bytes(20_000), jpeg, cut(jpeg), b'\xff\xda', b'\xff']:
        assert (read_picture(write(tmp_path / 'picture', jpeg + tail)) == whole).all()
    padded = jpeg[:-2] + bytes(5) + jpeg[-2:]  # as some cameras do
    assert (read_picture(write(tmp_path / 'picture', padded)) == whole).all()


def test_a_thumbnail_inside_is_not_the_picture(tmp_path, jpeg, small):
    body = b'Exif\0\0' + encode('.jpg', small[:20, :20])
    data = jpeg[:2] + b'\xff\xe1' + struct.pack('>H', len(body) + 2) + body + jpeg[2:]
    assert read_picture(write(tmp_path / 'picture', data)).shape == small.shape
    with pytest.raises(UserError, match='cut off'):
        read_picture(write(tmp_path / 'picture', data[:len(body) + 500]))


def test_turned_as_exif_says(tmp_path, jpeg, small):
    tiff = b'MM\0*\0\0\0\x08\0\x01' + struct.pack('>HHIHHI', 0x0112, 3, 1, 6, 0, 0)
    body = b'Exif\0\0' + tiff
    data = jpeg[:2] + b'\xff\xe1' + struct.pack('>H', len(body) + 2) + body + jpeg[2:]
    assert read_picture(write(tmp_path / 'picture', data)).shape == (171, 256, 3)


@pytest.mark.parametrize('data, text', [
    (b'', 'no picture of a known kind'), (b'hello', 'JPEG, PNG'), (bytes(5000), 'known kind'),
    (b'GIF89a', 'cut off'), (b'BM' + bytes(10), 'cut off'), (b'P6 ', 'cut off'),
    (b'II*\0' + b'\xff' * 9, 'cut off'), (b'MM\0*\0\0\0\x08\0\0', 'empty: 0x0'),
    (b'P5 70000 70000 255\n', '4900 megapixels'), (b'\xff\xd8\xff', 'no frame header')])
def test_what_is_no_picture_is_told(tmp_path, data, text):
    with pytest.raises(UserError, match=text):
        read_picture(write(tmp_path / 'picture', data))


def test_random_damage_is_told_or_costs_little(tmp_path, small):
    random = np.random.default_rng(3)
    for extension in ('.jpg', '.png', '.gif', '.bmp', '.webp', '.tiff', '.ppm'):
        if not cv2.haveImageWriter(extension):  # GIF, before 4.11
            continue
        whole = encode(extension, small[:40, :40])
        for _ in range(30):
            data = bytearray(whole[:random.integers(len(whole) + 1)])
            for position in random.integers(max(1, len(data)), size=3) if data else ():
                data[position] ^= random.integers(1, 256)
            try:
                assert read_picture(write(tmp_path / 'picture', bytes(data))).ndim == 3
            except UserError as error:
                assert str(error).startswith(f'{tmp_path / "picture"}: ')


def test_other_output_is_passed_on(capfd, jpeg):
    from jetcap_ros.images.complaints import collect_damage
    with collect_damage() as damage:
        os.write(2, b'[INFO] a line of the node\nCorrupt JPEG data: bad Huffman code\n')
    assert damage == ['Corrupt JPEG data: bad Huffman code']
    assert capfd.readouterr().err == '[INFO] a line of the node\n'


def test_caption_tells_each_bad_picture_and_goes_on(tmp_path, capsys, jpeg):
    good = write(tmp_path / 'good.jpg', jpeg)
    bad = [write(tmp_path / 'huge.png', with_size(jpeg, 60_000, 60_000)),
           write(tmp_path / 'cut.jpg', cut(jpeg)), tmp_path / 'missing.jpg', tmp_path]
    command = ['caption', '--model', 'simple', *map(str, bad), str(good)]
    assert main(command) == 1
    text = capsys.readouterr()
    assert text.out.startswith(f'{good}\t') and text.out.count('\n') == 1
    errors = text.err.splitlines()
    for line, path in zip(errors, bad):
        assert line.startswith(f'jetcap caption: error: {path}: ')
    assert errors[len(bad):] == ['jetcap caption: error: 4 of 5 pictures could not be read']


@pytest.mark.parametrize('encoding', ['utf-8', 'latin-1', 'ascii'])
def test_names_beyond_the_terminal_are_captioned(tmp_path, encoding, jpeg):
    folder = os.fsencode(tmp_path)
    names = [os.path.join(folder, name) for name in (b'caf\xe9.jpg', '猫.jpg'.encode(), b'a.jpg')]
    for name in names:
        with open(name, 'wb') as file:
            file.write(jpeg)
    result = subprocess.run(
        [sys.executable, '-m', 'jetcap_ros.cli', 'caption', '--model', 'simple', *names,
         folder + b'/caf\xe9'],
        capture_output=True, env={**os.environ, 'PYTHONIOENCODING': encoding})
    assert result.returncode == 1, result.stderr
    assert result.stdout.count(b'\n') == 3 and b'Traceback' not in result.stderr
    assert b'No such file' in result.stderr
