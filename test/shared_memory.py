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

"""The shared memory that Fast DDS leaves where a process is killed: 500 MB a run of these tests."""

import fcntl
from pathlib import Path

FOLDER = Path('/dev/shm')


def remove_orphans(since: float) -> None:
    """Remove the segments newer than a time whose process, which locks them, is gone."""
    for lock in FOLDER.glob('fastdds_*_el'):
        segment = lock.with_name(lock.name.removesuffix('_el'))
        try:
            if segment.stat().st_mtime < since:
                continue
            with open(lock) as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                segment.unlink()
                lock.unlink()
        except OSError:  # of a process that lives, or of another user
            pass
