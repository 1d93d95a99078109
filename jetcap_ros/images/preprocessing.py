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

"""From a camera's picture to the input of the encoder, the same in training and on the robot."""

import numpy as np

from .limits import SIZE

MEAN = np.array([0.485, 0.456, 0.406], np.float32)  # ImageNet, red green blue
STD = np.array([0.229, 0.224, 0.225], np.float32)
SCALE, SHIFT = 1 / (255 * STD), MEAN / STD


def squash(image: np.ndarray, size: int = SIZE) -> np.ndarray:
    """
    Resize to a square without keeping the aspect ratio, as the training pictures were.

    :param image: (H, W, 3) uint8, RGB.
    :return: (size, size, 3) uint8, contiguous.
    :raises ValueError: if the image is not of that form or is empty.
    """
    _check(image)
    if image.shape[:2] == (size, size):
        return np.ascontiguousarray(image)
    # The full model's worker gets frames of this size and never needs OpenCV.
    import cv2

    # Averaging the area keeps a shrunk picture free of aliasing.
    shrinks = min(image.shape[:2]) >= size
    return cv2.resize(
        image, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def jpeg_within(image: np.ndarray, side: int, max_bytes: int = 200_000) -> bytes:
    """
    Return an image as a JPEG file, shrunk until its longer side fits; the aspect is kept.

    :param image: (H, W, 3) uint8, RGB.
    :param side: of the JPEG at most, in pixels.
    :param max_bytes: of the file; where it would be larger, its quality is lowered, then its size.
    :raises ValueError: if the image is not of that form or is empty.
    """
    _check(image)
    import cv2

    picture = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    while True:
        scale = side / max(picture.shape[:2])
        if scale < 1:
            height, width = (max(1, round(scale * length)) for length in picture.shape[:2])
            picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
        for quality in (90, 75, 50):
            _, encoded = cv2.imencode('.jpg', picture, (cv2.IMWRITE_JPEG_QUALITY, quality))
            if len(encoded) <= max_bytes:
                return bytes(encoded)
        side = max(picture.shape[:2]) // 2


def _check(image: np.ndarray) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise ValueError(
            f'expected a (height, width, 3) uint8 image, got {image.shape} {image.dtype}')


def normalize(frame: np.ndarray) -> np.ndarray:
    """Return the encoder's input, (1, 3, H, W) float32, of an (H, W, 3) uint8 RGB frame."""
    image = np.empty((1, 3, *frame.shape[:2]), np.float32)
    for channel, plane in enumerate(image[0]):
        np.multiply(frame[..., channel], SCALE[channel], out=plane)
        plane -= SHIFT[channel]
    return image
