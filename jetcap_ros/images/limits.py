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

"""How large a picture may be, and what is said of one that cannot be used."""

MAX_PIXELS = 64_000_000
# Of a picture in a file or a message: 8 bytes a pixel are the most, and some for its header.
MAX_BYTES = 8 * MAX_PIXELS + (1 << 20)
# Both sides, in pixels, of what an encoder sees: where its checkpoint does not say another size, at
# most, and of what a cell of its features stands for.
SIZE, MAX_SIZE, STRIDE = 224, 352, 32


class ImageError(ValueError):
    """What holds no usable colour or grey picture; the text says why."""


def check_size(width: int, height: int) -> None:
    """Raise ImageError if a picture of that size, in pixels, is empty or too large."""
    if width <= 0 or height <= 0:
        raise ImageError(f'the image is empty: {width}x{height}')
    if width * height > MAX_PIXELS:
        raise ImageError(
            f'{width}x{height} is {width * height / 1e6:.0f} megapixels; '
            f'{MAX_PIXELS / 1e6:.0f} are the limit')


def check_input_size(size: object) -> int:
    """Return the size of what an encoder sees, or raise ValueError if it cannot be one."""
    if type(size) is not int or size % STRIDE or not STRIDE <= size <= MAX_SIZE:
        raise ValueError(
            f'image_size is {size!r}, expected a multiple of {STRIDE} up to {MAX_SIZE}')
    return size
