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

"""The size of a picture from its header, so that a small file cannot ask for much memory."""

from collections.abc import Callable
import re
import struct

from .limits import ImageError

MAX_JPEG_SCANS = 100  # usual progressive files have about ten; each costs a pass over all pixels
MAX_JPEG_SEGMENTS = 1000  # before the frame; cameras write about ten
HEADER_BYTES = 4096  # enough to recognize a picture

# Inside the coded picture FF is always followed by 00 or D0-D7, as fill by FF.
_JPEG_MARKER = re.compile(rb'\xff([^\x00\xd0-\xd7\xff])')
_PNM = re.compile(rb'P[1-6](?:\s|#[^\n]*\n)+(\d{1,9})(?:\s|#[^\n]*\n)+(\d{1,9})\s')
_SIZE_TAGS = {256: 0, 257: 1}  # of TIFF: width, height


def picture_size(data: bytes) -> tuple[int, int] | None:
    """
    Return width and height of a picture file, None if it is of no known kind.

    :param data: the whole file.
    :raises ImageError: if it is cut off before its size, or a JPEG before its end.
    """
    read = _find_reader(data)
    try:
        return read(data) if read else None
    except (struct.error, IndexError):
        raise ImageError(f'the picture is cut off after {len(data)} bytes') from None


def is_picture(head: bytes) -> bool:
    """Return whether a file is a picture of a known kind, by its first `HEADER_BYTES`."""
    return _find_reader(head) is not None


def _find_reader(data: bytes) -> Callable[[bytes], tuple[int, int]] | None:
    for magic, read in _READERS:
        if re.match(magic, data[:HEADER_BYTES], re.DOTALL):
            return read
    return None


def _jpeg_size(data: bytes) -> tuple[int, int]:
    """Walk the markers to the end (ITU-T T.81, B.1.1); what trails it does not matter."""
    size, scans, offset = None, 0, 2
    segments = 0
    while size or segments < MAX_JPEG_SEGMENTS:
        match = _JPEG_MARKER.search(data, offset)
        if match is None or match[1] == b'\xd9' and not size:
            break
        marker, offset = data[match.start(1)], match.end()
        if marker == 0xD9:
            return size or (0, 0)
        if marker in (0x01, 0xD8):  # without a length
            continue
        if offset + 2 > len(data):
            break
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # a frame of any kind
            if offset + 7 > len(data):
                break
            height, width = struct.unpack_from('>HH', data, offset + 3)
            size = (width, height)
        elif marker == 0xDA:
            scans += 1
            if scans > MAX_JPEG_SCANS:
                raise ImageError(f'the JPEG has more than {MAX_JPEG_SCANS} scans')
        segments += 1
        offset += int.from_bytes(data[offset:offset + 2], 'big')
    if not size:
        raise ImageError(f'the JPEG has no frame header in its {len(data)} bytes')
    raise ImageError(f'the JPEG is cut off after {len(data)} bytes')


def _png_size(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from('>II', data, 16)
    return width, height


def _gif_size(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from('<HH', data, 6)
    return width, height


def _bmp_size(data: bytes) -> tuple[int, int]:
    old = data[14] == 12
    width, height = struct.unpack_from('<HH' if old else '<ii', data, 18)
    return abs(width), abs(height)


def _webp_size(data: bytes) -> tuple[int, int]:
    kind = data[12:16]
    if kind == b'VP8 ':
        width, height = struct.unpack_from('<HH', data, 26)
        return width & 0x3FFF, height & 0x3FFF
    if kind == b'VP8L':
        bits, = struct.unpack_from('<I', data, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    sides = (*struct.unpack_from('<HBHB', data, 24),)
    return sides[0] + (sides[1] << 16) + 1, sides[2] + (sides[3] << 16) + 1


def _tiff_size(data: bytes) -> tuple[int, int]:
    order = '<' if data[:2] == b'II' else '>'
    directory, = struct.unpack_from(order + 'I', data, 4)
    entries, = struct.unpack_from(order + 'H', data, directory)
    size = [0, 0]
    for start in range(directory + 2, directory + 2 + 12 * entries, 12):
        tag, kind = struct.unpack_from(order + 'HH', data, start)
        if tag in _SIZE_TAGS:
            size[_SIZE_TAGS[tag]], = struct.unpack_from(
                order + ('H' if kind == 3 else 'I'), data, start + 8)
    return size[0], size[1]


def _pnm_size(data: bytes) -> tuple[int, int]:
    match = _PNM.match(data[:HEADER_BYTES])
    if match is None:
        raise IndexError
    return int(match[1]), int(match[2])


def _jpeg_2000_size(data: bytes) -> tuple[int, int]:
    start = data.find(b'\xff\x4f\xff\x51')  # of the code stream
    if start < 0:
        raise IndexError
    right, bottom, left, top = struct.unpack_from('>IIII', data, start + 8)
    return right - left, bottom - top


def _avif_size(data: bytes) -> tuple[int, int]:
    sizes = [struct.unpack_from('>II', data, match.end() + 4)
             for match in re.finditer(b'ispe', data[:1 << 16])]
    width, height = max(sizes, key=lambda size: size[0] * size[1], default=(0, 0))
    return width, height


_READERS: tuple[tuple[bytes, Callable[[bytes], tuple[int, int]]], ...] = (
    (rb'\xff\xd8', _jpeg_size), (rb'\x89PNG\r\n\x1a\n.{4}IHDR', _png_size), (rb'GIF8', _gif_size),
    (rb'BM', _bmp_size), (rb'RIFF.{4}WEBP', _webp_size), (rb'II\*\0|MM\0\*', _tiff_size),
    (rb'P[1-6][\s#]', _pnm_size), (rb'.{4}jP  \r\n|\xff\x4f\xff\x51', _jpeg_2000_size),
    (rb'.{4}ftypavi[fs]', _avif_size))
