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

"""Which of the captioned pictures are there and can be read."""

from collections.abc import Sequence
import os
import sys

from tqdm import tqdm

from .caption_files import CaptionedPicture
from ..errors import UserError
from ..images.picture import read_picture


def present_pictures(
        pictures: Sequence[CaptionedPicture], folder: str) -> list[CaptionedPicture]:
    """
    Return the pictures that are in the folder; how many others there are is told on stderr.

    :raises UserError: if most are not there.
    """
    if not os.path.isdir(folder):
        raise UserError(f'{folder}: no such folder of pictures')
    present, missing = [], []
    for picture in pictures:
        if os.path.isfile(os.path.join(folder, picture.file)):
            present.append(picture)
        else:
            missing.append(picture.file)
    if missing:
        text = (f'{len(missing)} of {len(pictures)} captioned pictures are not in {folder}, the '
                f'first: {", ".join(missing[:3])}')
        if len(present) < len(missing):
            raise UserError(f'{text}. Fetch them, or take them out of the caption file')
        print(f'{text}; they are left out', file=sys.stderr)
    return present


def readable_pictures(
        pictures: Sequence[CaptionedPicture], folder: str) -> list[CaptionedPicture]:
    """
    Return the pictures that can be read; each other one is told on stderr.

    :raises UserError: if most cannot.
    """
    readable = []
    for picture in tqdm(pictures, 'looking at the pictures', unit='pictures', leave=False):
        try:
            read_picture(os.path.join(folder, picture.file))
        except UserError as error:
            tqdm.write(f'{error}; it is left out', file=sys.stderr)
        else:
            readable.append(picture)
    if 2 * len(readable) < len(pictures):
        raise UserError(f'only {len(readable)} of {len(pictures)} pictures could be read')
    return readable
