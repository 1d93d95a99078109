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
Turns camera messages into RGB arrays.

Messages are taken by their fields, not by their class, so the same code serves rclpy and
bags that are read without ROS. Whatever a message declares is checked against its data first:
time and memory stay in proportion to what really arrived.
"""

from typing import Any, NamedTuple

import cv2
import numpy as np

MAX_PIXELS = 64_000_000
MAX_JPEG_SCANS = 100  # usual progressive files have about ten; each costs a pass over all pixels


class ImageError(ValueError):
    """A message that holds no usable colour or grey picture; the text says why."""


class _Encoding(NamedTuple):
    dtype: type
    channels: int
    conversion: int | None  # of cv2.cvtColor, to RGB; None if it is RGB already
    multiple: tuple[int, int] = (1, 1)  # what width and height must be multiples of
    smallest: int = 1  # side in pixels
    planes: float = 1  # rows of data for each row of pixels


def _encodings() -> dict:
    table = {
        '8UC1': _Encoding(np.uint8, 1, cv2.COLOR_GRAY2RGB),
        '8UC3': _Encoding(np.uint8, 3, cv2.COLOR_BGR2RGB),  # as OpenCV orders channels
        '8UC4': _Encoding(np.uint8, 4, cv2.COLOR_BGRA2RGB),
    }
    for bits, dtype in (('8', np.uint8), ('16', np.uint16)):
        table.update({
            'rgb' + bits: _Encoding(dtype, 3, None),
            'bgr' + bits: _Encoding(dtype, 3, cv2.COLOR_BGR2RGB),
            'rgba' + bits: _Encoding(dtype, 4, cv2.COLOR_RGBA2RGB),
            'bgra' + bits: _Encoding(dtype, 4, cv2.COLOR_BGRA2RGB),
            'mono' + bits: _Encoding(dtype, 1, cv2.COLOR_GRAY2RGB),
        })
        # ROS names a mosaic by its first two rows, OpenCV by the second and third pixel of the
        # second row.
        for ros_name, conversion in (
            ('rggb', cv2.COLOR_BayerBG2RGB), ('bggr', cv2.COLOR_BayerRG2RGB),
            ('gbrg', cv2.COLOR_BayerGR2RGB), ('grbg', cv2.COLOR_BayerGB2RGB),
        ):
            # OpenCV leaves a mosaic of less than three rows or columns black.
            table[f'bayer_{ros_name}{bits}'] = _Encoding(dtype, 1, conversion, smallest=3)
    for names, conversion in (
        (('yuv422', 'uyvy'), cv2.COLOR_YUV2RGB_UYVY),
        (('yuv422_yuy2', 'yuyv'), cv2.COLOR_YUV2RGB_YUY2),
    ):
        table.update(dict.fromkeys(names, _Encoding(np.uint8, 2, conversion, multiple=(2, 1))))
    for name, conversion in (('nv12', cv2.COLOR_YUV2RGB_NV12), ('nv21', cv2.COLOR_YUV2RGB_NV21)):
        table[name] = _Encoding(np.uint8, 1, conversion, multiple=(2, 2), planes=1.5)
    return table


ENCODINGS = _encodings()
_DEPTH_ENCODINGS = ('16UC1', '32FC1')


def decode_image(message: Any) -> np.ndarray:
    """
    Decode a sensor_msgs/Image.

    16 bit pictures are scaled to 8 bit, as cv_bridge scales them, and alpha is dropped.

    :param message: anything with the fields of sensor_msgs/Image; `data` is bytes, an array or
        another buffer.
    :return: (height, width, 3) uint8, RGB. It may share the memory of the message: copy it
        before writing to it.
    :raises ImageError: if the message declares what its data is not, or holds no picture.
    """
    encoding = _find_encoding(message.encoding)
    width, height, step = int(message.width), int(message.height), int(message.step)
    _check_size(width, height)
    if width % encoding.multiple[0] or height % encoding.multiple[1]:
        raise ImageError(
            f'{message.encoding} needs a width that is a multiple of {encoding.multiple[0]} and '
            f'a height that is a multiple of {encoding.multiple[1]}, not {width}x{height}')
    if min(width, height) < encoding.smallest:
        raise ImageError(
            f'{message.encoding} needs at least {encoding.smallest}x{encoding.smallest} pixels, '
            f'not {width}x{height}')

    dtype = np.dtype(encoding.dtype).newbyteorder('>' if message.is_bigendian else '<')
    pixel_bytes = encoding.channels * dtype.itemsize
    row_bytes = width * pixel_bytes
    if step < row_bytes:
        raise ImageError(
            f'a row of {width} pixels of {message.encoding} takes {row_bytes} bytes, but the '
            f'step is {step}')
    rows = int(height * encoding.planes)
    needed_bytes = step * (rows - 1) + row_bytes  # the last row may come without its padding
    data = _as_buffer(message.data)
    if data.nbytes < needed_bytes:
        raise ImageError(
            f'{width}x{height} {message.encoding} with a step of {step} takes {needed_bytes} '
            f'bytes, but the data has {data.nbytes}')

    pixels = np.ndarray(
        (rows, width, encoding.channels), dtype, data,
        strides=(step, pixel_bytes, dtype.itemsize))
    return _to_rgb(pixels, encoding.conversion)


def decode_compressed(message: Any) -> np.ndarray:
    """
    Decode a sensor_msgs/CompressedImage that holds a JPEG or a PNG.

    The data tells which of the two it is. The `format` tells the order of colours and whether
    a grey PNG is a Bayer mosaic, as image_transport's compressed publisher writes it:
    '<encoding>; png compressed <encoding>'. Any orientation in EXIF is ignored, as there.

    :param message: anything with the fields `format` and `data` of sensor_msgs/CompressedImage.
    :return: (height, width, 3) uint8, RGB.
    :raises ImageError: if the data is neither, is cut off, is larger than `MAX_PIXELS`, or is
        a depth image.
    """
    encoding_name, separator, compression = message.format.partition(';')
    if encoding_name.strip() in _DEPTH_ENCODINGS or 'compressedDepth' in compression:
        raise _depth_error(message.format)
    data = _as_buffer(message.data)
    _check_compressed(data, message.format)
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise ImageError(f'cannot decode {_describe(data, message.format)}: {error}') from error
    if pixels is None:
        raise ImageError(f'cannot decode {_describe(data, message.format)}: it is damaged')

    if pixels.ndim == 2:
        # A PNG keeps the mosaic of a Bayer image; a JPEG of it has been made grey before.
        mosaic = encoding_name.startswith('bayer_') and 'png' in compression
        conversion = _find_encoding(encoding_name).conversion if mosaic else cv2.COLOR_GRAY2RGB
    elif pixels.shape[2] == 4:
        conversion = cv2.COLOR_BGRA2RGB
    elif (separator and encoding_name.startswith(('rgb', 'bgr'))
            and 'compressed bgr' not in compression):
        conversion = None  # the publisher handed RGB to an encoder that expects BGR
    else:
        conversion = cv2.COLOR_BGR2RGB
    return _to_rgb(pixels, conversion)


def _find_encoding(name: str) -> _Encoding:
    if name in _DEPTH_ENCODINGS:
        raise _depth_error(name)
    try:
        return ENCODINGS[name]
    except KeyError:
        raise ImageError(
            f'unknown encoding {name[:40]!r}; known are {", ".join(ENCODINGS)}') from None


def _depth_error(name: str) -> ImageError:
    return ImageError(f'{name} is a depth image; subscribe to the colour topic of the camera')


def _as_buffer(data: Any) -> memoryview:
    try:
        return memoryview(data).cast('B')
    except (TypeError, ValueError) as error:
        raise ImageError(f'the data is not a run of bytes: {error}') from error


def _check_size(width: int, height: int) -> None:
    if width <= 0 or height <= 0:
        raise ImageError(f'the image is empty: {width}x{height}')
    if width * height > MAX_PIXELS:
        raise ImageError(
            f'{width}x{height} is {width * height / 1e6:.0f} megapixels; '
            f'{MAX_PIXELS / 1e6:.0f} are the limit')


def _to_rgb(pixels: np.ndarray, conversion: int | None) -> np.ndarray:
    pixels = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder('='))
    if conversion is not None:
        try:
            pixels = cv2.cvtColor(pixels, conversion)
        except cv2.error as error:
            raise ImageError(f'OpenCV cannot convert {pixels.shape} pixels: {error}') from error
    if pixels.dtype == np.uint16:
        pixels = cv2.convertScaleAbs(pixels, alpha=255 / 65535)
    elif pixels.dtype != np.uint8:
        raise ImageError(f'the picture has {pixels.dtype} pixels; 8 and 16 bit are known')
    return pixels


def _check_compressed(data: memoryview, message_format: str) -> None:
    """Read the size from the header, so that a small file cannot ask for much memory."""
    if data[:2] == b'\xff\xd8':
        content = bytes(data)
        _check_size(*_jpeg_size(content))
        # Inside the coded picture FF is always followed by 00 or D0-D7, so these are markers.
        scans = content.count(b'\xff\xda')
        if scans > MAX_JPEG_SCANS:
            raise ImageError(f'the JPEG has {scans} scans; {MAX_JPEG_SCANS} are the limit')
        if content.rfind(b'\xff\xd9') < content.rfind(b'\xff\xda'):
            raise ImageError(f'the JPEG is cut off after {data.nbytes} bytes')
    elif data[:8] == b'\x89PNG\r\n\x1a\n' and data[12:16] == b'IHDR' and data.nbytes >= 24:
        _check_size(int.from_bytes(data[16:20], 'big'), int.from_bytes(data[20:24], 'big'))
    else:
        raise ImageError(f'{_describe(data, message_format)} is neither JPEG nor PNG')


def _describe(data: memoryview, message_format: str) -> str:
    return (f'the compressed image (format {message_format[:60]!r}, {data.nbytes} bytes, '
            f'starting {bytes(data[:8]).hex(" ") or "with nothing"})')


def _jpeg_size(content: bytes) -> tuple[int, int]:
    """Return width and height from the frame header (ITU-T T.81, B.2.2)."""
    offset = 2
    for _ in range(1000):  # segments; cameras write about ten
        offset = content.find(b'\xff', offset)
        if offset < 0 or offset + 9 > len(content):
            break
        marker = content[offset + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # a frame of any kind
            height = int.from_bytes(content[offset + 5:offset + 7], 'big')
            width = int.from_bytes(content[offset + 7:offset + 9], 'big')
            return width, height
        if marker in (0x00, 0x01, 0xFF) or 0xD0 <= marker <= 0xD8:  # without a length
            offset += 1 if marker == 0xFF else 2
        else:
            offset += 2 + int.from_bytes(content[offset + 2:offset + 4], 'big')
    raise ImageError(f'the JPEG has no frame header in its {len(content)} bytes')
