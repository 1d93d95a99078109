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

"""What the stamps of frames say about the clocks; times in ns, on the node's clock."""

from typing import Any

# Clocks that agree this well are good enough; a simulation's stands still between its messages.
TOLERANCE_NS = 1_000_000_000


def stamp_ns(message: Any) -> int:
    """Return a message's stamp; below 0 it is before 1970, which rclpy.time.Time refuses."""
    stamp = message.header.stamp
    return int(stamp.sec * 1_000_000_000 + stamp.nanosec)


def age_ns(stamp: int, now: int) -> int | None:
    """Return how old a frame is, None where the clocks cannot tell."""
    return now - stamp if 0 < stamp <= now else None


def clock_problem(stamp: int, now: int, is_sim_time: bool) -> str:
    """Say which clock is wrong, '' if none is."""
    if is_sim_time and now == 0:
        return (
            'use_sim_time is set and nothing comes on /clock: play the bag with --clock, or set '
            'use_sim_time to false')
    if stamp == 0:
        return "frames have no stamp (0): the camera's driver does not set it"
    if stamp < 0:
        return "frames are stamped before 1970: the camera's clock is wrong"
    if stamp > now + TOLERANCE_NS:
        ahead = (stamp - now) / 1e9
        return (
            f"frames are stamped {ahead:.1f} s in the future of the node's clock: " + (
                'use_sim_time is set, and the camera does not go by /clock' if is_sim_time
                else 'set the clocks of camera and node by each other (chrony)'))
    return ''


def too_old(stamp: int, now: int, limit_s: float) -> str:
    """Say why a frame is dropped for its age, '' if it is not; a limit of 0 is none."""
    if not limit_s or now - stamp <= limit_s * 1e9:
        return ''
    text = f'every frame is dropped, as max_frame_age_s is {limit_s:g}'
    if stamp <= 0:
        return f'{text} and {clock_problem(stamp, now, False)}; set it to 0.0'
    return (
        f'{text} and they are {(now - stamp) / 1e9:.1f} s old: either the clocks of camera and '
        'node differ (chrony), or a bag is played without --clock and use_sim_time')
