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

"""The demonstration, run for real with the simple model on two photographs."""

import base64
import html
import json
import os
from pathlib import Path
import re
import shutil
import signal
import subprocess
import sys
import time

import cv2
from jetcap_ros.node import domain
import numpy as np
import psutil
import pytest

ROOT = Path(__file__).parent.parent


def command(*arguments):
    return [sys.executable, '-m', 'jetcap_ros.demo', '--model', 'simple', *map(str, arguments)]


def environment(mark=''):
    paths = filter(None, [str(ROOT), os.environ.get('PYTHONPATH')])
    return {**os.environ, 'PYTHONPATH': os.pathsep.join(paths), 'JETCAP_TEST_MARK': mark}


def marked(mark):
    """Return the commands of the processes that run in an environment with the mark."""
    commands = []
    for process in psutil.process_iter():
        try:
            if process.environ().get('JETCAP_TEST_MARK') == mark:
                commands.append(process.cmdline())
        except psutil.Error:
            pass
    return commands


def test_a_domain_is_reserved_once_and_given_back(monkeypatch, tmp_path):
    monkeypatch.setattr(domain.tempfile, 'gettempdir', lambda: str(tmp_path))
    found = [domain.reserve_domain() for _ in range(100)]
    assert sorted(number for number, _ in found) == list(range(1, 101))
    with pytest.raises(RuntimeError, match='in use'):
        domain.reserve_domain()
    number, reserved = found[7]
    reserved.close()
    again, held = domain.reserve_domain()
    assert again == number
    for file in (held, *(file for _, file in found)):
        file.close()


@pytest.fixture
def photographs(tmp_path):
    """Return a folder with two photographs, a damaged one and a file that is none."""
    skimage = pytest.importorskip('skimage')
    data = Path(skimage.__file__).parent / 'data'
    folder = tmp_path / 'photographs'
    folder.mkdir()
    for name in ('astronaut.png', 'coffee.png'):
        shutil.copy(data / name, folder)
    (folder / 'damaged.png').write_bytes((data / 'chelsea.png').read_bytes()[:20000])
    (folder / 'notes.txt').write_text('not a picture')
    return folder


def test_page_has_pictures_with_what_the_node_said(photographs, tmp_path):
    mark = f'page {tmp_path}'
    result = subprocess.run(
        command('--images', photographs, '--out', tmp_path / 'out'), text=True,
        capture_output=True, timeout=120, env=environment(mark))
    assert result.returncode == 1, result.stderr  # for the damaged picture
    assert 'demo: 1 pictures could not be read' in result.stderr
    assert not marked(mark)
    printed = re.findall(r'^  (\w+\.png) +(\d+) ms  (.+)  \((0\.\d\d), simple\)$', result.stdout,
                         re.MULTILINE)
    assert [name for name, *_ in printed] == 3 * ['astronaut.png'] + 3 * ['coffee.png']
    assert 'damaged.png: it is damaged' in result.stdout
    captions = {name: caption for name, _, caption, _ in printed}
    assert captions['astronaut.png'] != captions['coffee.png']

    page = (tmp_path / 'out/index.html').read_text(encoding='utf-8')
    cards = re.findall(r'<img src="data:image/jpeg;base64,([^"]+)" alt="([^"]+)">\s*'
                       r'<figcaption><b>([^<]+)</b>', page)
    assert {name: html.unescape(caption) for _, name, caption in cards} == captions
    for data, name, _ in cards:
        shown = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
        photograph = cv2.imread(str(photographs / name))
        expected = cv2.resize(photograph, shown.shape[1::-1], interpolation=cv2.INTER_AREA)
        assert np.abs(shown.astype(int) - expected).mean() < 6
    # Every stage the node logged is in the table, as it is in the log.
    logged = re.findall(r'stage (\w+): ([\d.]+) s, worker RSS (\d+) MB', result.stdout)
    assert len(logged) >= 4
    for name, seconds, rss in logged:
        assert re.search(rf'<code>{name}</code></td>\s*<td class="number">{seconds} s</td>\s*'
                         rf'<td class="number">{rss} MB</td>', page)
    for step in ('start', 'configure', 'activate', 'caption', 'deactivate', 'cleanup'):
        assert re.search(rf'<td>{step}[\w ]*</td>', page)
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)  # nothing is fetched


@pytest.mark.parametrize('signals', [[signal.SIGINT, signal.SIGINT], [signal.SIGTERM]])
def test_nothing_runs_on_when_interrupted(photographs, tmp_path, signals):
    mark = f'interrupted {tmp_path}'
    process = subprocess.Popen(
        command('--images', photographs, '--out', tmp_path), text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, env=environment(mark))
    for line in process.stdout:
        if line.startswith('  astronaut.png'):
            break
    assert len(marked(mark)) == 4  # the demo, the camera, the node, its worker
    for number in signals:
        process.send_signal(number)
        time.sleep(0.05)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == 'demo: interrupted' and 'Traceback' not in errors
    assert not marked(mark)


@pytest.mark.measures
def test_frames_of_a_camera_arrive(photographs, tmp_path, monkeypatch):
    from jetcap_ros.demo.robot import RATE_HZ, SHARED_MB
    from jetcap_ros.node.fast_dds import room_for_frames
    import rclpy
    from rclpy.qos import qos_profile_sensor_data
    from sensor_msgs.msg import Image
    largest = photographs / 'vga.png'
    cv2.imwrite(str(largest), np.zeros((480, 640, 3), np.uint8))
    times = []
    camera = subprocess.Popen(
        [sys.executable, '-m', 'jetcap_ros.demo.camera', '--rate', str(RATE_HZ)], text=True,
        stdin=subprocess.PIPE, env={**environment(), **room_for_frames(tmp_path, SHARED_MB)})
    rclpy.init()
    try:
        node = rclpy.create_node('viewer')
        node.create_subscription(
            Image, '/image_raw', lambda message: times.append(time.monotonic()),
            qos_profile_sensor_data)
        camera.stdin.write(f'{json.dumps(str(largest))}\n')
        camera.stdin.flush()
        deadline = time.monotonic() + 30
        while len(times) < 20 and time.monotonic() < deadline:
            rclpy.spin_once(node, timeout_sec=0.1)
        node.destroy_node()
    finally:
        rclpy.try_shutdown()
        camera.stdin.close()
        camera.wait(timeout=30)
    assert len(times) == 20
    assert times[-1] - times[0] < 2 * 19 / RATE_HZ  # with the default room, one in ten arrives


@pytest.mark.parametrize('victim', ['node', 'demo.camera'])
def test_death_of_a_process_is_reported(photographs, tmp_path, victim):
    mark = f'death {tmp_path}'
    process = subprocess.Popen(
        command('--images', photographs, '--out', tmp_path / 'out'), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(mark))
    for line in process.stdout:
        if line.startswith('  astronaut.png'):
            break
    for child in psutil.Process(process.pid).children():
        if child.status() != psutil.STATUS_ZOMBIE and f'jetcap_ros.{victim}' in child.cmdline():
            child.kill()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    name = victim.split('_')[-1].split('.')[-1]
    assert errors.splitlines()[-1] == f'demo: the {name} ended with code -9'
    assert not marked(mark)
    assert not (tmp_path / 'out/index.html').exists()


@pytest.fixture
def environment_here(monkeypatch):
    """Have what is started from this process find the package, too."""
    for name, value in environment().items():
        monkeypatch.setenv(name, value)


def test_a_camera_that_died_before_a_picture_is_shown_to_it(photographs, environment_here):
    from jetcap_ros.demo.pictures import Picture
    from jetcap_ros.demo.robot import Robot, RobotError
    with Robot({'model': 'simple'}, print) as robot:
        robot._camera.kill()
        robot._camera.wait()
        with pytest.raises(RobotError, match='the camera ended with code -9'):
            next(robot.show(Picture(photographs / 'coffee.png'), 1, 10.0))


def test_reason_of_a_failed_configure_is_told(tmp_path, environment_here):
    from jetcap_ros.demo.robot import Robot, RobotError
    missing = str(tmp_path / 'missing.safetensors')
    log = []
    with Robot({'model': 'simple', 'checkpoint': missing}, log.append) as robot:
        robot.start()
        with pytest.raises(RobotError, match='configure failed.*missing.safetensors'):
            robot.transition('configure')
        assert robot.end() == 0
    assert any('missing.safetensors' in line for line in log)


@pytest.mark.parametrize('files, reason', [
    (None, 'no such folder'),
    ({}, 'no pictures among 0 files'),
    ({'a.txt': b'text', 'b.png': b''}, 'no pictures among 2 files'),
])
def test_folder_without_pictures_is_refused(tmp_path, files, reason):
    folder = tmp_path / 'pictures'
    if files is not None:
        folder.mkdir()
        for name, content in files.items():
            (folder / name).write_bytes(content)
    result = subprocess.run(
        command('--images', folder, '--out', tmp_path / 'out'), text=True, capture_output=True,
        timeout=60, env=environment())
    assert result.returncode == 2
    assert result.stderr.startswith(f'demo: {folder}: {reason}')
    assert not (tmp_path / 'out').exists()


def test_large_pictures_are_made_to_fit(tmp_path):
    from jetcap_ros.demo.pictures import CAMERA_SIZE, picture_for_camera
    cv2.imwrite(str(tmp_path / 'wide.png'), np.full((300, 3000, 3), (255, 0, 0), np.uint8))
    cv2.imwrite(str(tmp_path / 'grey.png'), np.full((90, 70), 9, np.uint8))
    wide, grey = (picture_for_camera(tmp_path / f'{name}.png') for name in ('wide', 'grey'))
    assert wide.shape == (64, CAMERA_SIZE[0], 3) and (wide == (0, 0, 255)).all()
    assert grey.shape == (90, 70, 3) and (grey == 9).all()
