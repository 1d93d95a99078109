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

"""Pressure as the kernel counts it: all that run wait for memory, though there is enough."""

import subprocess
import sys
import tempfile
import time
import uuid

from diagnostic_msgs.msg import DiagnosticStatus
from jetcap_ros.benchmark.cgroup import CgroupUnavailable, JOIN, MemoryCgroup
from jetcap_ros.memory.memory_utils import find_cgroups, V1
from node_process import image_message, NodeProcess
import pytest

pytestmark = pytest.mark.measures  # and keeps the disk busy
# Reads a file again and again that is larger than what it may hold of it.
THRASHER = """
import mmap, os, sys
with open(sys.argv[1], 'wb') as file:
    for _ in range(64):
        file.write(os.urandom(1 << 20))
    os.fsync(file.fileno())
with open(sys.argv[1], 'rb') as file:
    pages = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
while True:
    for start in range(0, len(pages), 4096):
        pages[start]
"""


@pytest.fixture
def robot():
    """Return a cgroup that limits nothing, and whose pressure the kernel counts by itself."""
    cgroups = find_cgroups('/')
    if cgroups.unified is None or cgroups.files is not V1:
        # With v2 alone the one that thrashes would need a cgroup below that of the node.
        pytest.skip('needs the memory controller of cgroup v1, and v2 for the pressure')
    group = cgroups.unified / f'jetcap-{uuid.uuid4().hex[:8]}'
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f'no real cgroup here: cannot make {group}: {error.strerror}')
    try:
        if not (group / 'memory.pressure').exists():
            pytest.skip('this kernel counts no pressure')
        yield group
        deadline = time.monotonic() + 10
        while (group / 'cgroup.procs').read_text():  # a worker that is about to end
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        group.rmdir()


@pytest.fixture
def narrow():
    """Return a memory cgroup in which the thrasher finds no room."""
    try:
        group = MemoryCgroup(24)
    except CgroupUnavailable as error:
        pytest.skip(f'no real memory cgroup here: {error}')
    with group:
        yield group


@pytest.mark.needs('torch')
def test_a_robot_that_waits_for_memory_gets_that_of_the_full_model(
        robot, narrow, photograph):
    join = ['/bin/sh', '-c', JOIN, str(robot / 'cgroup.procs')]
    with NodeProcess({'max_rate_hz': 0.0}, prefix=join) as node, \
            tempfile.NamedTemporaryFile(dir='/var/tmp') as file:  # /tmp may be memory
        assert node.change('configure') and node.change('activate')
        camera = node.camera()

        def caption_until(model):
            deadline = time.monotonic() + 60
            while node.next_caption(camera, image_message(photograph))['model'] != model:
                assert time.monotonic() < deadline, node.output()
                time.sleep(0.5)

        caption_until('mobilenet')
        thrasher = subprocess.Popen(
            [*join, *narrow.command([sys.executable, '-c', THRASHER, file.name])])
        try:
            caption_until('simple')
            assert thrasher.poll() is None and narrow.oom_kills == 0
        finally:
            thrasher.kill()
            thrasher.wait()
        status = node.status('the simple model captions instead')
        assert status.level == DiagnosticStatus.WARN
        assert 'all processes waited for memory' in status.message
        caption_until('mobilenet')
