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
What the libraries that decode pictures complain of.

They give back a picture however much of it is missing, grey where nothing was left, and tell so on
standard error only.
"""

from collections.abc import Iterator
import contextlib
import os
import re
import threading

# Held while standard error is turned aside: a process that is started then would inherit that.
standard_error = threading.Lock()

# The last is how OpenCV 4.5 has it.
_DAMAGE = ('Corrupt JPEG', 'Premature end of JPEG', 'Inconsistent progression', 'libpng error',
           '[ERROR:', "imdecode_('")
_DECODERS = (*_DAMAGE, 'Invalid SOS parameters', 'libpng ', '[ WARN:')
# Cameras pad their headers; between scans a part is missing, and at the end it may be.
_HARMLESS = re.compile('extraneous bytes before marker 0x(?!c4|d9|da)')


@contextlib.contextmanager
def collect_damage() -> Iterator[list[str]]:
    """Give a list that, once left, holds the lines that tell of damage; others are passed on."""
    damage: list[str] = []
    with standard_error:
        try:
            kept = os.dup(2)
        except OSError:  # it is closed
            yield damage
            return
        aside = os.memfd_create('complaints')
        os.dup2(aside, 2)
        try:
            yield damage
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            text = os.pread(aside, 1 << 16, 0).decode('utf-8', 'replace')
            os.close(aside)
    others = ''
    for line in text.splitlines(keepends=True):
        if line.startswith(_DAMAGE) and not _HARMLESS.search(line):
            damage.append(line.strip())
        elif line.strip() and not line.startswith(_DECODERS) and not (
                damage and line.startswith(('> ', '  '))):  # OpenCV goes on so
            others += line
    if others:
        os.write(2, others.encode('utf-8'))
