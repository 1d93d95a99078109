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

"""Give back the pages of mapped libraries: code that ran once, while they were loaded."""

import ctypes
import re
import time

MADV_DONTNEED = 4
SHARED_MEMORY = '/dev/shm/'
REGION = re.compile(r'([0-9a-f]+)-([0-9a-f]+) (\S{4}) \S+ \S+ \d+ *(.*)')


def release_file_pages(apart_s: float = 0.0) -> None:
    """
    Give up the pages of shared libraries that this process has not changed.

    And those of memory that it shares with others, frames of the middleware's: they stay theirs.

    To import a framework reads hundreds of megabytes of its code, most of it once. What is used
    again comes back from the page cache at the cost of a fault; the rest is no longer held, while
    the kernel, under pressure, spares the code that a process has mapped longer than other pages.
    Without smaps (CONFIG_PROC_PAGE_MONITOR) nothing is given up.

    Between the look at a region and what is done with it, it must stay what it is. Where another
    thread may load a library just now, look twice, at what is the same both times.

    :param apart_s: between two looks; 0: one will do, since no other thread loads any.
    """
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    regions = _clean_regions()
    if apart_s:
        time.sleep(apart_s)
        regions = sorted({*regions} & {*_clean_regions()})
    for start, end in regions:
        madvise(start, end - start, MADV_DONTNEED)  # refused where pages are locked: they stay


def _clean_regions() -> list[tuple[int, int]]:
    """
    Return where files are mapped without any page of this process's own: libraries, shared memory.

    Such pages, relocated addresses above all, are in no file: they would be lost.
    """
    regions: list[tuple[int, int]] = []
    clean = False
    try:
        with open('/proc/self/smaps', encoding='utf-8', errors='replace') as smaps:
            for line in smaps:
                found = REGION.match(line)
                if found:
                    start, end, access, path = found.groups()
                    clean = access[3] == 's' and path.startswith(SHARED_MEMORY) or (
                        '.so' in path and 'w' not in access)
                    if clean:
                        regions.append((int(start, 16), int(end, 16)))
                elif clean and line.startswith(('Anonymous:', 'Swap:')) \
                        and line.split()[1] != '0':
                    regions.pop()
                    clean = False
    except OSError:
        return []
    return regions
