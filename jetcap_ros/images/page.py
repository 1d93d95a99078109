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
Pages that are one file: no network, no script library, pictures embedded.

    picture = data_uri(thumbnail(image))                   # image: (H, W, 3) uint8 RGB
    page = render_page('What the camera saw', TEMPLATE, captions=[(picture, 'a cat on a sofa')])
    path.write_text(page, encoding='utf-8')

TEMPLATE is the Jinja2 source of the page's body. Values are escaped as they are inserted; an
undefined name is an error. The layout (`page.html`, light and dark, wide and narrow) styles plain
elements and a few classes:

    <p class="lead">                   the sentence under the title
    <dl class="figures">               key figures: <div><dt>name</dt><dd>value</dd></div>
    <div class="gallery">              a grid of <figure><img><figcaption>text <small>note</small>
    <span class="badge warn">          a small label; without `warn` it is neutral
    <div class="scroll"><table>        a table that scrolls sideways where it does not fit

A page with more to style puts its own <style> at the start of the body.
"""

import base64
import pathlib
from typing import Any

import cv2
import jinja2
import numpy as np

_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent), autoescape=True,
    undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def thumbnail(image: np.ndarray, width: int = 320) -> bytes:
    """
    Return a JPEG file of an image, no wider than `width` pixels, its aspect ratio kept.

    :param image: (H, W, 3) uint8, RGB.
    """
    scale = min(1.0, width / image.shape[1])
    size = (round(image.shape[1] * scale), max(1, round(image.shape[0] * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    _, jpeg = cv2.imencode(
        '.jpg', cv2.cvtColor(small, cv2.COLOR_RGB2BGR), (cv2.IMWRITE_JPEG_QUALITY, 78))
    return jpeg.tobytes()


def data_uri(jpeg: bytes) -> str:
    """Return a JPEG file as the `src` of an <img>."""
    return 'data:image/jpeg;base64,' + base64.b64encode(jpeg).decode('ascii')


def render_page(title: str, template: str, **values: Any) -> str:
    """
    Return a whole HTML page.

    :param title: plain text, the page's title and its <h1>.
    :param template: Jinja2 source of the body below the heading; `values` are its variables.
    """
    body = _ENVIRONMENT.from_string(template).render(**values)
    return _ENVIRONMENT.get_template('page.html').render(title=title, body=body)
