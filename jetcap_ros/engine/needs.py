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
What stages of loading a model were seen to need on this machine, where it is more than assumed.

Kept between runs in ~/.ros/jetcap_ros/needs.json (ROS_HOME, where it is set): by model and stage
the MB, what grows with the checkpoint not counted. `jetcap plan --measure` writes it.
"""

import functools
import json
import math
import os
from pathlib import Path
from typing import Any
import warnings

from ..errors import UserError


def needs_file() -> Path:
    """Return where needs are remembered."""
    home = os.environ.get('ROS_HOME') or '~/.ros'
    return Path(home).expanduser() / 'jetcap_ros' / 'needs.json'


def remembered_mb(model: str, stage: str) -> float:
    """Return what a stage was seen to need, 0 if nothing is remembered of it."""
    return _read(needs_file()).get(model, {}).get(stage, 0.0)


def remember(model: str, needs: dict[str, float]) -> Path:
    """
    Keep what stages need from now on; return the file.

    :raises UserError: if it cannot be written.
    """
    path = needs_file()
    table = {**_read(path)}
    table[model] = {**table.get(model, {}), **needs}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix('.new')
        new.write_text(json.dumps(table, indent=2) + '\n', encoding='utf-8')
        new.replace(path)
    except OSError as error:
        raise UserError(f'{path}: cannot be written: {error.strerror}') from error
    _read.cache_clear()
    return path


@functools.lru_cache(maxsize=None)
def _read(path: Path) -> dict[str, dict[str, float]]:
    try:
        table: Any = json.loads(path.read_text(encoding='utf-8'))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        warnings.warn(f'{path} is not used: {error}; delete it, or measure anew', stacklevel=2)
        return {}
    if isinstance(table, dict) and all(
            isinstance(needs, dict) and all(_is_size(mb) for mb in needs.values())
            for needs in table.values()):
        return table
    warnings.warn(
        f'{path} is not used: not a table of MB by model and stage; delete it, or measure anew',
        stacklevel=2)
    return {}


def _is_size(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and value >= 0
