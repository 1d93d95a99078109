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

"""What tests of a captioner in their own process wait for, and look for."""

import time

import psutil


def wait_for(condition, timeout=20):
    """Wait until the condition holds; return what it said."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, 'waited in vain'
        time.sleep(0.02)
    return value


def workers(pid=None):
    """Return the workers that this process has started, or another one and those it started."""
    children = psutil.Process(pid).children(recursive=pid is not None)
    return [child for child in children if 'jetcap_ros.engine.worker' in _command(child)]


def _command(process):
    try:
        return ' '.join(process.cmdline())
    except psutil.Error:  # it has ended
        return ''
