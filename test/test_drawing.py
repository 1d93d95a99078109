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

"""A drawn caption keeps the picture's size, stays inside it and changes nothing else."""

from hypothesis import given, settings, strategies as st
from jetcap_ros.images import drawing
from jetcap_ros.images.drawing import BAND_BRIGHTNESS, BAND_SHARE, draw_caption
import numpy as np
import pytest

SHORT = 'a brown dog is running through the grass'
LONG = SHORT + ' with a red ball in its mouth while two children watch from a wooden bench'
SIZES = [(64, 48), (160, 120), (320, 240), (640, 480), (1920, 1080), (480, 640), (600, 60)]


def black(width, height):
    return np.zeros((height, width, 3), np.uint8)


def white(width, height):
    return np.full((height, width, 3), 255, np.uint8)


def ink(width, height, text):
    """Return where the letters are: on black, they alone show."""
    return draw_caption(black(width, height), text).any(axis=2)


def band_top(width, height, text):
    """Return the first row of the band: on white, it alone is darker."""
    changed = (draw_caption(white(width, height), text) != 255).any(axis=(1, 2))
    return int(np.argmax(changed)) if changed.any() else height


@pytest.mark.parametrize('text', [SHORT, LONG])
@pytest.mark.parametrize('width, height', SIZES)
def test_the_text_is_inside_the_band_and_only_the_band_changes(width, height, text):
    image = np.random.default_rng(3).integers(0, 256, (height, width, 3), dtype=np.uint8)
    original = image.copy()
    drawn = draw_caption(image, text)
    assert drawn.shape == image.shape and drawn.dtype == np.uint8
    np.testing.assert_array_equal(image, original)

    top = band_top(width, height, text)
    np.testing.assert_array_equal(drawn[:top], image[:top])
    letters = ink(width, height, text)
    assert letters.any()
    assert not letters[:top + 1].any() and not letters[-1].any()
    assert not letters[:, 0].any() and not letters[:, -1].any()


@pytest.mark.parametrize('width, height', SIZES)
def test_letters_stand_out_and_grow_with_the_picture(width, height):
    drawn = draw_caption(white(width, height), SHORT)
    top = band_top(width, height, SHORT)
    assert drawn[top:].max() > 240
    assert np.median(drawn[top:]) == pytest.approx(255 * BAND_BRIGHTNESS, abs=1)
    one_line = ink(width, height, 'a dog').any(axis=1).sum()
    assert one_line >= max(min(height / 480, width / 640) * 14, 7)


def test_a_usual_caption_leaves_most_of_the_picture():
    for width, height in ((160, 120), (320, 240), (640, 480), (1280, 720), (480, 640)):
        assert band_top(width, height, LONG) >= height * (1 - BAND_SHARE)


def test_a_longer_caption_takes_more_lines():
    assert band_top(640, 480, LONG) < band_top(640, 480, SHORT)
    lines = ink(640, 480, LONG).any(axis=1)
    assert np.count_nonzero(np.diff(lines.astype(int)) == 1) >= 2


def test_what_cannot_fit_is_cut_off_with_dots():
    letters = ink(160, 120, 'dog ' * 200)
    assert letters.any() and not letters[[0, -1]].any() and not letters[:, [0, -1]].any()
    np.testing.assert_array_equal(letters, ink(160, 120, 'dog ' * 400))
    lines, _ = drawing._fit('dog ' * 200, 160, 120)
    assert lines[-1].endswith('dog...')


def test_a_word_wider_than_the_picture_is_broken():
    letters = ink(160, 120, 'w' * 60)
    assert letters.any() and not letters[:, [0, -1]].any()


def test_letters_outside_ascii():
    image = black(320, 240)
    for text, shown_as in (
        ('un caf\u00e9 \u00e0 No\u00ebl', 'un cafe a Noel'), ('\u732b sits', '? sits'),
        ('a dog\non\ta\u00a0mat', 'a dog on a mat'), ('nul\0', 'nul?'), ('\ud800', '?'),
    ):
        np.testing.assert_array_equal(draw_caption(image, text), draw_caption(image, shown_as))


def test_nothing_is_drawn_for_an_empty_caption_or_into_a_tiny_picture():
    for width, height, text in ((320, 240, ''), (320, 240, ' \n'), (1, 1, SHORT), (9, 9, SHORT)):
        image = white(width, height)
        np.testing.assert_array_equal(draw_caption(image, text), image)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    width=st.integers(1, 300), height=st.integers(1, 300), text=st.text(max_size=120),
    cells=st.one_of(st.none(), st.lists(st.floats(0, 1e30), min_size=4, max_size=4)))
def test_any_size_and_any_text(width, height, text, cells):
    attention = None if cells is None else np.reshape(cells, (2, 2))
    image = black(width, height)
    drawn = draw_caption(image, text, attention)
    assert drawn.shape == image.shape and drawn.dtype == np.uint8
    if attention is None:
        assert not drawn[:, [0, -1]].any() and not drawn[-1].any()


def test_attention_heats_the_place_looked_at():
    attention = np.zeros((7, 7))
    attention[1, 5] = 0.5
    for image in (black(140, 140), np.full((140, 140, 3), 128, np.uint8)):
        drawn = draw_caption(image, '', attention)
        change = np.abs(drawn.astype(int) - image).sum(axis=2)
        row, column = np.unravel_index(change.argmax(), change.shape)
        assert (row // 20, column // 20) == (1, 5)
        # The linear growth of a cell reaches to the middle of its neighbours.
        change[10:50, 90:130] = 0
        assert change.max() <= 1  # rounding
    red, green, blue = draw_caption(black(140, 140), '', attention)[30, 110]
    assert red > 100 and blue < 20


def test_attention_that_looked_nowhere_changes_nothing():
    image = np.random.default_rng(3).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    np.testing.assert_array_equal(draw_caption(image, '', np.zeros((7, 7))), image)


@pytest.mark.parametrize('attention', [
    [0.5] * 7, np.full((7, 7), np.nan), np.full((7, 7), -1.0), np.zeros((0, 7)),
    np.full((7, 7), np.inf)])
def test_attention_that_is_no_grid_of_weights_is_refused(attention):
    with pytest.raises(ValueError, match='attention must be a grid'):
        draw_caption(black(64, 48), SHORT, attention)
