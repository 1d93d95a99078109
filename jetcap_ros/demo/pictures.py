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

"""The pictures of the demonstration: photographs of scikit-image, or those of a folder."""

from dataclasses import dataclass
import importlib.util
from pathlib import Path

import cv2
import numpy as np

from ..errors import UserError
from ..images.picture import is_picture_file, KINDS, read_picture

CAMERA_SIZE = (640, 480)  # larger pictures are made to fit, as a camera would have them

# Photographs that scikit-image installs, and whose they are.
PHOTOGRAPHS = {
    'astronaut.png': 'Eileen Collins. NASA, public domain',
    'chelsea.png': 'Chelsea the cat. Stéfan van der Walt, CC0',
    'coffee.png': 'Rachel Michetti, Pikolo Espresso Bar, CC0',
    'rocket.jpg': 'DSCOVR on Falcon 9. SpaceX, public domain',
    'camera.png': 'Lav Varshney, CC0',
    'motorcycle_left.png': 'Middlebury stereo data 2014, Scharstein et al.',
}


@dataclass(frozen=True)
class Picture:
    """A picture file and whose it is, '' where nobody said."""

    path: Path
    credit: str = ''

    @property
    def name(self) -> str:
        """The file's name as messages and pages can hold it: undecodable bytes are escaped."""
        return self.path.name.encode('utf-8', 'backslashreplace').decode()


def find_pictures(folder: Path | None) -> list[Picture]:
    """
    Return the pictures of a folder, by name; without a folder, scikit-image's photographs.

    :raises UserError: if there are none.
    """
    if folder is None:
        spec = importlib.util.find_spec('skimage')  # found, not imported
        if spec is None or spec.origin is None:
            raise UserError(
                'the photographs come with scikit-image: pip install scikit-image, or give your '
                'own with --images FOLDER')
        data = Path(spec.origin).parent / 'data'
        pictures = [Picture(data / name, credit) for name, credit in PHOTOGRAPHS.items()]
        pictures = [picture for picture in pictures if picture.path.is_file()]
        if not pictures:
            raise UserError(f'no photographs in {data}: give your own with --images FOLDER')
        return pictures
    if not folder.is_dir():
        raise UserError(f'{folder}: no such folder')
    files = sorted(path for path in folder.iterdir() if path.is_file())
    pictures = [Picture(path) for path in files if is_picture_file(path)]
    if not pictures:
        raise UserError(f'{folder}: no pictures among {len(files)} files, expected {KINDS}')
    return pictures


def picture_for_camera(path: Path) -> np.ndarray:
    """
    Return a picture as (H, W, 3) uint8 RGB, made to fit CAMERA_SIZE.

    :raises UserError: if it cannot be read.
    """
    image = read_picture(path)
    height, width = image.shape[:2]
    scale = min(CAMERA_SIZE[0] / width, CAMERA_SIZE[1] / height)
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        return cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return image
