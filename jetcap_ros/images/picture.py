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

"""Reading picture files: whole ones of a bounded size, or an error that says why not."""

import os
from pathlib import Path
import re
from typing import Any

import cv2
import numpy as np

from .complaints import collect_damage
from .headers import HEADER_BYTES, is_picture, picture_size
from .limits import check_size, ImageError, MAX_BYTES
from ..errors import UserError

# Of a JPEG with a part overwritten coded pixels are left over.
_LEFT_OVER = re.compile(r'(\d+) extraneous bytes before marker 0xd9')
KINDS = 'JPEG, PNG, GIF, BMP, WebP, TIFF, PNM, JPEG 2000 and AVIF'


def read_picture(path: str | Path) -> np.ndarray:
    """
    Return the picture of a file as (H, W, 3) uint8 RGB, turned as its EXIF data say.

    :raises UserError: if it is missing, no picture, too large or damaged; names the file.
    """
    try:
        with open(path, 'rb') as file:
            size = os.fstat(file.fileno()).st_size  # 0 for a pipe
            data = file.read(min(size or MAX_BYTES, MAX_BYTES) + 1)
        if len(data) > MAX_BYTES:
            raise ImageError(f'it is larger than {MAX_BYTES >> 20} MB')
        pixels = decode_picture(data, cv2.IMREAD_COLOR)
    except OSError as error:
        raise UserError(f'{path}: {error.strerror}') from error
    except ValueError as error:
        raise UserError(f'{path}: {error}') from error
    image: np.ndarray = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    return image


def is_picture_file(path: Path) -> bool:
    """Return whether a file is a picture of a kind that can be read."""
    try:
        with path.open('rb') as file:
            return is_picture(file.read(HEADER_BYTES))
    except OSError:
        return False


def decode_picture(data: bytes, flags: int) -> Any:
    """
    Return the pixels of a picture file as `cv2.imdecode` gives them.

    :raises ImageError: if it is of no known kind, too large, cut off or damaged.
    """
    size = picture_size(data)
    if size is None:
        raise ImageError(f'it is no picture of a known kind; these are {KINDS}')
    check_size(*size)
    with collect_damage() as damage:
        try:
            pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        except cv2.error as error:
            raise ImageError(f'it cannot be decoded: {error}') from error
    damage = [line for line in damage if not _is_padding(line, data)]
    if pixels is None or damage:
        # OpenCV's own lines begin with a place in its sources.
        reason = damage[0].partition('error: ')[2] or damage[0] if damage else 'unknown reason'
        raise ImageError(f'it is damaged ({reason[:200]})')
    return pixels


def _is_padding(complaint: str, data: bytes) -> bool:
    """Say whether what is left over at the end of a JPEG is one value, with which some pad."""
    found = _LEFT_OVER.search(complaint)
    if not found:
        return False
    end = data.rfind(b'\xff\xd9')
    left_over = data[max(0, end - int(found[1])):end]
    return len(set(left_over)) <= 1
