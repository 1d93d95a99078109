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

"""Draws a caption, and where the model looked for it, into a picture."""

import math
import textwrap
import unicodedata

import cv2
import numpy as np

FONT = cv2.FONT_HERSHEY_SIMPLEX  # has ASCII only, but is the same in every OpenCV
LARGE_SCALE = 0.75  # of the font, for a picture of 640x480: letters 16 pixels high
SMALLEST_SCALE = 0.3  # letters 6 pixels high; below that nobody can read them
BAND_SHARE = 0.4  # of the height of the picture, as long as readable letters allow it
BAND_BRIGHTNESS = 0.3  # what the band leaves of the picture behind the text
HEAT_OPACITY = 0.6  # where attention is highest


def draw_caption(
        image: np.ndarray, text: str, attention: np.ndarray | None = None) -> np.ndarray:
    """
    Draw a caption on a darkened band along the lower edge.

    Letters grow with the picture; a long caption is wrapped, then set smaller, then cut off
    with '...'. Letters outside ASCII lose their accents or become '?'.

    :param image: (H, W, 3) uint8, RGB; it is left as it is.
    :param text: the caption; nothing is drawn for an empty one.
    :param attention: (rows, columns) floats of at least 0, laid over the picture as a heat map
        with its highest value as the hottest.
    :return: a new image of the same size.
    :raises ValueError: if the attention is not a grid of finite numbers of at least 0.
    """
    image = image.copy() if attention is None else _lay_heat_over(image, attention)
    lines, scale = _fit(_to_ascii(text), image.shape[1], image.shape[0])
    if not lines:
        return image
    thickness = _thickness(scale)
    line_height, margin = _line_height(scale), _margin(scale)
    top = image.shape[0] - _band_height(len(lines), scale)
    band = image[top:]
    band[:] = cv2.convertScaleAbs(band, alpha=BAND_BRIGHTNESS)
    for number, line in enumerate(lines):
        (width, height), _ = cv2.getTextSize(line, FONT, scale, thickness)
        baseline = top + margin + number * line_height + height
        left = (image.shape[1] - width) // 2
        cv2.putText(
            image, line, (left, baseline), FONT, scale, (255, 255, 255), thickness, cv2.LINE_AA)
    return image


def _lay_heat_over(image: np.ndarray, attention: np.ndarray) -> np.ndarray:
    """Blend the heat map in; the cells are coloured while few, then grown to the picture."""
    grid = np.asarray(attention, np.float32)
    if grid.ndim != 2 or not grid.size or not np.isfinite(grid).all() or grid.min() < 0:
        raise ValueError(f'attention must be a grid of finite numbers of at least 0, not {grid}')
    heat = grid / max(grid.max(), np.finfo(np.float32).tiny)
    colours = cv2.cvtColor(
        cv2.applyColorMap((255 * heat).astype(np.uint8), cv2.COLORMAP_AUTUMN), cv2.COLOR_BGR2RGB)
    opacity = (HEAT_OPACITY * heat)[..., None].repeat(3, axis=2)
    size = image.shape[1::-1]
    kept = cv2.resize((255 * (1 - opacity)).astype(np.uint8), size)
    added = cv2.resize((colours * opacity).astype(np.uint8), size)
    return cv2.add(cv2.multiply(image, kept, scale=1 / 255), added)


def _fit(text: str, width: int, height: int) -> tuple[list[str], float]:
    """Return the lines of the text and the scale of the font at which they fit the picture."""
    scale = max(LARGE_SCALE * min(width / 640, height / 480), SMALLEST_SCALE)
    while True:
        usable_width = width - 2 * _margin(scale)
        lines = _wrap(text, usable_width, scale)
        if _band_height(len(lines), scale) <= height * BAND_SHARE or scale == SMALLEST_SCALE:
            break
        scale = max(scale * 0.9, SMALLEST_SCALE)
    max_lines = max((height - 2 * _margin(scale)) // _line_height(scale), 0)
    if len(lines) > max_lines:
        lines = _wrap(text, usable_width, scale, max_lines)
    return lines, scale


def _wrap(
        text: str, usable_width: int, scale: float, max_lines: int | None = None) -> list[str]:
    """Break the text into the widest lines that fit; none if not even short ones do."""
    if max_lines == 0:
        return []
    thickness = _thickness(scale)
    (widest_letter, _), _ = cv2.getTextSize('m', FONT, scale, thickness)
    # From far too many letters to as many as always fit.
    for columns in range(4 * usable_width // widest_letter, 3, -1):
        lines = textwrap.wrap(text, columns, max_lines=max_lines, placeholder='...')
        if all(cv2.getTextSize(line, FONT, scale, thickness)[0][0] <= usable_width
               for line in lines):
            return lines
    return []


def _to_ascii(text: str) -> str:
    """Return the text without accents, with '?' for what has no ASCII letter."""
    decomposed = unicodedata.normalize('NFKD', ' '.join(text.split()))
    letters = ''.join(letter for letter in decomposed if not unicodedata.combining(letter))
    return ''.join(letter if ' ' <= letter <= '~' else '?' for letter in letters)


def _thickness(scale: float) -> int:
    return max(round(2 * scale), 1)


def _line_height(scale: float) -> int:
    (_, height), below_baseline = cv2.getTextSize('Ag', FONT, scale, _thickness(scale))
    return height + below_baseline + _margin(scale) // 4


def _margin(scale: float) -> int:
    return math.ceil(8 * scale)


def _band_height(lines: int, scale: float) -> int:
    return lines * _line_height(scale) + 2 * _margin(scale) if lines else 0
