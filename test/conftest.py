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

"""Fixtures that several tests share, and what is skipped where a library is missing."""

import gc
import importlib.util
import os
from pathlib import Path
import signal
import sys
import time

from jetcap_ros.node.domain import reserve_domain
import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
from shared_memory import remove_orphans  # noqa: E402, from the folder of the line above
STARTED = time.time()
# Before rclpy is loaded: nothing that runs beside the tests shall hear them, or be heard.
os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
DOMAIN, RESERVED = reserve_domain()
os.environ['ROS_DOMAIN_ID'] = str(DOMAIN)
# Threads that wait for each other on a busy machine cost more than they bring.
os.environ.setdefault('OMP_NUM_THREADS', '1')
# Every process that a test starts would compile the whole package anew.
os.environ.pop('PYTHONDONTWRITEBYTECODE', None)
sys.dont_write_bytecode = False
# What a script runs in the background ignores SIGINT, and hands that on to all it starts.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A robot may lack them; what imports them is skipped there, each file by itself.
NEEDED = {
    'pycocoevalcap': ['test_evaluate.py'],
    'rclpy': ['test_camera_watch.py', 'test_caption_info.py', 'test_demo.py', 'test_executor.py',
              'test_launch.py', 'test_lazy.py', 'test_managers.py', 'test_node.py',
              'test_outputs.py', 'test_parameters.py', 'test_plan.py', 'test_pressure.py',
              'test_reliability.py', 'test_replay_dds.py', 'test_server_node.py',
              'test_sleep_and_swap.py', 'test_start.py'],
    'rosbags': ['test_replay.py', 'test_replay_bag.py', 'test_replay_damage.py',
                'test_replay_dds.py', 'test_replay_report.py'],
    'torch': ['test_checkpoints.py', 'test_encoders.py', 'test_evaluate.py',
              'test_hostile_checkpoints.py', 'test_models.py', 'test_training.py'],
    'torchvision': ['test_checkpoints.py', 'test_encoders.py', 'test_hostile_checkpoints.py',
                    'test_models.py']}

SLOW = ('test_benchmark.py', 'test_crashes.py', 'test_node.py', 'test_reliability.py',
        'test_replay.py', 'test_training.py')


class TestFile(pytest.Module):
    """A test file; its tests are not even imported where a library is missing."""

    def collect(self):
        """Return the tests, or skip the file."""
        for library, files in NEEDED.items():
            if self.path.name in files and importlib.util.find_spec(library) is None:
                pytest.skip(f'{library} is not installed', allow_module_level=True)
        return super().collect()


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makemodule(module_path, parent):
    """Collect without launch_testing, which imports each file: a skip there ends it all."""
    return TestFile.from_parent(parent, path=module_path)


def pytest_collection_modifyitems(items):
    """Begin with the files that take longest, so that none is left over at the end."""
    items.sort(key=lambda item: item.path.name not in SLOW)


def pytest_collection_finish():
    """Have garbage collections, which models ask for, pass over torch and all that is loaded."""
    gc.collect()
    gc.freeze()


def pytest_make_parametrize_id(val, argname):
    """Name tests in short lines: at one of 64 kB, colcon reads no further and waits for ever."""
    return argname if isinstance(val, (str, bytes)) and len(val) > 200 else None


def pytest_runtest_setup(item):
    """Skip a test whose mark names a library that is missing."""
    for mark in item.iter_markers('needs'):
        if importlib.util.find_spec(mark.args[0]) is None:
            pytest.skip(f'{mark.args[0]} is not installed')


def pytest_sessionfinish(session, exitstatus):
    """Fail where nothing ran: to colcon, pytest's own exit code for that is success."""
    if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
        session.exitstatus = pytest.ExitCode.USAGE_ERROR


def pytest_unconfigure(config):
    """Give back what killed processes left in shared memory: once, after all of xdist's workers."""
    if not hasattr(config, 'workerinput'):
        remove_orphans(STARTED)


@pytest.fixture(scope='module', autouse=True)
def environment():
    """Undo what a module's tests set for their processes, the middleware's profile say."""
    saved = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(saved)


@pytest.fixture(scope='session')
def connections():
    """Return a function that gives the sockets of a kind that a process has."""
    import psutil

    def find(pid, kind):
        process = psutil.Process(pid)
        newer = getattr(process, 'net_connections', None)  # since psutil 6
        return (newer or process.connections)(kind=kind)
    return find


@pytest.fixture(scope='session')
def photograph():
    """
    Return a real photograph, (256, 256, 3) uint8 RGB.

    Larger frames get lost in the half megabyte that Fast DDS has for what a camera sends.
    """
    import numpy as np
    import skimage.data
    return np.ascontiguousarray(skimage.data.astronaut()[::2, ::2])
