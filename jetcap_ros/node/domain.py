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

"""A ROS domain of one's own, so that tests, demonstration and benchmark do not hear each other."""

import fcntl
import os
import random
import tempfile
from typing import IO


def reserve_domain() -> tuple[int, IO[str]]:
    """
    Return a ROS domain that nobody else on this machine has reserved, and what keeps it so.

    The latter is an open file; closing it gives the domain back.
    """
    domains = list(range(1, 101))  # those whose ports are free of the system's own use
    random.shuffle(domains)
    for domain in domains:
        try:
            lock = open(os.path.join(tempfile.gettempdir(), f'jetcap_ros_domain_{domain}'), 'w')
        except PermissionError:  # another user's
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return domain, lock
        except OSError:
            lock.close()
    raise RuntimeError('all ROS domains are in use')
