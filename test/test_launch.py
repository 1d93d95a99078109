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

"""The launch files and their parameters: what they say, and what they start."""

import ast
from importlib.util import find_spec
from pathlib import Path
import re
import sys

from jetcap_ros.node.parameters import PARAMETERS
from launch_process import LaunchProcess
from lifecycle_manager import LifecycleManager
from lifecycle_msgs.msg import State
import psutil
import pytest
import yaml

ROOT = Path(__file__).parent.parent
LAUNCH_FILES = sorted((ROOT / 'launch').glob('*.launch.py'))
ACTIVE, INACTIVE, UNCONFIGURED = (
    State.PRIMARY_STATE_ACTIVE, State.PRIMARY_STATE_INACTIVE, State.PRIMARY_STATE_UNCONFIGURED)


def declared_arguments(path: Path) -> dict:
    """Return the keywords of each DeclareLaunchArgument, by the name of the argument."""
    return {
        node.args[0].value: {keyword.arg: keyword.value for keyword in node.keywords}
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, 'id', '') == 'DeclareLaunchArgument'}


def test_the_parameter_file_holds_every_parameter_with_its_default():
    contents = yaml.safe_load((ROOT / 'config' / 'captioner.yaml').read_text())
    values = contents['/**']['ros__parameters']
    assert values == {spec.name: spec.default for spec in PARAMETERS}
    for spec in PARAMETERS:
        assert type(values[spec.name]) is type(spec.default), spec.name


@pytest.mark.parametrize('path', LAUNCH_FILES, ids=lambda path: path.name)
def test_every_argument_says_what_it_is_for(path):
    for name, keywords in declared_arguments(path).items():
        assert 'description' in keywords, name


def test_the_documentation_lists_the_launch_files_and_their_arguments():
    text = (ROOT / 'docs' / 'cameras.md').read_text()
    for path in LAUNCH_FILES:
        assert f'| `{path.name}` |' in text
    table = text.split('| argument | default |')[1].split('\n\n')[0]
    rows = re.findall(r'^\| `(\w+)` \| (?:`(.*)`)? ?\| (.+) \|$', table, re.MULTILINE)
    declared = declared_arguments(ROOT / 'launch' / 'captioner.launch.py')
    assert [row[0] for row in rows] == list(declared)
    for name, default, _ in rows:
        if name != 'params_file':
            assert default == declared[name]['default_value'].value, name


def test_every_choice_is_one_that_the_node_takes():
    specs = {spec.name: spec for spec in PARAMETERS}
    declared = declared_arguments(ROOT / 'launch' / 'captioner.launch.py')
    checked = 0
    for name in declared.keys() & specs.keys():
        if specs[name].choices:
            assert ast.literal_eval(declared[name]['choices']) == ['', *specs[name].choices], name
            checked += 1
    assert checked == 3


# From here on with the real launch.


@pytest.fixture
def start(tmp_path):
    """Return a function that starts a launch file with arguments; skip without launch."""
    pytest.importorskip('launch_ros', reason='launch_ros is not installed')

    def start_launch_file(name, executables={}, **arguments):
        arguments.setdefault('model', 'simple')
        return LaunchProcess(tmp_path, name, arguments, executables)
    return start_launch_file


def manager_of(launch: LaunchProcess, namespace: str = '') -> LifecycleManager:
    return LifecycleManager(launch.domain, ['captioner'], namespace)


def test_autostart_activates_once(start):
    with start('captioner', namespace='robot1') as launch, \
            manager_of(launch, '/robot1') as manager:
        launch.wait_for(lambda: manager.state('captioner') == ACTIVE)
        assert manager.reset() and manager.configure()
        for _ in range(10):  # 1 s in which nobody activates it
            launch.wait_for(lambda: True)
            assert manager.state('captioner') == INACTIVE
        assert launch.end() == 0
        assert 'Traceback' not in launch.output()


def test_without_autostart_nothing_happens_to_it(start):
    with start('captioner', autostart='false') as launch, manager_of(launch) as manager:
        assert manager.state('captioner') == UNCONFIGURED
        assert manager.startup()
        assert launch.end() == 0


def test_a_failed_configure_is_told_and_not_followed_by_activate(start, tmp_path):
    parameters = tmp_path / 'parameters.yaml'
    parameters.write_text(
        '/**: {ros__parameters: {checkpoint: /missing.safetensors, fallback: none}}')
    with start('captioner', params_file=str(parameters)) as launch, manager_of(launch) as manager:
        launch.wait_for(lambda: 'could not be configured and' in launch.output())
        assert '/missing.safetensors' in launch.output()
        assert manager.state('captioner') == UNCONFIGURED


def test_a_node_that_was_killed_comes_back(start):
    with start('captioner', respawn='true') as launch:
        with manager_of(launch) as manager:
            launch.wait_for(lambda: manager.state('captioner') == ACTIVE)
        node, = psutil.Process(launch.process.pid).children()
        node.kill()
        launch.wait_for(lambda: launch.output().count('stage warm_up') == 2, 60)
        with manager_of(launch) as manager:
            launch.wait_for(lambda: manager.state('captioner') == ACTIVE)
        assert launch.end() == 0


def test_an_unknown_model_is_refused(start):
    with start('captioner', model='big') as launch:
        assert launch.process.wait(20) == 1
        assert "'mobilenet', 'simple']" in launch.output()


def test_a_node_that_cannot_start_ends_launch_with_an_error(start, tmp_path):
    parameters = tmp_path / 'parameters.yaml'
    parameters.write_text('/**: {ros__parameters: {max_rate_hz: -3.0}}')
    with start('captioner', params_file=str(parameters)) as launch:
        assert launch.process.wait(30) == 1
        assert '[FATAL]' in launch.output() and 'max_rate_hz' in launch.output()


def test_arguments_take_precedence_over_the_file_where_they_are_given(start, tmp_path):
    parameters = tmp_path / 'parameters.yaml'
    parameters.write_text('/**: {ros__parameters: {model: simple, image_topics: [from_file]}}')
    for arguments, topic in (({}, '/from_file'), ({'image_topic': 'a'}, '/a')):
        folder = tmp_path / topic.strip('/')
        folder.mkdir()
        launch = LaunchProcess(
            folder, 'captioner', {'params_file': str(parameters), **arguments})
        with launch, manager_of(launch) as manager:
            launch.wait_for(lambda: manager.state('captioner') == ACTIVE)
            # The simple model of the file, too: the argument's default is not a model.
            assert 'stage opencv' in launch.output() and 'stage torch' not in launch.output()
            launch.wait_for(lambda: manager.node.count_subscribers(topic))


def test_several_cameras(start):
    with start('multi_camera', cameras='front, rear/upper', image_name='image') as launch, \
            manager_of(launch) as manager:
        launch.wait_for(lambda: manager.state('captioner') == ACTIVE)
        for topic in ('/front/image', '/rear/upper/image'):
            launch.wait_for(lambda: manager.node.count_subscribers(topic))
        for topic in ('/captioner/front/caption', '/captioner/rear_upper/caption'):
            launch.wait_for(lambda: manager.node.count_publishers(topic))


# Takes the place of nav2_lifecycle_manager, with the parameters the launch file gives it.
MANAGER = f"""#!{sys.executable}
import os, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import rclpy
from lifecycle_manager import LifecycleManager
rclpy.init()
node = rclpy.create_node('manager', automatically_declare_parameters_from_overrides=True)
names, autostart, bond_timeout = (
    node.get_parameter(name).value for name in ('node_names', 'autostart', 'bond_timeout'))
print('parameters', names, autostart, bond_timeout, flush=True)
with LifecycleManager(
        int(os.environ['ROS_DOMAIN_ID']), names, node.get_namespace(), bond_timeout) as manager:
    print('startup', manager.startup() if autostart else None, flush=True)
    try:
        rclpy.spin(node)
    except KeyboardInterrupt:
        pass
"""


def test_the_manager_brings_the_captioner_up(start):
    with start('managed', {'nav2_lifecycle_manager/lifecycle_manager': MANAGER},
               namespace='robot1') as launch:
        launch.wait_for(lambda: 'startup True' in launch.output())
        bond_timeout = 4.0 if find_spec('bondpy') else 0.0
        assert f"parameters ['captioner'] True {bond_timeout}" in launch.output()
        assert launch.end() == 0


# Takes the place of rosbag2: plays nothing for a second, records COUNT captions until interrupted.
BAG = f"""#!{sys.executable}
import os, pathlib, sys, time
print('ros2', *sys.argv[1:], flush=True)
try:
    time.sleep(1 if sys.argv[2] == 'play' else 600)
except KeyboardInterrupt:
    print(sys.argv[2], 'was interrupted', flush=True)
if sys.argv[2] == 'record':
    bag = pathlib.Path(sys.argv[sys.argv.index('-o') + 1])
    bag.mkdir()
    (bag / 'metadata.yaml').write_text(
        os.environ['METADATA'].format('/captioner/caption', 'String', os.environ['COUNT']))
"""
METADATA = (
    'rosbag2_bagfile_information: {{topics_with_message_count: [{{topic_metadata: '
    '{{name: {}, type: sensor_msgs/msg/{}}}, message_count: {}}}]}}')


@pytest.fixture
def replay(start, tmp_path, monkeypatch):
    """Return a function that replays a bag with /image_raw; `count` captions are recorded."""
    (tmp_path / 'bin').mkdir()
    ros2 = tmp_path / 'bin' / 'ros2'
    ros2.write_text(BAG)
    ros2.chmod(0o755)
    (tmp_path / 'drive1').mkdir()
    (tmp_path / 'drive1' / 'metadata.yaml').write_text(METADATA.format('/image_raw', 'Image', 30))
    monkeypatch.setenv('PATH', str(tmp_path / 'bin'), prepend=':')
    monkeypatch.setenv('METADATA', METADATA)

    def run(count=30, **arguments):
        monkeypatch.setenv('COUNT', str(count))
        with start('replay', bag=str(tmp_path / 'drive1'), **{
                'output': str(tmp_path / 'captions'), **arguments}) as launch:
            return launch.process.wait(60), launch.output()
    return run


def test_a_replay_plays_once_the_node_is_active_and_ends_by_itself(replay, tmp_path):
    code, output = replay(rate='2.0')
    assert code == 0, output
    assert f'ros2 bag play {tmp_path / "drive1"} --clock --delay 5 --rate 2.0' in output
    assert f'ros2 bag record --use-sim-time -o {tmp_path / "captions"} --regex' in output
    assert output.index('stage warm_up') < output.index('ros2 bag play')
    assert 'record was interrupted' in output and '30 captions were recorded' in output


def test_a_replay_without_captions_is_an_error_and_leaves_nothing_in_the_way(replay, tmp_path):
    code, output = replay(count=0)
    assert code == 1 and 'nothing was captioned' in output
    assert not (tmp_path / 'captions').exists()


def test_a_replay_whose_node_cannot_be_configured_is_an_error(replay, tmp_path):
    parameters = tmp_path / 'parameters.yaml'
    parameters.write_text(
        '/**: {ros__parameters: {checkpoint: /missing.safetensors, fallback: none}}')
    code, output = replay(params_file=str(parameters))
    assert code == 1 and 'the captioner could not be configured' in output
    assert 'ros2 bag' not in output


def test_a_replay_that_cannot_be_is_refused_before_it_starts(replay):
    code, output = replay(image_topic='/cam/image')
    assert code == 1 and 'has no Image on /cam/image. It has /image_raw (Image, 30)' in output
    assert 'process started' not in output


@pytest.mark.parametrize('name, argument, value', [
    ('multi_camera', 'cameras', 'a,,b'), ('captioner', 'image_topic', 'a,')])
def test_an_empty_name_is_refused(start, name, argument, value):
    with start(name, **{argument: value}) as launch:
        assert launch.process.wait(20) == 1
        text = f'{argument}:={value} has an empty name, expected one between commas'
        assert text in launch.output()
