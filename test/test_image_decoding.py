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

"""Camera messages become the right pixels, or an ImageError, whatever they declare."""

import array
from pathlib import Path
import re
import struct
import tracemalloc
from types import SimpleNamespace
import zlib

import cv2
from hypothesis import given, settings, strategies as st
from jetcap_ros.images.headers import MAX_JPEG_SCANS
from jetcap_ros.images.image_decoding import decode_compressed, decode_image, ENCODINGS
from jetcap_ros.images.limits import ImageError
import numpy as np
import pytest

RNG = np.random.default_rng(7)
SIZES = [(1, 2), (6, 1), (3, 2), (5, 7), (64, 48), (65, 49)]  # width, height


def image(encoding, width, height, step, data, is_bigendian=0):
    return SimpleNamespace(
        encoding=encoding, width=width, height=height, step=step, data=data,
        is_bigendian=is_bigendian)


def compressed(message_format, data):
    return SimpleNamespace(format=message_format, data=data)


def pack(encoding, pixels, padding=0, is_bigendian=0):
    """Return the message of (height, width, channels) pixels, its rows padded with garbage."""
    pixels = pixels.astype(pixels.dtype.newbyteorder('>' if is_bigendian else '<'))
    height, width = pixels.shape[:2]
    rows = np.frombuffer(pixels.tobytes(), np.uint8).reshape(height, -1)
    garbage = RNG.integers(0, 256, (height, padding), dtype=np.uint8)
    data = np.concatenate([rows, garbage], axis=1)
    return image(encoding, width, height, data.shape[1], data.tobytes(), is_bigendian)


def random_rgb(width, height, bits=8):
    dtype = np.uint16 if bits == 16 else np.uint8
    return RNG.integers(0, 1 << bits, (height, width, 3)).astype(dtype)


def with_alpha(pixels):
    """Append a channel of random alpha, which must not matter."""
    alpha = RNG.integers(0, np.iinfo(pixels.dtype).max, pixels.shape[:2] + (1,))
    return np.concatenate([pixels, alpha.astype(pixels.dtype)], axis=2)


def to_8_bit(pixels):
    return np.rint(pixels * (255 / 65535)).astype(np.uint8)


@pytest.mark.parametrize('padding', [0, 1, 6, 7])
@pytest.mark.parametrize('width, height', SIZES)
def test_colour_orders_and_alpha(width, height, padding):
    rgb = random_rgb(width, height)
    bgr = rgb[..., ::-1]
    for encoding, pixels in (
        ('rgb8', rgb), ('bgr8', bgr), ('8UC3', bgr), ('rgba8', with_alpha(rgb)),
        ('bgra8', with_alpha(bgr)), ('8UC4', with_alpha(bgr)),
    ):
        decoded = decode_image(pack(encoding, pixels, padding))
        assert decoded.dtype == np.uint8 and decoded.flags.c_contiguous, encoding
        np.testing.assert_array_equal(decoded, rgb, encoding)


@pytest.mark.parametrize('is_bigendian', [0, 1])
@pytest.mark.parametrize('padding', [0, 1, 2, 5])
@pytest.mark.parametrize('width, height', SIZES)
def test_16_bit_of_both_byte_orders(width, height, padding, is_bigendian):
    rgb = random_rgb(width, height, bits=16)
    bgr = rgb[..., ::-1]
    for encoding, pixels in (
        ('rgb16', rgb), ('bgr16', bgr), ('rgba16', with_alpha(rgb)), ('bgra16', with_alpha(bgr)),
    ):
        decoded = decode_image(pack(encoding, pixels, padding, is_bigendian))
        np.testing.assert_array_equal(decoded, to_8_bit(rgb), encoding)
    grey = rgb[..., :1]
    decoded = decode_image(pack('mono16', grey, padding, is_bigendian))
    np.testing.assert_array_equal(decoded, to_8_bit(grey).repeat(3, axis=2))


@pytest.mark.parametrize('padding', [0, 1, 5])
@pytest.mark.parametrize('encoding', ['mono8', '8UC1'])
@pytest.mark.parametrize('width, height', SIZES)
def test_grey(width, height, encoding, padding):
    grey = random_rgb(width, height)[..., :1]
    decoded = decode_image(pack(encoding, grey, padding))
    np.testing.assert_array_equal(decoded, grey.repeat(3, axis=2))


def yuv_to_rgb(y, u, v):
    """Convert as ITU-R BT.601 defines it, for luma of 16..235."""
    y, u, v = 1.164384 * (y - 16.0), u - 128.0, v - 128.0
    rgb = np.stack([y + 1.596027 * v, y - 0.391762 * u - 0.812968 * v, y + 2.017232 * u], axis=-1)
    return np.clip(rgb, 0, 255)


def random_planes(width, height, rows_per_chroma):
    """Return luma and chroma planes, and each chroma plane grown to the size of the luma."""
    y = RNG.integers(16, 236, (height, width), dtype=np.uint8)
    small = RNG.integers(0, 256, (2, height // rows_per_chroma, width // 2), dtype=np.uint8)
    grown = small.repeat(rows_per_chroma, axis=1).repeat(2, axis=2)
    return y, small, grown


@pytest.mark.parametrize('padding', [0, 1, 3])
@pytest.mark.parametrize('width, height', [(2, 1), (6, 5), (64, 49)])
def test_packed_yuv(width, height, padding):
    y, (u, v), grown = random_planes(width, height, 1)
    chroma = np.stack([u, v], axis=-1).reshape(height, width)
    for encoding, pixels in (
        ('yuv422', (chroma, y)), ('uyvy', (chroma, y)),
        ('yuv422_yuy2', (y, chroma)), ('yuyv', (y, chroma)),
    ):
        decoded = decode_image(pack(encoding, np.stack(pixels, axis=-1), padding))
        np.testing.assert_allclose(decoded, yuv_to_rgb(y, *grown), atol=1.5, err_msg=encoding)


@pytest.mark.parametrize('padding', [0, 1, 16])
@pytest.mark.parametrize('width, height', [(2, 2), (6, 4), (64, 48)])
def test_planar_yuv(width, height, padding):
    y, (u, v), grown = random_planes(width, height, 2)
    for encoding, planes in (('nv12', (u, v)), ('nv21', (v, u))):
        chroma = np.stack(planes, axis=-1).reshape(height // 2, width)
        message = pack(encoding, np.concatenate([y, chroma])[..., None], padding)
        message.height = height
        decoded = decode_image(message)
        np.testing.assert_allclose(decoded, yuv_to_rgb(y, *grown), atol=1.5, err_msg=encoding)


def mosaic_of(colour, pattern, width, height, dtype):
    pixels = np.zeros((height, width, 1), dtype)
    for index, letter in enumerate(pattern):
        pixels[index // 2::2, index % 2::2] = colour['rgb'.index(letter)]
    return pixels


@pytest.mark.parametrize('is_bigendian', [0, 1])
@pytest.mark.parametrize('pattern', ['rggb', 'bggr', 'gbrg', 'grbg'])
@pytest.mark.parametrize('width, height', [(4, 4), (5, 7), (64, 49)])
def test_bayer(width, height, pattern, is_bigendian):
    colour = (200, 100, 50)
    expected = np.full((height, width, 3), colour, np.uint8)
    for bits, dtype, scale in ((8, np.uint8, 1), (16, np.uint16, 257)):
        pixels = mosaic_of(np.array(colour) * scale, pattern, width, height, dtype)
        message = pack(f'bayer_{pattern}{bits}', pixels, 3, is_bigendian)
        np.testing.assert_array_equal(decode_image(message), expected)


def test_every_kind_of_buffer_is_taken():
    rgb = random_rgb(4, 3)
    message = pack('rgb8', rgb)
    for data in (
        bytearray(message.data), memoryview(message.data), array.array('B', message.data),
        np.frombuffer(message.data, np.uint8),
    ):
        message.data = data
        np.testing.assert_array_equal(decode_image(message), rgb)


def test_the_last_row_may_lack_its_padding():
    rgb = random_rgb(4, 3)
    message = pack('rgb8', rgb, padding=5)
    message.data = message.data[:-5]
    np.testing.assert_array_equal(decode_image(message), rgb)


def test_ros_messages_are_taken():
    messages = pytest.importorskip('sensor_msgs.msg', reason='sensor_msgs is not installed')
    rgb = random_rgb(8, 6)
    message = messages.Image(
        encoding='bgr8', width=8, height=6, step=24, data=rgb[..., ::-1].tobytes())
    np.testing.assert_array_equal(decode_image(message), rgb)
    png = cv2.imencode('.png', rgb[..., ::-1])[1].tobytes()
    message = messages.CompressedImage(format='png', data=png)
    np.testing.assert_array_equal(decode_compressed(message), rgb)


@pytest.mark.parametrize('message, text', [
    (image('16UC1', 2, 2, 4, bytes(8)), 'depth image; subscribe to the colour topic'),
    (image('32FC1', 2, 2, 8, bytes(16)), 'depth image; subscribe to the colour topic'),
    (image('jpeg', 2, 2, 6, bytes(12)), "unknown encoding 'jpeg'; known are .*rgb8.*nv12"),
    (image('', 2, 2, 6, bytes(12)), "unknown encoding ''"),
    (image('x' * 10000, 2, 2, 6, bytes(12)), "'x{40}'"),
    (image('rgb8', 0, 2, 6, bytes(12)), 'empty: 0x2'),
    (image('rgb8', 2, 0, 6, b''), 'empty: 2x0'),
    (image('rgb8', 2, 2, 5, bytes(12)), '2 pixels of rgb8 takes 6 bytes, but the step is 5'),
    (image('rgb8', 2, 2, 0, bytes(12)), 'the step is 0'),
    (image('rgb8', 2, 2, 7, bytes(12)), 'step of 7 takes 13 bytes, but the data has 12'),
    (image('rgb8', 2, 2, 6, b''), 'takes 12 bytes, but the data has 0'),
    (image('rgb8', 2, 2, 6, np.zeros(0, np.uint8)), 'takes 12 bytes, but the data has 0'),
    (image('rgb8', 2, 2, 2 ** 32 - 1, bytes(12)), 'takes 4294967301 bytes'),
    (image('rgb8', 2 ** 32 - 1, 2 ** 32 - 1, 2 ** 32 - 1, b''), 'megapixels; 64 are the limit'),
    (image('rgb8', 8000, 8000, 24000, bytes(99)), 'takes 192000000 bytes, but the data has 99'),
    (image('yuv422', 3, 2, 6, bytes(12)), 'a width that is a multiple of 2 .* not 3x2'),
    (image('nv12', 4, 3, 4, bytes(18)), 'a height that is a multiple of 2, not 4x3'),
    (image('nv12', 4, 4, 4, bytes(23)), 'takes 24 bytes, but the data has 23'),
    (image('bayer_rggb8', 2, 4, 2, bytes(8)), 'at least 3x3 pixels, not 2x4'),
    (image('rgb8', 2, 2, 6, None), 'not a run of bytes'),
])
def test_images_that_are_refused(message, text):
    with pytest.raises(ImageError, match=text):
        decode_image(message)


uint32 = st.one_of(st.integers(0, 12), st.integers(0, 2 ** 32 - 1))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    encoding=st.one_of(st.sampled_from(sorted(ENCODINGS)), st.text(max_size=12)),
    width=uint32, height=uint32, step=uint32, data=st.binary(max_size=400),
    is_bigendian=st.integers(0, 255))
def test_hostile_images(encoding, width, height, step, data, is_bigendian):
    message = image(encoding, width, height, step, data, is_bigendian)
    tracemalloc.start()
    try:
        decoded = decode_image(message)
    except ImageError as error:
        assert len(str(error)) < 600
    else:
        assert decoded.shape == (height, width, 3) and decoded.dtype == np.uint8
        assert width * height <= len(data)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 1_000_000


def smooth_rgb(width=64, height=48):
    """Return a picture that JPEG keeps nearly as it is."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    return (np.stack([200 * x, 200 * y, 255 - 200 * x], axis=-1)).astype(np.uint8)


def encode(extension, pixels, *params):
    ok, data = cv2.imencode(extension, pixels, params)
    assert ok
    return data.tobytes()


@pytest.mark.parametrize('message_format', [
    'jpeg', 'jpg', '', 'rgb8; jpeg compressed bgr8', 'bgr8; jpeg compressed bgr8',
    'rgba8; jpeg compressed bgr8', 'bayer_rggb8; jpeg compressed bgr8',
    'yuv422; jpeg compressed bgr8',
])
def test_colour_jpeg(message_format):
    rgb = smooth_rgb()
    data = encode('.jpg', rgb[..., ::-1], cv2.IMWRITE_JPEG_QUALITY, 98)
    decoded = decode_compressed(compressed(message_format, data))
    np.testing.assert_allclose(decoded.astype(int), rgb, atol=12)


def test_jpeg_of_an_rgb_publisher():
    rgb = smooth_rgb()
    data = encode('.jpg', rgb, cv2.IMWRITE_JPEG_QUALITY, 98)  # without the swap OpenCV expects
    decoded = decode_compressed(compressed('rgb8; jpeg compressed rgb8', data))
    np.testing.assert_allclose(decoded.astype(int), rgb, atol=12)


@pytest.mark.parametrize('message_format', [
    'png', 'rgb8; png compressed bgr8', 'bgr8; png compressed bgr8', 'rgba8; png compressed bgr8',
])
def test_colour_png(message_format):
    rgb = random_rgb(33, 21)
    data = encode('.png', rgb[..., ::-1])
    np.testing.assert_array_equal(decode_compressed(compressed(message_format, data)), rgb)


def test_png_with_alpha_and_of_16_bit():
    rgb = random_rgb(9, 5)
    data = encode('.png', with_alpha(rgb[..., ::-1]))
    np.testing.assert_array_equal(
        decode_compressed(compressed('bgra8; png compressed bgr8', data)), rgb)
    np.testing.assert_array_equal(
        decode_compressed(compressed('rgba8; png compressed ', data)), rgb)
    rgb = random_rgb(9, 5, bits=16)
    data = encode('.png', rgb[..., ::-1])
    np.testing.assert_array_equal(
        decode_compressed(compressed('rgb16; png compressed bgr16', data)), to_8_bit(rgb))
    data = encode('.png', with_alpha(rgb[..., ::-1]))
    np.testing.assert_array_equal(decode_compressed(compressed('png', data)), to_8_bit(rgb))


def test_compressed_grey():
    grey = random_rgb(9, 5)[..., 0]
    expected = np.stack([grey] * 3, axis=-1)
    for message_format in ('png', 'mono8; png compressed ', '8UC1; png compressed '):
        decoded = decode_compressed(compressed(message_format, encode('.png', grey)))
        np.testing.assert_array_equal(decoded, expected, message_format)
    wide = random_rgb(9, 5, bits=16)[..., 0]
    decoded = decode_compressed(compressed('mono16; png compressed ', encode('.png', wide)))
    np.testing.assert_array_equal(decoded, np.stack([to_8_bit(wide)] * 3, axis=-1))
    grey = smooth_rgb()[..., 0]
    for message_format in ('mono8; jpeg compressed mono8', 'bayer_rggb8; jpeg compressed mono8'):
        decoded = decode_compressed(compressed(message_format, encode('.jpg', grey)))
        np.testing.assert_allclose(decoded.astype(int), np.stack([grey] * 3, axis=-1), atol=6)


def test_png_of_a_mosaic():
    colour = (200, 100, 50)
    mosaic = mosaic_of(colour, 'gbrg', 8, 6, np.uint8)
    message = compressed('bayer_gbrg8; png compressed ', encode('.png', mosaic))
    np.testing.assert_array_equal(
        decode_compressed(message), np.full((6, 8, 3), colour, np.uint8))


def test_exif_orientation_is_ignored():
    rgb = smooth_rgb(64, 48)
    data = encode('.jpg', rgb[..., ::-1], cv2.IMWRITE_JPEG_QUALITY, 98)
    # One directory entry: orientation (0x0112), a short, 6 (rotated by a quarter).
    tiff = b'MM\0*\0\0\0\x08\0\x01' + struct.pack('>HHIHHI', 0x0112, 3, 1, 6, 0, 0)
    body = b'Exif\0\0' + tiff
    data = data[:2] + b'\xff\xe1' + struct.pack('>H', len(body) + 2) + body + data[2:]
    assert decode_compressed(compressed('jpeg', data)).shape == (48, 64, 3)


def comments(count):
    """Return JPEG segments that say nothing; each with a size that is not the picture's."""
    return b'\xff\xfe\x00\x0b\x08\xff\xff\xff\xff\x03abc' * count


@pytest.mark.parametrize('inserted', [
    b'\xff' * 5, comments(3), b'\xff\xc4\x00\x14\x00\x01' + bytes(15) + b'\x05', b'\xff\x01',
    b'noise'],
    ids=['fill bytes', 'comments', 'Huffman table', 'no length', 'noise'])
def test_what_may_stand_before_the_frame_of_a_jpeg(inserted):
    rgb = smooth_rgb()
    data = encode('.jpg', rgb[..., ::-1], cv2.IMWRITE_JPEG_QUALITY, 98)
    frame = data.index(b'\xff\xc0')
    decoded = decode_compressed(compressed('jpeg', data[:frame] + inserted + data[frame:]))
    np.testing.assert_allclose(decoded.astype(int), rgb, atol=12)


def test_progressive_jpeg():
    rgb = smooth_rgb()
    data = encode('.jpg', rgb[..., ::-1], cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    assert data.count(b'\xff\xda') > 1
    decoded = decode_compressed(compressed('jpeg', data))
    np.testing.assert_allclose(decoded.astype(int), rgb, atol=12)


def png_header(width, height):
    header = b'IHDR' + struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
    return (b'\x89PNG\r\n\x1a\n' + struct.pack('>I', 13) + header
            + struct.pack('>I', zlib.crc32(header)))


JPEG = encode('.jpg', smooth_rgb()[..., ::-1])
PNG = encode('.png', random_rgb(9, 5))
FRAME = JPEG.index(b'\xff\xc0')  # of the JPEG: FF C0, length, bits, height, width


def jpeg_of_declared_size(width, height):
    return JPEG[:FRAME + 5] + struct.pack('>HH', height, width) + JPEG[FRAME + 9:]


@pytest.mark.parametrize('message, text', [
    (compressed('jpeg', b''), r"format 'jpeg', 0 bytes, starting with nothing\) is neither"),
    (compressed('jpeg', np.zeros(0, np.uint8)), 'is neither JPEG nor PNG'),
    (compressed('h264', bytes(40)), "format 'h264', 40 bytes, .* is neither JPEG nor PNG"),
    (compressed('jpeg', None), 'not a run of bytes'),
    (compressed('16UC1; compressedDepth png', PNG), 'depth image; subscribe to the colour'),
    (compressed('16UC1; png compressed ', PNG), 'depth image; subscribe to the colour'),
    (compressed('32FC1; compressedDepth rvl', bytes(40)), 'depth image'),
    (compressed('mono16; compressedDepth png', PNG), 'depth image'),
    (compressed('jpeg', JPEG[:-2]), f'cut off after {len(JPEG) - 2} bytes'),
    (compressed('jpeg', JPEG[:-100]), 'cut off after'),
    (compressed('jpeg', JPEG[:FRAME + 4]), 'no frame header'),
    (compressed('jpeg', b'\xff\xd8' + b'\xff' * 100_000), 'no frame header'),
    (compressed('jpeg', JPEG[:2] + JPEG[-2:]), 'no frame header'),
    (compressed('jpeg', JPEG[:-80] + JPEG[-2:]), 'damaged .*premature end'),
    (compressed('jpeg', JPEG[:FRAME] + comments(1001) + JPEG[FRAME:]), 'no frame header'),
    (compressed('jpeg', jpeg_of_declared_size(65500, 65500)), 'megapixels; 64 are the limit'),
    (compressed('jpeg', jpeg_of_declared_size(0, 48)), 'empty: 0x48'),
    (compressed('jpeg', JPEG[:-2] + b'\xff\xda\0\2' * MAX_JPEG_SCANS + JPEG[-2:]), '100 scans'),
    (compressed('png', PNG[:-20]), 'cannot decode .* damaged'),
    (compressed('png', PNG[:20]), 'cut off after 20 bytes'),
    (compressed('png', png_header(60000, 60000)), '3600 megapixels; 64 are the limit'),
    (compressed('png', png_header(2 ** 31 - 1, 2 ** 31 - 1)), '64 are the limit'),
    (compressed('png', png_header(0, 7)), 'empty: 0x7'),
])
def test_compressed_images_that_are_refused(message, text):
    with pytest.raises(ImageError, match=text):
        decode_compressed(message)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    message_format=st.sampled_from(
        ['jpeg', 'png', 'rgb8; jpeg compressed bgr8', 'bayer_rggb8; png compressed ', ';']),
    original=st.sampled_from([JPEG, PNG, b'']),
    changes=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=8),
    length=st.integers(0, 2000), tail=st.binary(max_size=30))
def test_hostile_compressed_images(message_format, original, changes, length, tail):
    data = bytearray(original[:length] + tail)
    for position, value in changes:
        if position < len(data):
            data[position] = value
    try:
        decoded = decode_compressed(compressed(message_format, bytes(data)))
    except ImageError as error:
        assert len(str(error)) < 1000
    else:
        assert decoded.ndim == 3 and decoded.shape[2] == 3 and decoded.dtype == np.uint8


def test_the_documentation_lists_the_encodings():
    text = (Path(__file__).parent.parent / 'docs' / 'cameras.md').read_text()
    table = text.split('| encoding |')[1].split('\n\n')[0]
    rows = re.findall(r'^\| ([^|]*) \|', table, re.MULTILINE)
    assert sorted(re.findall('`(.*?)`', ' '.join(rows))) == sorted(ENCODINGS)


@pytest.mark.parametrize('encoding', [
    'rgb8', 'bgr8', 'rgba8', 'bgra8', 'rgb16', 'bgr16', 'mono8', 'mono16', 'yuv422',
    'yuv422_yuy2', 'bayer_rggb8', 'bayer_bggr8', 'bayer_gbrg8', 'bayer_grbg8', 'bayer_rggb16'])
def test_equal_to_cv_bridge(encoding):
    cv_bridge = pytest.importorskip('cv_bridge', reason='cv_bridge is not installed')
    messages = pytest.importorskip('sensor_msgs.msg', reason='sensor_msgs is not installed')
    row = ENCODINGS[encoding]
    pixels = RNG.integers(0, np.iinfo(row.dtype).max, (12, 16, row.channels)).astype(row.dtype)
    fields = vars(pack(encoding, pixels))
    message = messages.Image(**fields)
    expected = cv_bridge.CvBridge().imgmsg_to_cv2(message, 'rgb8')
    np.testing.assert_array_equal(decode_image(message), expected)
