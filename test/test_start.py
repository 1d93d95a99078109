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

"""What the node says when it starts: of its parameters, its files and its command line."""

import subprocess
import sys

from jetcap_ros.node.camera_topics import camera_names, resolve_image_topics
from jetcap_ros.node.parameter_files import (
    parameter_files, ParameterFileError, read_node_names, unknown_parameters, unused_file)
import pytest


def start(*arguments):
    """Start a node that cannot start; return the only line that it prints."""
    run = subprocess.run(
        [sys.executable, '-m', 'jetcap_ros.node', '--ros-args', *arguments], timeout=30,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert run.returncode == 1, run.stdout
    lines = [line for line in run.stdout.splitlines() if '[rcl]' not in line]
    assert len(lines) == 1 and lines[0].startswith('[FATAL]'), run.stdout
    return lines[0]


@pytest.mark.parametrize('parameter, text', [
    ('image_topics:=[]', 'image_topics has no value, expected one as its default, ["image_raw"]'),
    ('image_topics:=[front/1st]', "'front/1st': topic name token must not start with a number"),
    ('image_topics:=[a, a]', 'image_topics: expected one topic or more, each once'),
    ('camera_names:=[front-left]', "camera_names: 'front-left': topic name must not contain"),
])
def test_a_parameter_that_cannot_be_is_told_in_one_line(parameter, text):
    assert text in start('-p', parameter)


def test_a_malformed_file_is_told_in_one_line(tmp_path):
    path = tmp_path / 'params.yaml'
    path.write_text('/**:\n  ros__parameters:\n    model: [simple\n    mode: on_demand\n')
    assert f'parameter file {path}, line 4: ' in start('--params-file', str(path))


def test_a_remapping_that_cannot_be_is_told_with_the_rule():
    assert "remap rule: '-r __ns:=/a-b'" in (line := start('-r', '__ns:=/a-b'))
    assert 'names are letters, digits and _' in line and '.c:' not in line


@pytest.mark.parametrize('text, problem', [
    ('captioner:\n  model: simple', 'line 2: expected .* captioner/model without'),
    ('[1, 2]', 'line 1: expected .* it without'),
    ('model: simple', 'line 1: expected .* model without'),
    ('{', 'line 1: expected'),
])
def test_a_file_that_ros_would_refuse(tmp_path, text, problem):
    path = tmp_path / 'params.yaml'
    path.write_text(text)
    with pytest.raises(ParameterFileError, match=problem) as error:
        read_node_names(str(path))
    assert str(path) in str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize('text, node, used', [
    ('/**: {ros__parameters: {a: 1}}', '/robot/captioner', True),
    ('/*: {ros__parameters: {a: !!python/tuple [1]}}', '/captioner', True),  # as launch does
    ('/*: {ros__parameters: {a: 1}}', '/robot/captioner', False),
    ('/**/captioner: {ros__parameters: {a: 1}}', '/robot/captioner', True),
    ('captioner: {ros__parameters: {a: 1}}', '/captioner', True),
    ('captioner: {ros__parameters: {a: 1}}', '/robot/captioner', False),
    ('robot: {captioner: {ros__parameters: {a: 1}}}', '/robot/captioner', True),
    ('captionr: {ros__parameters: {a: 1}}', '/captioner', False),
    ('', '/captioner', True),
])
def test_a_file_for_other_nodes_is_told(tmp_path, text, node, used):
    path = tmp_path / 'params.yaml'
    path.write_text(text)
    assert (unused_file(str(path), read_node_names(str(path)), node) == '') == used


def test_files_are_found_on_the_command_line():
    words = ['node', '--params-file', 'no', '--ros-args', '-r', 'a:=b', '--params-file', 'x.yaml',
             '--', '--params-file', 'no', '--ros-args', '--params-file', 'y.yaml']
    assert parameter_files(words) == ['x.yaml', 'y.yaml']


def test_unknown_parameters_are_named_with_the_nearest_one():
    known = ['max_rate_hz', 'image_topics']
    assert unknown_parameters([], known) == ''
    text = unknown_parameters(['max_rate', 'colour'], known)
    assert text.endswith('does not have: max_rate (meant: max_rate_hz?), colour')


class Resolver:
    """Resolves names as a node in /robot does, with b remapped to a."""

    @staticmethod
    def resolve_topic_name(topic):
        return {'/robot/b': '/robot/a'}.get(
            name := topic if topic.startswith('/') else f'/robot/{topic}', name)


@pytest.mark.parametrize('topics, compressed, expected', [
    (['a', '/c'], False, ['/robot/a', '/c']),
    (['a', '/c/compressed'], True, ['/robot/a/compressed', '/c/compressed']),
    (['a', '/robot/a'], False, None),
    (['a', 'b'], False, None),
    (['a', 'a/compressed'], True, None),
])
def test_each_topic_is_subscribed_to_once(topics, compressed, expected):
    if expected is None:
        with pytest.raises(ValueError, match=f'{topics[0]} and {topics[1]} are both /robot/a'):
            resolve_image_topics(Resolver, topics, compressed)
    else:
        assert resolve_image_topics(Resolver, topics, compressed) == expected


def test_cameras_are_named_after_what_tells_them_apart():
    assert camera_names(['/front/image_raw', '/rear/image/compressed'], ['']) == ['front', 'rear']
    assert camera_names(['/a/cam/image', '/b/cam/image'], []) == ['a_cam', 'b_cam']
