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

"""What the node says of itself on /diagnostics, once a second."""

from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from .base import CaptionerBase
from .camera_watch import judge_camera
from .cameras import Camera, SILENT_S
from ..engine.captioner import Captioner
from ..memory.memory_utils import available_memory_mb, memory_pressure, process_memory


def diagnostic_array(node: CaptionerBase) -> DiagnosticArray:
    """Return the state of the node: one status, and one for each of several cameras."""
    array = DiagnosticArray()
    array.header.stamp = node.get_clock().now().to_msg()
    name = node.get_fully_qualified_name().lstrip('/')
    # Values first: what they count has its reason in the message.
    array.status = [_status(name, node, _values(node), _judge(node))]
    if len(node.cameras) > 1:
        for camera in node.cameras:
            array.status.append(_status(
                f'{name}: {camera.name}', node, _camera_values(camera),
                judge_camera(node, camera)))
    return array


def _status(
        name: str, node: CaptionerBase, values: dict[str, Any],
        verdict: tuple[bytes, str]) -> DiagnosticStatus:
    level, message = verdict
    return DiagnosticStatus(
        level=level, name=name, message=message, hardware_id=node.get_fully_qualified_name(),
        values=[KeyValue(key=key, value=str(value)) for key, value in values.items()])


def _judge(node: CaptionerBase) -> tuple[bytes, str]:
    """Return the level and the sentence that sum the node up (docs/diagnostics.md)."""
    captioner = node.captioner
    if node.failure and captioner is None:
        return DiagnosticStatus.ERROR, node.failure
    if node.state_label != 'active':
        return DiagnosticStatus.STALE, f'{node.state_label}: captions nothing'
    if captioner is None:
        return DiagnosticStatus.ERROR, 'no model'
    asleep_for = captioner.asleep_for
    if not captioner.model_in_use and asleep_for is None:
        if captioner.loading and not captioner.reason:
            return DiagnosticStatus.OK, f'captions wait: the {captioner.loading} model is loaded'
        return DiagnosticStatus.ERROR, f'no model: {captioner.reason}'
    trouble = _trouble(node, captioner, asleep_for is not None)
    if trouble:
        return max(level for level, _ in trouble), '. '.join(message for _, message in trouble)
    if asleep_for is not None:
        without = asleep_for + captioner.settings.sleep_after_s
        return DiagnosticStatus.OK, f'asleep, {without:.0f} s without work'
    if captioner.loading:
        return (
            DiagnosticStatus.OK,
            f'the {captioner.model_in_use} model captions while {captioner.loading} is loaded')
    if node.get_parameter('mode').value == 'on_demand':
        return DiagnosticStatus.OK, f'the {captioner.model_in_use} model captions when asked'
    if not any(camera.heard for camera in node.cameras):
        return DiagnosticStatus.OK, 'nobody listens: nothing is captioned'
    return DiagnosticStatus.OK, f'the {captioner.model_in_use} model captions'


def _trouble(
        node: CaptionerBase, captioner: Captioner, asleep: bool) -> list[tuple[bytes, str]]:
    """Return what is wrong with the cameras, of several the worst, and with the model."""
    # That no frame comes is why it sleeps.
    found = [
        judge_camera(node, camera) for camera in node.cameras
        if not asleep or camera.error or camera.qos_problem]
    worst = max(found, key=lambda verdict: verdict[0], default=(DiagnosticStatus.OK, ''))
    degraded = _degraded(captioner)
    return ([worst] if worst[0] != DiagnosticStatus.OK else []) + (
        [(DiagnosticStatus.WARN, degraded)] if degraded else [])


def _degraded(captioner: Captioner) -> str:
    """Return how what captions is not what was asked for, '' if it is."""
    if captioner.swap_failure:
        return (
            f'the {captioner.model_in_use or "same"} model captions on, the change was not '
            f'possible: {captioner.swap_failure}')
    if captioner.asleep_for is None and captioner.degraded and captioner.reason:
        return (
            f'the {captioner.model_in_use} model captions instead of '
            f'{captioner.settings.model}: {captioner.reason}')
    return ''


def captioner_state(node: CaptionerBase) -> str:
    """Return what the captioner does, in a word that programs can compare."""
    captioner = node.captioner
    if node.state_label == 'configuring':
        return 'loading'
    if captioner is None:
        return 'none'
    if captioner.asleep_for is not None:
        return 'asleep'
    if not captioner.model_in_use:
        return 'loading' if captioner.loading else 'none'
    if _degraded(captioner):
        return 'degraded'
    if captioner.loading or captioner.degraded:
        return 'loading'
    working = [
        camera for camera in node.cameras
        if camera.heard and camera.subscribed and camera.silent_for() <= SILENT_S]
    if node.state_label != 'active' or not working \
            or node.get_parameter('mode').value == 'on_demand':
        return 'idle'
    return 'still' if all(camera.is_still for camera in working) else 'captioning'


def _values(node: CaptionerBase) -> dict[str, Any]:
    captioner = node.captioner
    own = process_memory()
    state = captioner_state(node)
    values: dict[str, Any] = {
        'state': state, 'captioner_state': state, 'lifecycle state': node.state_label,
        'node RSS (MB)': f'{own.rss_mb:.0f}',
        'available memory (MB)': f'{available_memory_mb():.0f}'}
    pressure = memory_pressure()
    if pressure is not None:
        values['memory pressure, full avg10 (%)'] = pressure
    if node.failure:
        values['last failure'] = node.failure
    if captioner is not None:
        worker_pid = captioner.worker_pid
        values.update({
            'model': captioner.model_in_use or 'none', 'model wanted': captioner.settings.model,
            'reason': captioner.reason, 'worker pid': worker_pid or '',
            'worker RSS (MB)': f'{captioner.worker_rss_mb:.0f}',
            'model replacements': captioner.restarts})
        values.update(captioner.facts)
        for stage in captioner.stages:
            values[f'stage {stage.name}'] = (
                f'{stage.seconds:.2f} s, RSS {stage.rss_mb:.0f} MB, '
                f'{stage.available_mb:.0f} MB available')
    if len(node.cameras) == 1:
        values.update(_camera_values(node.cameras[0]))
    values.update(node.rates.values())
    values.update(node.versions)
    return values


def _camera_values(camera: Camera) -> dict[str, Any]:
    counters = camera.counters
    return {
        'topic': camera.topic, 'frames received': counters.received,
        'frames captioned': counters.captioned, 'frames still': counters.unchanged,
        'frames replaced by newer': counters.replaced,
        'frames stale': counters.stale, 'frames bad': counters.bad,
        'last caption': camera.outputs.last_text or ''}
