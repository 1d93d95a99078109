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

"""The node, fed a bag over DDS as it was recorded, and the offline replay say the same."""

import json
import os
from pathlib import Path
import signal
import subprocess
import sys
import time

from jetcap_ros.cli import main
from jetcap_ros.replay.captions import read_records
import pytest
import rclpy
from replay_bags import write_bag

ROOT = Path(__file__).parent.parent
FRAMES = 8
PERIOD = 0.4  # s; far longer than the simple model needs, so that the node has to drop no frame


def spin_until(executor, condition, seconds, processes):
    """Spin until a condition holds; fail if it does not, or if a process has ended badly."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, 'nothing happened for too long'
        for process in processes:
            assert not process.poll(), f'{process.args} ended with {process.returncode}'
        executor.spin_once(timeout_sec=0.05)


@pytest.mark.parametrize('domain, transport', [(71, 'raw'), (72, 'compressed')])
def test_node_and_offline_replay_agree(tmp_path, monkeypatch, domain, transport):
    from lifecycle_msgs.msg import Transition
    from lifecycle_msgs.srv import ChangeState
    from rclpy.context import Context
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.node import Node
    from std_msgs.msg import String

    topic = '/camera/image_raw' + ('/compressed' if transport == 'compressed' else '')
    bag = write_bag(tmp_path / 'bag', FRAMES, PERIOD, topics=[topic])
    offline = ['replay', str(bag), '--out', str(tmp_path / 'out'), '--every-frame']
    assert main([*offline, '--model', 'simple']) == 0
    expected = list(read_records(tmp_path / 'out/captions.jsonl'))
    assert len(expected) == FRAMES

    monkeypatch.setenv('ROS_DOMAIN_ID', str(domain))
    monkeypatch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(
        filter(None, [str(ROOT), os.environ.get('PYTHONPATH')]))}
    node_process = subprocess.Popen([
        sys.executable, '-m', 'jetcap_ros.node.captioner_node', '--ros-args',
        '-p', 'model:=simple', '-p', 'max_rate_hz:=0.0', '-p', f'image_transport:={transport}',
        '-r', 'image_raw:=/camera/image_raw'], env=environment)
    context = Context()
    rclpy.init(context=context, domain_id=domain)
    listener = Node('listener', context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(listener)
    processes = [node_process]
    heard = []
    try:
        client = listener.create_client(ChangeState, '/captioner/change_state')
        spin_until(executor, client.service_is_ready, 30, processes)
        for transition in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
            request = ChangeState.Request()
            request.transition.id = transition
            future = client.call_async(request)
            spin_until(executor, future.done, 60, processes)
            assert future.result().success
        subscription = listener.create_subscription(
            String, '/captioner/caption_info',
            lambda message: heard.append(json.loads(message.data)), 100)
        spin_until(
            executor, lambda: listener.count_publishers(subscription.topic_name), 20, processes)
        processes.append(subprocess.Popen(
            [sys.executable, str(ROOT / 'test/play_bag.py'), str(bag), topic], env=environment))
        spin_until(executor, lambda: len(heard) >= FRAMES, 60, processes)
    finally:
        for process in processes:
            process.send_signal(signal.SIGINT)
        for process in processes:
            process.wait(timeout=20)
        executor.shutdown()
        listener.destroy_node()
        rclpy.shutdown(context=context)

    assert [
        (info['stamp']['sec'] * 10**9 + info['stamp']['nanosec'], info['topic'],
         info['frame_id'], info['caption'], info['score'], info['model']) for info in heard
    ] == [
        (record.stamp, record.topic, record.frame_id, record.caption, record.score, record.model)
        for record in expected]
