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

"""Test that pages of mapped files are given up, and nothing with them."""

import ctypes
import mmap
import subprocess
import sys
import tempfile
import textwrap

from jetcap_ros.memory import file_pages

PROT_READ = 1


def test_libraries_give_up_their_code_and_work_on():
    code = textwrap.dedent("""
        import cv2, json, numpy, sqlite3
        from jetcap_ros.memory.file_pages import release_file_pages
        from jetcap_ros.memory.memory_utils import process_memory

        def work():
            image = numpy.arange(30000, dtype=numpy.uint8).reshape(100, 100, 3)
            return cv2.resize(image, (7, 9)).tolist(), (image[0].T @ image[0]).tolist()

        def of_files_mb():
            memory = process_memory()
            return memory.rss_mb - memory.anonymous_mb

        before, result = of_files_mb(), work()
        release_file_pages()
        after = of_files_mb()
        assert work() == result
        print(json.dumps([before, after]))
    """)
    # A process of its own: others' pages would be gone for what these tests measure.
    out = subprocess.run([sys.executable, '-c', code], check=True, capture_output=True, text=True)
    before, after = map(float, out.stdout.strip('[]\n').split(','))
    assert after < before / 2


def test_pages_that_were_written_stay(tmp_path):
    path = tmp_path / 'library.so'
    path.write_bytes(b'a' * 3 * mmap.PAGESIZE)
    with open(path, 'rb') as file:
        mapped = mmap.mmap(
            file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    mapped[0] = ord('b')  # as the loader writes addresses, before it makes them read-only
    start = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
    mprotect = ctypes.CDLL(None).mprotect
    mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    assert mprotect(start, len(mapped), PROT_READ) == 0
    file_pages.release_file_pages()
    assert mapped[:2] == b'ba'


def test_shared_memory_is_still_there():
    with tempfile.TemporaryFile(dir='/dev/shm') as file:
        file.truncate(3 * mmap.PAGESIZE)
        mapped = mmap.mmap(file.fileno(), 0)
        mapped[:2] = b'ab'
        start = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
        assert start in [first for first, _ in file_pages._clean_regions()]
        file_pages.release_file_pages()
        assert mapped[:2] == b'ab'


def test_without_smaps_nothing_is_given_up(monkeypatch):
    def refuse(*args, **options):
        raise PermissionError
    monkeypatch.setattr(file_pages, 'open', refuse, raising=False)
    assert file_pages._clean_regions() == []
    file_pages.release_file_pages()
