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

"""Nothing that happens to the model or to memory ends the node: over real DDS, in real cgroups."""

import os
import signal
import sys
import threading
import time

from diagnostic_msgs.msg import DiagnosticStatus
from jetcap_ros.benchmark.cgroup import CgroupUnavailable, MemoryCgroup
from jetcap_ros.memory.memory_utils import process_memory
from node_process import image_message, NodeProcess
import psutil
import pytest
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image

# Takes 10 MB every 20 ms until it has what it was told, then keeps it.
EATER = """
import sys, time
eaten = []
for _ in range(int(sys.argv[1]) // 10):
    eaten.append(b'x' * 10_000_000)
    time.sleep(0.02)
time.sleep(60)
"""


@pytest.fixture
def cgroup():
    """Return a function that makes a memory cgroup of so many MB."""
    made = []

    def make(limit_mb):
        try:
            made.append(MemoryCgroup(limit_mb))
        except CgroupUnavailable as error:
            pytest.skip(f'no real memory cgroup here: {error}')
        return made[-1]

    yield make
    for group in made:
        group.close()


def hanging_torch(tmp_path):
    """Return an environment in which importing torch takes for ever."""
    (tmp_path / 'torch.py').write_text('import time; time.sleep(3600)')
    return {'PYTHONPATH': str(tmp_path)}


def start_hanging_configure(node):
    configure = node.send_change('configure')
    node.wait_for(lambda: 'stage metadata' in node.output())
    return configure


def test_the_node_answers_while_it_configures(tmp_path):
    with NodeProcess({}, environment=hanging_torch(tmp_path)) as node:
        configure = start_hanging_configure(node)
        assert node.state() == 'configuring'
        assert node.set_parameter('max_rate_hz', 5.0).successful
        assert not node.set_parameter('image_transport', 'compressed').successful
        # A second configure is refused at once, not queued behind the first.
        assert not node.change('configure')
        assert not node.change('activate') and not node.change('deactivate')
        assert not configure.done() and node.state() == 'configuring'
        assert node.status('configuring')


@pytest.mark.parametrize('request_name, state', [
    ('cleanup', 'unconfigured'), ('shutdown', 'finalized')])
def test_a_configure_can_be_called_off(request_name, state, tmp_path):
    with NodeProcess({}, environment=hanging_torch(tmp_path)) as node:
        configure = start_hanging_configure(node)
        assert node.change(request_name, timeout=10)
        assert not node.wait_for(configure.done) or not configure.result().success
        assert node.state() == state
        assert not node.workers()
        assert 'Traceback' not in node.output()


@pytest.mark.parametrize('request_name, state', [
    ('deactivate', 'inactive'), ('shutdown', 'finalized')])
def test_a_caption_that_hangs_holds_nothing_up(request_name, state, photograph):
    with NodeProcess({'model': 'simple', 'inference_timeout_s': 600.0, 'recover': False}) as node:
        assert node.change('configure') and node.change('activate')
        camera = node.camera()
        node.next_caption(camera, image_message(photograph))
        worker, = node.workers()
        stopped = threading.Event()

        def keep_stopped():
            # A tracer would hold it without the node noticing a stop; a debugger is such a one.
            while not stopped.is_set() and worker.is_running():
                camera.publish(image_message(photograph))
                time.sleep(0.02)

        thread = threading.Thread(target=keep_stopped)
        thread.start()
        try:
            worker.suspend()
            assert node.change(request_name, timeout=10)
            assert node.state() == state
            count = len(node.infos)
            time.sleep(0.5)
            assert len(node.infos) == count
        finally:
            stopped.set()
            thread.join()
        if request_name == 'deactivate':
            assert node.change('activate')
            assert node.next_caption(camera, image_message(photograph))['caption']


@pytest.mark.needs('torch')
def test_a_worker_that_dies_at_work_is_said_and_replaced(photograph):
    with NodeProcess({'max_rate_hz': 0.0, 'recover': False}) as node:
        assert node.change('configure') and node.change('activate')
        camera = node.camera()
        message = image_message(photograph)
        assert node.next_caption(camera, message)['model'] == 'mobilenet'
        node.workers()[0].send_signal(signal.SIGSEGV)
        status = node.status('the simple model captions instead of mobilenet')
        assert status.level == DiagnosticStatus.WARN and 'SIGSEGV' in status.message
        assert node.next_caption(camera, message)['model'] == 'simple'
        assert node.state() == 'active'


@pytest.mark.parametrize('state', ['configuring', 'active'])
def test_no_worker_outlives_a_killed_node(state, tmp_path, photograph):
    environment = hanging_torch(tmp_path) if state == 'configuring' else None
    model = 'mobilenet' if state == 'configuring' else 'simple'
    with NodeProcess({'model': model}, environment=environment) as node:
        if state == 'configuring':
            start_hanging_configure(node)
        else:
            assert node.change('configure') and node.change('activate')
        workers = node.workers()
        assert workers
        node.process.send_signal(signal.SIGKILL)
        gone, alive = psutil.wait_procs(workers, timeout=5)
        assert not alive


@pytest.mark.needs('torch')
def test_a_manager_can_try_again_after_a_failure(photograph):
    with NodeProcess({'fallback': 'none', 'min_available_memory_mb': 1e6}) as node:
        assert not node.change('configure')
        status = node.status('configure failed')
        assert status.level == DiagnosticStatus.ERROR and '1000000' in status.message
        assert node.set_parameter('min_available_memory_mb', 300.0).successful
        assert node.change('configure') and node.change('activate')
        assert node.next_caption(node.camera(), image_message(photograph))['model'] == 'mobilenet'


@pytest.mark.parametrize('limit_mb, outcomes', [
    (150, {'simple', 'refused'}), (350, {'simple'}),
    pytest.param(1400, {'mobilenet', 'simple'}, marks=pytest.mark.needs('torch'))])
def test_any_amount_of_memory_leads_somewhere(limit_mb, outcomes, cgroup, photograph):
    group = cgroup(limit_mb)
    parameters = {'min_available_memory_mb': 600.0, 'reserve_memory_mb': 50.0, 'max_rate_hz': 0.0}
    with NodeProcess(parameters, prefix=group.command([])) as node:
        configured = node.change('configure')
        assert node.process.poll() is None
        if configured:
            assert node.change('activate')
            outcome = node.next_caption(node.camera(), image_message(photograph))['model']
            if outcome == 'simple':
                assert 'MB' in node.status('the simple model captions').message
        else:
            outcome = 'refused'
            assert 'MB' in node.status('configure failed').message
        assert outcome in outcomes
        assert node.process.poll() is None


@pytest.mark.needs('torch')
def test_a_worker_that_the_kernel_kills_for_memory_is_told_from_a_crash(cgroup, photograph):
    group = cgroup(900)
    # Without any checks, so that the kernel is what stops it.
    parameters = {'min_available_memory_mb': 0.0, 'reserve_memory_mb': 0.0, 'recover': False,
                  'max_rate_hz': 0.0}
    with NodeProcess(parameters, prefix=group.command([])) as node:
        assert node.change('configure') and node.change('activate')
        camera = node.camera()
        assert node.next_caption(camera, image_message(photograph))['model'] == 'mobilenet'
        # Somebody takes all the rest; of the two, the worker offers itself.
        eater = group.start([sys.executable, '-c', EATER, '1000'])
        try:
            node.wait_for(lambda: group.oom_kills, 60)
        finally:
            eater.kill()
            eater.wait()
        assert 'killed by the kernel for lack of memory' in node.status('kernel').message
        assert node.next_caption(camera, image_message(photograph))['model'] == 'simple'
        assert node.process.poll() is None


@pytest.mark.needs('torch')
def test_memory_is_given_back_before_the_kernel_takes_it(cgroup, photograph):
    group = cgroup(1500)
    parameters = {'min_available_memory_mb': 500.0, 'reserve_memory_mb': 200.0,
                  'max_rate_hz': 0.0}
    with NodeProcess(parameters, prefix=group.command([])) as node:
        assert node.change('configure') and node.change('activate')
        camera = node.camera()
        assert node.next_caption(camera, image_message(photograph))['model'] == 'mobilenet'
        held = sum(
            process_memory(process.pid).anonymous_mb
            for process in [*node.workers(), psutil.Process(node.process.pid)])
        taken = int(1500 - held - 100)  # into the reserve
        eater = group.start([sys.executable, '-c', EATER, str(taken)])
        try:
            deadline = time.monotonic() + 30
            while node.next_caption(camera, image_message(photograph))['model'] != 'simple':
                assert time.monotonic() < deadline, node.output()
            status = node.status('the simple model captions instead')
            assert status.level == DiagnosticStatus.WARN
            assert 'reserve_memory_mb' in status.message
            assert node.next_caption(camera, image_message(photograph))['model'] == 'simple'
            assert group.oom_kills == 0 and eater.poll() is None
        finally:
            eater.kill()
            eater.wait()
        deadline = time.monotonic() + 60
        while node.next_caption(camera, image_message(photograph))['model'] != 'mobilenet':
            assert time.monotonic() < deadline, node.output()
            time.sleep(0.2)  # with which it loads
        assert node.status('the mobilenet model captions', len(node.statuses))


def test_cycles_and_frames_leave_nothing_behind(photograph):
    with NodeProcess({'model': 'simple', 'max_rate_hz': 0.0, 'beam_size': 1}) as node:
        process = psutil.Process(node.process.pid)
        small = image_message(photograph[::4, ::4].copy())  # of which none gets lost
        camera = node.node.create_publisher(Image, '/image_raw', qos_profile_sensor_data)

        def cycle(frames):
            assert node.change('configure'), node.output()
            assert node.change('activate'), node.output()
            node.wait_for(camera.get_subscription_count)
            for _ in range(frames):
                node.next_caption(camera, small)
            assert node.change('deactivate') and node.change('cleanup')

        def held():
            return process.num_threads(), process.num_fds()

        def memory():
            return process_memory(node.process.pid).anonymous_mb

        # What threads and the middleware keep for good is there after some cycles.
        for _ in range(8):
            cycle(2)
        (threads, files), before = held(), memory()
        for _ in range(12):
            cycle(2)
        cycle(150)
        # The thread that answered the last service may be ending.
        node.wait_for(lambda: held()[0] <= threads and held()[1] <= files, 5)
        assert memory() - before < 5
        assert not process.children()


def test_frames_of_others_do_not_reach_the_worker():
    """The socket is a pair: there is no address to send to."""
    with NodeProcess({'model': 'simple'}) as node:
        assert node.change('configure')
        worker, = node.workers()
        assert not worker.net_connections(kind='inet')
        with open('/proc/net/unix', encoding='ascii') as file:
            lines = [line.split() for line in file][1:]
        inodes = {
            os.readlink(f'/proc/{worker.pid}/fd/{fd}')[8:-1]
            for fd in os.listdir(f'/proc/{worker.pid}/fd')
            if os.readlink(f'/proc/{worker.pid}/fd/{fd}').startswith('socket:')}
        assert inodes
        assert not [line for line in lines if line[6] in inodes and len(line) > 7]
