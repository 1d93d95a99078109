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

"""The model's memory is given back while there is no work; another model is taken on the way."""

import functools

from diagnostic_msgs.msg import DiagnosticStatus
from jetcap_ros.benchmark.cgroup import CgroupUnavailable, MemoryCgroup
from jetcap_ros.engine.captioner import Captioner, CaptionerError
from jetcap_ros.engine.settings import CaptionerSettings, SHIPPED_CHECKPOINT
from node_process import image_message, NodeProcess
import psutil
import pytest
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
import waiting
from waiting import workers

EASY = {'reserve_memory_mb': 50}
wait_for = functools.partial(waiting.wait_for, timeout=120)


def open_files():
    return psutil.Process().num_fds(), psutil.Process().num_threads()


def test_a_captioner_without_work_sleeps_and_wakes(photograph):
    said = []
    with Captioner(
            CaptionerSettings(model='simple', sleep_after_s=0.01, **EASY),
            log=lambda severity, line: said.append(line)) as captioner:
        captioner.configure()
        text = captioner.caption(photograph).text
        before = None
        for count in range(1, 6):
            wait_for(lambda: sum('asleep' in line for line in said) == count)
            assert captioner.asleep_for is not None
            assert captioner.worker_pid is None and not workers()
            before = before or open_files()
            assert captioner.caption(photograph).text == text
            assert captioner.reason == '' and captioner.restarts == 0
        wait_for(lambda: sum('asleep' in line for line in said) == 6)
        assert open_files() == before


def test_the_simple_model_answers_while_the_full_one_wakes(photograph):
    pytest.importorskip('torch')
    with Captioner(CaptionerSettings(sleep_after_s=0.3, recover=False, **EASY)) as captioner:
        captioner.configure()
        wait_for(lambda: captioner.asleep_for is not None)
        assert captioner.caption(photograph).model == 'simple'
        captioner.settings.sleep_after_s = 0.0
        wait_for(lambda: captioner.model_in_use == 'mobilenet')
        assert captioner.caption(photograph).model == 'mobilenet'
        assert captioner.reason == '' and captioner.restarts == 0
        wait_for(lambda: len(workers()) == 1)


def test_a_wake_that_finds_no_memory_says_so(photograph):
    with Captioner(CaptionerSettings(model='simple', sleep_after_s=0.01, **EASY)) as captioner:
        captioner.configure()
        wait_for(lambda: captioner.asleep_for is not None)
        captioner.settings.reserve_memory_mb = 1e9
        with pytest.raises(CaptionerError, match='MB needed'):
            captioner.caption(photograph)
        captioner.settings.reserve_memory_mb = 50
        wait_for(lambda: captioner.model_in_use == 'simple')


def test_swaps_of_a_captioner(photograph, tmp_path):
    with Captioner(CaptionerSettings(model='simple', **EASY)) as captioner:
        captioner.configure()
        text, pid = captioner.caption(photograph).text, captioner.worker_pid
        captioner.swap({'num_threads': 1})
        wait_for(lambda: captioner.settings.num_threads == 1)
        assert captioner.worker_pid != pid
        assert captioner.caption(photograph).text == text
        pid = captioner.worker_pid
        (tmp_path / 'damaged.safetensors').write_bytes(b'nothing')
        captioner.swap({'checkpoint': str(tmp_path / 'damaged.safetensors')})
        wait_for(lambda: captioner.swap_failure)
        assert 'damaged.safetensors' in captioner.swap_failure
        assert captioner.worker_pid == pid and captioner.settings.checkpoint == ''
        assert captioner.caption(photograph).text == text
        captioner.swap({'checkpoint': ''})
        wait_for(lambda: not captioner.swap_failure)
        assert captioner.worker_pid == pid and len(workers()) == 1


def test_where_there_is_no_room_for_two_one_makes_room_for_the_other(photograph):
    """A node, a simple model and what a second one needs do not fit; the frames do wait."""
    try:
        group = MemoryCgroup(420)
    except CgroupUnavailable as error:
        pytest.skip(f'no real cgroup here: {error}')
    with group, NodeProcess(
            {'model': 'simple', 'max_rate_hz': 0.0, 'still_threshold': 0.0},
            prefix=group.command([])) as node:
        assert node.change('configure') and node.change('activate')
        camera, message = node.camera(), image_message(photograph[::2, ::2].copy())
        first = node.next_caption(camera, message)
        worker, = node.workers()
        group.set_limit(group.held_mb + 200)  # less than the reserve and a second one
        assert node.set_parameter('num_threads', 1).successful
        node.wait_for(lambda: 'captions from now on' in node.output())
        assert node.next_caption(camera, message)['caption'] == first['caption']
        assert node.status('simple model captions', after=len(node.statuses)).level == \
            DiagnosticStatus.OK
        assert group.oom_kills == 0 and worker.pid not in [w.pid for w in node.workers()]


def test_a_node_sleeps_wakes_and_swaps_while_it_is_active(photograph):
    with NodeProcess({
            'model': 'simple', 'max_rate_hz': 0.0, 'still_threshold': 0.0,
            'sleep_after_s': 1.0}) as node:
        assert node.change('configure') and node.change('activate')
        camera, message = node.camera(), image_message(photograph[::2, ::2].copy())
        first = node.next_caption(camera, message)
        status = node.status('asleep')
        assert status.level == DiagnosticStatus.OK
        assert node.diagnostics['state'] == 'asleep' and not node.workers()
        assert node.state() == 'active'
        assert node.next_caption(camera, message)['caption'] == first['caption']
        assert node.set_parameter('sleep_after_s', 0.0).successful

        refused = node.set_parameter('checkpoint', '/no/such.safetensors')
        assert not refused.successful and 'No such file' in refused.reason
        assert node.next_caption(camera, message)['caption'] == first['caption']
        worker, = node.workers()
        own = node.set_parameter('start_type_description_service', True)  # rclpy's, as it is
        assert own.successful or 'not declared' in own.reason
        request = SetParameters.Request(parameters=[
            Parameter(name, value=value).to_parameter_msg() for name, value in (
                ('checkpoint', SHIPPED_CHECKPOINT), ('num_threads', 1), ('quantize', 'none'))])
        answer = node.call(SetParameters, 'set_parameters', request)
        assert all(result.successful for result in answer.results)
        node.wait_for(lambda: 'captions from now on' in node.output())
        assert worker.pid not in [w.pid for w in node.workers()]
        assert node.next_caption(camera, message)['caption'] == first['caption']
        assert node.output().count('captions from now on') == 1
        assert node.set_parameter('image_topics', ['image_raw']).successful  # as it is
        assert not node.set_parameter('image_topics', ['other']).successful
