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

"""The node as a process, over real DDS."""

import os
from pathlib import Path
import pickle
import shutil
import signal
import time

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus
from jetcap_ros.engine.lazy_loader import LazyModel
from jetcap_ros.engine.settings import SHIPPED_CHECKPOINT
from jetcap_ros.node.parameters import PARAMETERS
from node_process import image_message, NodeProcess
import numpy as np
import psutil
import pytest
from sensor_msgs.msg import Image


def mapped_libraries(pid: int) -> str:
    """Return what a process has mapped into its memory."""
    with open(f'/proc/{pid}/maps', encoding='utf-8') as file:
        return file.read()


@pytest.mark.needs('torch')
def test_the_full_model_through_every_transition(photograph):
    with NodeProcess({'max_rate_hz': 0.0}) as node:
        assert node.state() == 'unconfigured'
        assert not node.workers()
        assert node.change('configure')
        worker, = node.workers()
        assert 'libtorch' in mapped_libraries(worker.pid)
        assert 'libtorch' not in mapped_libraries(node.process.pid)
        assert node.change('activate')
        camera = node.camera()
        info = node.next_caption(camera, image_message(photograph))
        assert info['model'] == 'mobilenet'
        assert info['caption'] == LazyModel().model.caption(photograph).text
        assert len(info['caption'].split()) >= 3

        status = node.status('the mobilenet model captions')
        assert status.level == DiagnosticStatus.OK
        values = {pair.key: pair.value for pair in status.values}
        for stage in ('quantization', 'metadata', 'torch', 'model_class', 'instance', 'weights',
                      'cleanup', 'warm_up'):
            assert 'MB available' in values[f'stage {stage}']

        assert node.change('deactivate')
        count = len(node.infos)
        assert node.wait_for(lambda: camera.get_subscription_count() == 0)
        camera.publish(image_message(photograph))
        time.sleep(0.5)
        assert len(node.infos) == count
        assert node.change('cleanup')
        assert not node.workers() and not worker.is_running()
        assert node.change('configure') and node.change('activate')
        assert node.next_caption(node.camera(), image_message(photograph))['caption']
        assert node.change('shutdown')
        assert node.state() == 'finalized'
        assert not node.workers()
        assert node.transitions[-1] == 'finalized'
        assert node.end() == 0


def test_the_simple_model_keeps_stamp_and_frame(photograph):
    with NodeProcess({'model': 'simple', 'max_rate_hz': 0.0}) as node:
        assert node.change('configure') and node.change('activate')
        worker, = node.workers()
        assert 'libtorch' not in mapped_libraries(worker.pid)
        assert 'libopencv' in mapped_libraries(worker.pid) or 'cv2' in mapped_libraries(worker.pid)
        camera = node.camera()
        message = image_message(photograph, 'front_optical')
        message.header.stamp = Time(sec=123456, nanosec=789)
        node.wait_for(lambda: camera.publish(message) or node.infos, 20)
        info = node.infos[0]
        assert info['stamp'] == {'sec': 123456, 'nanosec': 789}
        assert info['frame_id'] == 'front_optical'
        assert info['topic'] == '/image_raw'
        assert info['model'] == 'simple'
        assert 0 < info['score'] < 1
        assert node.wait_for(lambda: node.captions)
        assert node.captions[0].data == info['caption']


def test_frames_are_captioned_newest_first_and_never_backwards(photograph):
    with NodeProcess({'model': 'simple', 'max_rate_hz': 0.0}) as node:
        assert node.change('configure') and node.change('activate')
        camera = node.camera()
        message = image_message(photograph)
        for number in range(60):
            message.header.stamp = Time(sec=1000 + number // 20, nanosec=number % 20 * 50_000_000)
            camera.publish(message)
            time.sleep(0.005)
        time.sleep(1)
        stamps = [(i['stamp']['sec'], i['stamp']['nanosec']) for i in node.infos]
        assert stamps == sorted(set(stamps)) and 1 <= len(stamps) <= 60
        # A little before the last one: it came late. Far before: the bag starts again.
        count = len(node.infos)
        message.header.stamp = Time(sec=1002, nanosec=500_000_000)
        camera.publish(message)
        time.sleep(1)
        assert len(node.infos) == count
        message.header.stamp = Time(sec=10)
        node.wait_for(lambda: camera.publish(message) or len(node.infos) > count)
        assert node.infos[-1]['stamp']['sec'] == 10


def test_frames_older_than_the_limit_are_dropped(photograph):
    with NodeProcess({'model': 'simple', 'max_rate_hz': 0.0, 'max_frame_age_s': 5.0}) as node:
        assert node.change('configure') and node.change('activate')
        camera = node.camera()
        message = image_message(photograph)
        message.header.stamp = Time(sec=1000)
        for _ in range(5):
            camera.publish(message)
            time.sleep(0.1)
        assert not node.infos
        info = node.next_caption(camera, message)
        assert info['age_ms'] - info['latency_ms'] < 5000  # when it arrived


def test_on_demand_and_caption_now(photograph):
    with NodeProcess({'model': 'simple', 'mode': 'on_demand'}) as node:
        assert node.change('configure')
        assert 'not active' in node.caption_now().message
        assert node.change('activate')
        answer = node.caption_now()
        assert not answer.success and 'no frame has come on /image_raw' in answer.message
        camera = node.camera()
        for _ in range(3):
            camera.publish(image_message(photograph))
            time.sleep(0.2)
        assert not node.infos
        # A raw frame of this size can get lost on the way.
        answer = node.wait_for(lambda: camera.publish(image_message(photograph)) or next(
            (a for a in [node.caption_now()] if a.success), None))
        assert len(answer.message.split()) >= 3
        node.wait_for(lambda: node.infos)
        assert node.infos[0]['caption'] == answer.message


def test_bad_frames_are_refused_and_said(photograph):
    with NodeProcess({'model': 'simple', 'max_rate_hz': 0.0}) as node:
        assert node.change('configure') and node.change('activate')
        camera = node.camera()
        good = image_message(photograph)
        empty = Image(encoding='rgb8')
        wrong_step = image_message(photograph)
        wrong_step.step = 7
        short = image_message(photograph)
        short.data = short.data[:1000]
        unknown = image_message(photograph)
        unknown.encoding = 'no_such_encoding'
        depth = image_message(photograph)
        depth.encoding = '32FC1'
        for bad, word in ((empty, '0x0'), (wrong_step, 'step'), (short, 'bytes'),
                          (unknown, 'no_such_encoding'), (depth, 'colour topic')):
            after = len(node.statuses)
            camera.publish(bad)
            node.wait_for(lambda: camera.publish(bad) or any(
                s.level == DiagnosticStatus.WARN for s in node.statuses[after:]), 10)
            assert word in node.statuses[-1].message, node.statuses[-1].message
            assert not node.infos
        assert node.next_caption(camera, good)['caption']
        assert node.state() == 'active'


def damaged_checkpoints(folder):
    """Make checkpoints that must be refused; return pairs of a path and a word of the message."""
    shipped = open(SHIPPED_CHECKPOINT, 'rb').read()
    truncated = folder / 'truncated.safetensors'
    truncated.write_bytes(shipped[:len(shipped) // 2])
    foreign = folder / 'foreign.safetensors'
    foreign.write_bytes(b'this is not a checkpoint, it is a text')

    class Payload:

        def __reduce__(self):
            return os.system, (f'touch {folder}/executed',)

    hostile = folder / 'hostile.pth'
    hostile.write_bytes(pickle.dumps(Payload()))
    import zipfile
    zipped = folder / 'zipped.pth'
    with zipfile.ZipFile(zipped, 'w') as archive:
        archive.writestr('archive/data.pkl', pickle.dumps({'model_state_dict': Payload()}))
    mismatched = folder / 'mismatched.safetensors'
    at = shipped.index(b'<unk>')
    assert b'\\"dog\\"' in shipped[at:]
    length = int.from_bytes(shipped[:8], 'little')
    header = shipped[8:8 + length].replace(b'\\"dog\\", ', b'', 1)
    mismatched.write_bytes(
        shipped[:8] + header + b' ' * (length - len(header)) + shipped[8 + length:])
    return [
        (folder / 'missing.pth', 'no such file'), (truncated, 'truncated'), (foreign, 'neither'),
        (hostile, 'neither'), (zipped, 'refused'), (mismatched, 'vocabulary')]


def test_bad_checkpoints_are_refused_and_said(tmp_path, photograph):
    with NodeProcess({'model': 'simple'}) as node:
        for model in ('simple', 'mobilenet'):
            node.set_parameter('model', model)
            for path, word in damaged_checkpoints(tmp_path):
                assert node.set_parameter('checkpoint', str(path)).successful
                after = len(node.statuses)
                assert not node.change('configure'), path
                assert node.state() == 'unconfigured'
                assert not node.workers()
                status = node.status('configure failed', after)
                assert status.level == DiagnosticStatus.ERROR
                assert word in status.message and path.name in status.message, status.message
                node.wait_for(lambda: status.message in node.output())
        assert not (tmp_path / 'executed').exists()
        node.set_parameter('checkpoint', '')
        node.set_parameter('model', 'simple')
        node.set_parameter('checkpoint_sha256', '0' * 64)
        assert not node.change('configure')
        assert 'SHA-256' in node.status('SHA-256').message
        node.set_parameter('checkpoint_sha256', '')
        assert node.change('configure') and node.change('activate')
        assert node.next_caption(node.camera(), image_message(photograph))['caption']


def test_parameters_are_checked_and_described():
    with NodeProcess({'model': 'simple', 'max_rate_hz': 3}) as node:  # a whole number is fine
        descriptors = node.describe([spec.name for spec in PARAMETERS])
        assert all(len(descriptor.description) > 20 for descriptor in descriptors)
        for name, value in (
                ('beam_size', 0), ('beam_size', 10_000), ('max_length', -1), ('max_rate_hz', -1.0),
                ('max_rate_hz', 'often'), ('max_rate_hz', float('nan')), ('model', 'gpt'),
                ('image_topics', []), ('image_topics', ['a', 'a']), ('reserve_memory_mb', 1e12),
                ('configure_timeout_s', 0.0), ('checkpoint_sha256', 'xyz'), ('num_threads', -1)):
            result = node.set_parameter(name, value)
            assert not result.successful and result.reason, (name, value)
        assert node.change('configure')
        result = node.set_parameter('image_topics', ['other'])
        assert not result.successful and 'clean up first' in result.reason
        assert node.set_parameter('beam_size', 1).successful
        assert node.state() == 'inactive'


@pytest.mark.parametrize('name, value', [
    ('model', 'gpt'), ('beam_size', 0), ('max_rate_hz', 'often'), ('max_rate_hz', -2)])
def test_absurd_parameters_at_start_are_named(name, value):
    with NodeProcess({name: value}) as node:
        assert node.process.wait(timeout=20) == 1
        assert f'parameter {name}' in node.output()
        assert 'Traceback' not in node.output()


def test_nothing_changes_state_by_itself():
    with NodeProcess({'model': 'simple'}) as node:
        node.wait_for(lambda: node.statuses)
        time.sleep(3)
        assert node.state() == 'unconfigured' and not node.transitions
        assert node.change('configure')
        time.sleep(3)
        assert node.state() == 'inactive'
        assert node.transitions == ['configuring', 'inactive']


def test_impossible_transitions_are_refused():
    with NodeProcess({'model': 'simple'}) as node:
        for transition in ('activate', 'deactivate', 'cleanup'):
            assert not node.change(transition)
        assert node.change('configure')
        assert not node.change('configure')
        assert not node.change('deactivate')
        assert node.change('activate')
        assert not node.change('cleanup')
        assert node.state() == 'active'


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize('state', [
    'unconfigured', pytest.param('configuring', marks=pytest.mark.needs('torch')), 'inactive',
    'active'])
def test_signals_end_the_node_cleanly(number, state, photograph):
    with NodeProcess({'model': 'mobilenet' if state == 'configuring' else 'simple',
                      'max_rate_hz': 0.0}) as node:
        assert node.state() == 'unconfigured'
        if state == 'configuring':
            node.send_change('configure')
            node.wait_for(lambda: 'stage metadata' in node.output())
        elif state != 'unconfigured':
            assert node.change('configure')
            if state == 'active':
                assert node.change('activate')
                node.next_caption(node.camera(), image_message(photograph))
        workers = node.workers()
        assert len(workers) == (state != 'unconfigured')
        assert node.end(number) == 0
        assert 'Traceback' not in node.output(), node.output()
        gone, alive = psutil.wait_procs(workers, timeout=2)
        assert not alive


@pytest.mark.parametrize('library', ['_rclpy_pybind11', '/cv2', 'librmw_dds_common'])
def test_interrupted_while_it_starts_the_node_ends_without_a_word(library):
    with NodeProcess({'model': 'simple'}) as node:
        maps = Path(f'/proc/{node.process.pid}/maps')
        node.wait_for(lambda: library in maps.read_text())
        node.process.send_signal(signal.SIGINT)
        assert node.end() == 0  # with a second one
        assert all(line.startswith('[INFO]') for line in node.output().splitlines()), node.output()


def test_several_cameras_share_one_model(photograph):
    topics = ['/front/image_raw', '/rear/image_raw']
    with NodeProcess({'model': 'simple', 'max_rate_hz': 0.0, 'image_topics': topics}) as node:
        infos = {'front': [], 'rear': []}
        for name, found in infos.items():
            node.listen(f'{name}/caption', found.append)
        assert node.change('configure') and node.change('activate')
        assert len(node.workers()) == 1
        cameras = [node.camera(topic) for topic in topics]
        pictures = [image_message(photograph), image_message(np.ascontiguousarray(
            photograph[:, ::-1]))]
        for _ in range(60):
            for camera, picture in zip(cameras, pictures):
                camera.publish(picture)
            time.sleep(0.05)
        assert min(len(found) for found in infos.values()) >= 3
        assert node.caption_now('rear/caption_now').success


def test_a_pth_falls_back_to_the_packed_file_beside_it(tmp_path, photograph):
    shutil.copy(SHIPPED_CHECKPOINT, tmp_path / 'mine.safetensors')
    (tmp_path / 'mine.pth').write_bytes(b'PK\x03\x04')
    with NodeProcess({
            'checkpoint': str(tmp_path / 'mine.pth'), 'min_available_memory_mb': 1e6}) as node:
        assert node.change('configure') and node.change('activate')
        assert node.next_caption(node.camera(), image_message(photograph))['model'] == 'simple'
        status = node.status('the simple model captions instead of mobilenet')
        assert status.level == DiagnosticStatus.WARN
        values = {pair.key: pair.value for pair in status.values}
        assert values['checkpoint'] == str(tmp_path / 'mine.safetensors')
