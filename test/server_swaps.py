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

"""A server's model that sleeps, wakes and makes way, be it a real one or played."""

import psutil
from waiting import wait_for


def sleep_wake_and_make_way(captioner, photograph, timeout=20):
    """Let the model of a configured captioner sleep, wake it, swap it to `simple` and back."""
    server = captioner.facts['server pid']
    wait_for(lambda: captioner.asleep_for is not None, timeout)
    assert not psutil.pid_exists(server)
    assert captioner.caption(photograph).text  # whichever model is awake first
    captioner.settings.sleep_after_s = 0.0
    wait_for(lambda: captioner.caption(photograph).model == 'server', timeout)
    for wanted in ('simple', 'server'):
        captioner.swap({'model': wanted})
        # Every frame is captioned meanwhile, by the one or the other.
        wait_for(lambda: captioner.caption(photograph).model == wanted, 60)
        assert not captioner.swap_failure
