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

"""The package on aarch64, emulated: Debian's arm64 packages under qemu; `make test-arm64`."""

import json
import os
from pathlib import Path
import subprocess
import sys

import numpy as np
import pytest

ROOT = os.environ.get('ARM64_ROOT', '')
pytestmark = [pytest.mark.timeout(3600), pytest.mark.skipif(
    not ROOT, reason='ARM64_ROOT names no unpacked arm64 packages: see make test-arm64')]
SOURCES = Path(__file__).parent.parent
LIBRARIES = ':'.join(f'/usr/lib/aarch64-linux-gnu/{name}' for name in ('blas', 'lapack'))
HERE = [sys.executable]
ARM64 = ['qemu-aarch64-static', '-L', ROOT, '-E', f'LD_LIBRARY_PATH={LIBRARIES}',
         f'{ROOT}/usr/bin/python3']
# No process of its own: one would not be emulated.
CAPTION = """
import json, platform, sys
from jetcap_ros.engine.lazy_loader import LazyModel
import numpy as np
lazy = LazyModel(name='simple', runtime='opencv', num_threads=1, reserve_memory_mb=0)
captions = {
    name: lazy.model.caption(pixels).text for name, pixels in np.load(sys.argv[1]).items()}
print(json.dumps({'machine': platform.machine(), 'facts': lazy.facts, 'captions': captions}))
"""
PACK = """
import sys
from jetcap_ros.engine.settings import SHIPPED_CHECKPOINT
from jetcap_ros.models.checkpoint import read_checkpoint, sha256
from jetcap_ros.models.packed import pack
floats, packed = sys.argv[1:]
pack(read_checkpoint(SHIPPED_CHECKPOINT), floats, 'none')
pack(read_checkpoint(floats), packed, 'int8')
print(sha256(floats), sha256(packed))
"""


def run(python, *arguments):
    """Return what a Python prints, run in the sources."""
    result = subprocess.run(
        [*python, *map(str, arguments)], cwd=SOURCES, text=True, capture_output=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_captions_are_those_of_this_machine(tmp_path):
    import skimage.data
    pictures = tmp_path / 'pictures.npz'
    np.savez(pictures, **{
        name: getattr(skimage.data, name)()
        for name in ('astronaut', 'cat', 'coffee', 'rocket')})
    here, there = (json.loads(run(python, '-c', CAPTION, pictures)) for python in (HERE, ARM64))
    print(there)
    assert there['machine'] == 'aarch64' != here['machine']
    assert there['captions'] == here['captions']
    assert all(len(text.split()) > 3 for text in here['captions'].values())


def test_packed_files_are_those_of_this_machine(tmp_path):
    hashes = [
        run(python, '-c', PACK, tmp_path / f'{name}.float', tmp_path / f'{name}.int8')
        for name, python in (('here', HERE), ('there', ARM64))]
    assert hashes[0] == hashes[1]


@pytest.mark.parametrize('name, chosen', [
    ('test_image_decoding.py', ''),
    # But for those that start processes, which would not be emulated.
    ('test_memory_utils.py', 'recorded or readings or check or this_machine'),
    ('test_runtimes.py', 'products'),
])
def test_files_of_tests(name, chosen):
    printed = run(ARM64, '-m', 'pytest', '-p', 'no:cacheprovider', '-q', '-k', chosen,
                  f'test/{name}')
    print(printed)
    assert ' passed' in printed
