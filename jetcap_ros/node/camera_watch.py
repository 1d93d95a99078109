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

"""Whether frames come from a camera, and what is wrong if they do not; said in the log, too."""

from collections.abc import Sequence
import re
import time

from diagnostic_msgs.msg import DiagnosticStatus

from .base import CaptionerBase
from .cameras import Camera, SILENT_S
from .clocks import clock_problem, too_old
from .silence import explain_silence

# What stays wrong is said again after so long.
REPEAT_S = 60.0


def judge_camera(node: CaptionerBase, camera: Camera) -> tuple[bytes, str]:
    """Return the level and the sentence that sum a camera up."""
    if node.state_label != 'active':
        return DiagnosticStatus.STALE, f'{node.state_label}: captions nothing'
    if not camera.heard:
        return DiagnosticStatus.OK, f'nobody listens to the captions of {camera.topic}'
    silence = _silence(node, camera)
    if silence:
        return DiagnosticStatus.ERROR, f'{camera.topic}: {silence}'
    trouble = _staleness(node, camera) or camera.error or _clock(node, camera)
    if trouble:
        return DiagnosticStatus.WARN, f'{camera.topic}: {trouble}'
    return DiagnosticStatus.OK, f'frames on {camera.topic}'


def _silence(node: CaptionerBase, camera: Camera) -> str:
    """Say why no frame comes, '' if they come."""
    silent = camera.silent_for()
    if silent <= SILENT_S or not camera.subscribed:
        return ''
    reason = camera.qos_problem or explain_silence(
        camera.topic, camera.compressed, node.get_publishers_info_by_topic(camera.topic),
        _foreign_topics(node))
    return f'no frames for {silent:.0f} s: {reason}'


def _staleness(node: CaptionerBase, camera: Camera) -> str:
    """Say why all frames are dropped for their age, '' if they are not."""
    if camera.too_old is None:
        return ''
    since, stamp, now = camera.too_old
    if time.monotonic() - since <= SILENT_S:
        return ''
    return too_old(stamp, now, node.get_parameter('max_frame_age_s').value)


def _clock(node: CaptionerBase, camera: Camera) -> str:
    """Say which clock is wrong, '' if none is."""
    if camera.last_times is None:
        return ''
    return clock_problem(*camera.last_times, node.get_parameter('use_sim_time').value)


def _foreign_topics(node: CaptionerBase) -> dict[str, list[str]]:
    """Return the topics that somebody publishes, but for the node's own, and their types."""
    own = f'{node.get_fully_qualified_name()}/'
    return {
        name: types for name, types in node.get_topic_names_and_types()
        if not name.startswith(own) and node.count_publishers(name)}


class CameraWatch:
    """Logs the trouble with cameras: when it begins, and once a minute while it lasts."""

    def __init__(self, node: CaptionerBase) -> None:
        self._node = node
        self._told: dict[str, float] = {}  # by what was said, without its figures; monotonic

    def look(self, cameras: Sequence[Camera]) -> None:
        """Look at the cameras; to be called about once a second while they are subscribed."""
        for camera in cameras:
            node = self._node
            trouble = _silence(node, camera) or _staleness(node, camera) or _clock(node, camera)
            key, now = camera.topic + re.sub(r'\d', '', trouble), time.monotonic()
            if trouble and now - self._told.get(key, -REPEAT_S) >= REPEAT_S:
                self._told[key] = now
                node.get_logger().warning(f'{camera.topic}: {trouble}')
