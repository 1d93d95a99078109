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

"""Outputs are tried before the work begins: what fails after hours, or half way, is lost."""

import os
from pathlib import Path
import tempfile

from .errors import UserError


def require_folder(path: str | Path, option: str = '--out') -> None:
    """
    Make a folder, and see that files can be written to it.

    :raises UserError: if not; names the option.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path) as file:
            file.write(bytes(4096))
    except OSError as error:
        raise UserError(f'{option} {path}: {error.strerror}') from error


def require_file(path: str | Path, option: str = '--out') -> None:
    """
    See that a file can be written, in place of what is there; its folder must exist.

    :raises UserError: if not; names the option.
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(f'{option} {path}: it is a folder, expected the name of a file')
    if not path.parent.is_dir():
        raise UserError(f'{option} {path}: there is no folder {path.parent}')
    if path.exists() and not path.is_file():
        return  # a device or a pipe, which the caller wants written to
    if path.exists() and not os.access(path, os.W_OK):
        raise UserError(f'{option} {path}: it is read-only')
    require_folder(path.parent, f'{option} {path}: in')
