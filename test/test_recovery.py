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

"""When the model asked for gives way, and when it is tried again, by a clock turned by hand."""

from jetcap_ros.engine.recovery import (
    FIRST_RETRY_S, LAST_RETRY_S, PRESSURE_LIMIT, PRESSURE_SECONDS, Recovery)
import pytest


class TurnedClock:

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return TurnedClock()


@pytest.fixture
def recovery(clock):
    return Recovery(clock)


def wait_until_due(recovery, clock):
    """Return the seconds until it is due."""
    started = clock.now
    while not recovery.is_due():
        clock.now += 0.5
        assert clock.now < started + 2 * LAST_RETRY_S
    return clock.now - started


def test_nothing_is_due_while_nothing_is_lost(recovery, clock):
    clock.now += 1e6
    assert not recovery.is_due()


def test_the_delays_grow_up_to_the_last(recovery, clock):
    delays = []
    for _ in range(9):
        recovery.lost()
        delays.append(wait_until_due(recovery, clock))
        assert not recovery.is_due()
    assert delays[:3] == [FIRST_RETRY_S, 2 * FIRST_RETRY_S, 4 * FIRST_RETRY_S]
    assert delays[-1] == LAST_RETRY_S


def test_only_a_model_that_stays_well_earns_the_short_delay(recovery, clock):
    for _ in range(3):
        recovery.lost()
        wait_until_due(recovery, clock)
    recovery.regained()
    recovery.lost()  # and lost again at once
    assert wait_until_due(recovery, clock) == 8 * FIRST_RETRY_S
    recovery.regained()
    wait_until_due(recovery, clock)
    recovery.settled()
    recovery.lost()
    assert wait_until_due(recovery, clock) == FIRST_RETRY_S


def test_putting_off_does_not_make_the_delay_grow(recovery, clock):
    for _ in range(3):
        recovery.put_off()
        assert wait_until_due(recovery, clock) == FIRST_RETRY_S
    recovery.lost()
    assert wait_until_due(recovery, clock) == FIRST_RETRY_S


def test_memory_below_the_reserve_is_given_back_at_once(recovery):
    assert recovery.shortage(150, 150, None) == ''
    assert '149 MB available, less than reserve_memory_mb (150 MB)' in recovery.shortage(
        149, 150, None)


def test_pressure_must_last(recovery, clock):
    assert recovery.shortage(1000, 150, PRESSURE_LIMIT) == ''
    clock.now += PRESSURE_SECONDS - 0.1
    assert recovery.shortage(1000, 150, PRESSURE_LIMIT) == ''
    assert recovery.shortage(1000, 150, PRESSURE_LIMIT - 1) == ''  # it went, and begins anew
    clock.now += 1
    assert recovery.shortage(1000, 150, PRESSURE_LIMIT) == ''
    clock.now += PRESSURE_SECONDS
    assert 'waited for memory' in recovery.shortage(1000, 150, PRESSURE_LIMIT)
    assert recovery.shortage(1000, 150, PRESSURE_LIMIT) == ''


def test_it_rests_only_after_work_has_ended(recovery, clock):
    with recovery.work():
        clock.now += 10  # a wake that takes longer than the rest
        assert not recovery.rests(2)
        with recovery.work():
            clock.now += 10
        assert not recovery.rests(2)
    assert not recovery.rests(2)
    clock.now += 2
    assert recovery.rests(2) and not recovery.rests(0)
