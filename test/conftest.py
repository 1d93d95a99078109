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

"""Fixtures that several tests share, and what is left out where a library is missing."""

import importlib.util
import os
from pathlib import Path
import signal
import sys

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
# What a script runs in the background ignores SIGINT, and hands that on to all it starts.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A robot may lack them; what imports them is named and left out there.
NEEDED = {
    'torch': ['test_checkpoints.py', 'test_encoders.py', 'test_hostile_checkpoints.py',
              'test_models.py', 'test_training.py'],
    'torchvision': ['test_encoders.py'],
    'rosbags': ['test_replay.py', 'test_replay_bag.py', 'test_replay_dds.py',
                'test_replay_report.py']}
MISSING = {
    name: files for name, files in NEEDED.items() if importlib.util.find_spec(name) is None}
collect_ignore = sorted({file for files in MISSING.values() for file in files})


def pytest_report_header():
    """Say what is left out."""
    return [f'skipped for lack of {name}: {", ".join(files)}' for name, files in MISSING.items()]


@pytest.fixture(scope='module', autouse=True)
def environment():
    """Undo what a module's tests set for their processes, the middleware's profile say."""
    saved = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(saved)


@pytest.fixture(scope='session')
def photograph():
    """Return a real photograph, (512, 512, 3) uint8 RGB."""
    import skimage.data
    return skimage.data.astronaut()
