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

"""Test the node with a server: what it publishes and answers, and what nobody can make it do."""

import json
from pathlib import Path
import shlex
import signal
import sys
import time

from fake_server import CAPTION, FakeServer
from gguf_files import write_model
import jsonschema
from node_process import image_message, NodeProcess
import psutil
import pytest
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.parameter import Parameter
from std_srvs.srv import Trigger

PROGRAM = Path(__file__).with_name('fake_server.py')
SCHEMA = json.loads(
    (Path(__file__).parent.parent / 'docs' / 'caption_info.schema.json').read_text())
READ_ONLY = ('server_url', 'server_command', 'server_binary', 'server_model', 'projector')


@pytest.fixture(scope='module')
def picture(photograph):
    """Return one that is small enough to come through on a busy machine."""
    return photograph[::4, ::4].copy()


@pytest.fixture(scope='module')
def server():
    with FakeServer('', seconds=60) as fake:
        yield fake


@pytest.fixture(scope='module')
def active(server):
    """Return an active node that asks a server."""
    with NodeProcess({'model': 'server', 'server_url': server.url, 'max_rate_hz': 0.0,
                      'still_threshold': 0.0,
                      'inference_timeout_s': 1.0, 'reserve_memory_mb': 20.0}) as node:
        assert node.change('configure') and node.change('activate')
        yield node


def test_it_captions_answers_and_lives_through_a_server_that_hangs(active, server, picture):
    camera, frame = active.camera(), image_message(picture)
    info = active.next_caption(camera, frame)
    jsonschema.validate(info, SCHEMA)
    assert (info['caption'], info['model'], info['score_kind'], info['attention_peak']) == (
        CAPTION, 'server', 'token_probability', None)
    # Whatever it says of the camera by now: nothing is sent while we wait.
    values = active.wait_for(lambda: next(
        (found for status in active.statuses
         if 'server' in (found := {pair.key: pair.value for pair in status.values})), None))
    assert values['server'] == server.url and 'stage server_start' in values

    assert active.set_parameter('prompt', 'Is there a dog?').successful
    server.caption = 'Sure! **No**, there is none.'
    answer = active.call(Trigger, 'ask', Trigger.Request())
    assert (answer.success, answer.message) == (True, 'No, there is none.')
    assert server.questions[-1]['messages'][0]['content'][1]['text'] == 'Is there a dog?'
    for prompt in ('', ' ', 'x' * 2001):
        assert not active.set_parameter('prompt', prompt).successful

    server.play = 'slow'
    started, seen = time.monotonic(), len(active.infos)
    info = active.next_caption(camera, frame)
    while info['model'] != 'simple':  # one may have been on its way
        info = active.next_caption(camera, frame)
    jsonschema.validate(info, SCHEMA)
    assert info['latency_ms'] > 400, 'the age of a caption that took long is honest'
    assert server.given_up.wait(5)

    def reason():
        return {pair.key: pair.value for pair in active.statuses[-1].values}['reason']

    active.wait_for(lambda: 'no answer within 0.5 s' in reason())
    answer = active.call(Trigger, 'ask', Trigger.Request())
    assert not answer.success and 'takes no questions' in answer.message
    assert len(active.infos) > seen and time.monotonic() - started < 60
    server.play = 'ok'
    while active.next_caption(camera, frame)['model'] != 'server':
        assert time.monotonic() - started < 60


def test_a_frame_that_cannot_be_decoded_is_bad_also_for_a_question(active, picture):
    assert active.set_parameter('mode', 'on_demand').successful
    try:
        frame = image_message(picture)
        frame.encoding = 'nonsense'
        camera = active.camera()
        before = int(active.wait_for(lambda: active.diagnostics.get('frames bad')))
        camera.publish(frame)
        answer = active.wait_for(lambda: (
            found if 'nonsense' in (found := active.call(Trigger, 'ask', Trigger.Request())).message
            else camera.publish(frame)))
        assert not answer.success
        active.wait_for(lambda: int(active.diagnostics['frames bad']) > before)
        assert 'nonsense' in active.summary
    finally:
        assert active.set_parameter('mode', 'continuous').successful


def test_no_parameter_makes_the_node_run_a_program_or_send_pictures_elsewhere(
        active, server, picture, tmp_path):
    touched = tmp_path / 'touched'
    with FakeServer('') as elsewhere:
        wanted = {
            'server_url': elsewhere.url, 'server_command': f'touch {touched}',
            'server_binary': '/bin/touch', 'projector': str(touched), 'server_model': 'x:cloud'}
        assert set(wanted) == set(READ_ONLY)
        for state in ('active', 'inactive', 'unconfigured'):
            assert active.state() == state
            for name, value in wanted.items():
                result = active.set_parameter(name, value)
                assert not result.successful and 'read' in result.reason, (name, result.reason)
            for parameters in ([Parameter(name, value=value) for name, value in wanted.items()],
                               [Parameter(name) for name in wanted]):  # taken away
                request = SetParametersAtomically.Request(
                    parameters=[parameter.to_parameter_msg() for parameter in parameters])
                assert not active.call(
                    SetParametersAtomically, 'set_parameters_atomically', request).result.successful
            if state != 'unconfigured':
                assert active.change('deactivate' if state == 'active' else 'cleanup')
        assert all(descriptor.read_only for descriptor in active.describe(list(READ_ONLY)))
        # What can be set does no more than choose files and words; what is said is not looked up.
        server.caption = f'See ![this]({elsewhere.url}/x.jpg), {elsewhere.url} it says.'
        for name, value in (('checkpoint', f'; touch {touched}'), ('prompt', elsewhere.url)):
            assert active.set_parameter(name, value).successful
        assert active.change('configure') and active.change('activate')
        assert active.next_caption(active.camera(), image_message(picture))['model'] == 'server'
        assert not elsewhere.requests and not touched.exists()


def test_a_node_without_a_server_cannot_be_given_one(tmp_path):
    model, _ = write_model(tmp_path)
    with NodeProcess({'model': 'simple'}) as node:
        assert node.set_parameter('model', 'server').successful
        assert node.set_parameter('checkpoint', model).successful
        assert not node.change('configure')
        assert 'needs server_url, server_command' in node.status('configure failed').message


def test_a_server_of_its_own_ends_with_the_node(tmp_path, picture):
    model, projector = write_model(tmp_path)
    command = shlex.join([
        sys.executable, '-S', str(PROGRAM), '-m', model, '--mmproj', projector])
    with NodeProcess({'model': 'server', 'server_command': command, 'max_rate_hz': 0.0,
                      'reserve_memory_mb': 20.0}) as node:
        assert node.change('configure') and node.change('activate')
        assert node.next_caption(node.camera(), image_message(picture))['model'] == 'server'
        assert len(node.workers()) == 2
        assert node.change('deactivate') and node.change('cleanup')
        assert not node.workers()
        assert node.change('configure')
        processes = node.workers()
        node.process.send_signal(signal.SIGKILL)
        node.process.wait()
        gone, alive = psutil.wait_procs(processes, timeout=10)
        assert not [p for p in alive if p.status() != psutil.STATUS_ZOMBIE]
