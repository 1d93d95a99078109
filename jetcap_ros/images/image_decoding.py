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

from .limits import check_size, ImageError
from .picture import decode_picture


class _Encoding(NamedTuple):
    dtype: type
    channels: int
    conversion: int | None  # of cv2.cvtColor, to RGB; None if it is RGB already
    multiple: tuple[int, int] = (1, 1)  # what width and height must be multiples of
    smallest: int = 1  # side in pixels
    planes: float = 1  # rows of data for each row of pixels


def _encodings() -> dict[str, _Encoding]:
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
    check_size(width, height)
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
    :raises ImageError: if the data is neither, is damaged, is larger than `MAX_PIXELS`, or
        is a depth image.
    """
    encoding_name, separator, compression = message.format.partition(';')
    if encoding_name.strip() in _DEPTH_ENCODINGS or 'compressedDepth' in compression:
        raise _depth_error(message.format)
    pixels = _decode(bytes(_as_buffer(message.data)), message.format)
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


def _decode(data: bytes, message_format: str) -> Any:
    if not data.startswith((b'\xff\xd8', b'\x89PNG\r\n\x1a\n')):
        raise ImageError(f'{_describe(data, message_format)} is neither JPEG nor PNG')
    try:
        return decode_picture(data, cv2.IMREAD_UNCHANGED)
    except ImageError as error:
        raise ImageError(f'cannot decode {_describe(data, message_format)}: {error}') from error


def _describe(data: bytes, message_format: str) -> str:
    return (f'the compressed image (format {message_format[:60]!r}, {len(data)} bytes, '
            f'starting {data[:8].hex(" ") or "with nothing"})')
