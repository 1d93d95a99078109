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

"""What can be wrong with a checkpoint, and how it is said."""

from collections.abc import Iterator
import contextlib

# Larger claims are refused before anything of their size is allocated.
MAX_PARAMETERS = 200_000_000
MAX_MESSAGE = 300  # characters: a message may quote the file


class CheckpointError(ValueError):
    """A checkpoint that is missing, damaged, foreign or not what was asked for."""


@contextlib.contextmanager
def reading(path: str) -> Iterator[None]:
    """Turn whatever can be wrong with a file into a CheckpointError of one line that names it."""
    try:
        yield
    except (ImportError, MemoryError):  # nothing the file is to blame for
        raise
    except Exception as error:
        text = str(error)
        if isinstance(error, OSError):
            text = f'cannot be read ({error.strerror or error})'
        elif not isinstance(error, CheckpointError):
            kind = '' if isinstance(error, ValueError) else f'{type(error).__name__}: '
            text = f'damaged or foreign ({kind}{text})'
        text = ''.join(c if c.isprintable() else ' ' for c in text[:MAX_MESSAGE])
        raise CheckpointError(f'{path}: {text}') from error
