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

"""The node, fed a bag over DDS, and the offline replay say the same."""

from jetcap_ros.cli import main
from jetcap_ros.replay.bag import open_bag
from jetcap_ros.replay.captions import read_records
from node_process import NodeProcess
import pytest
from rclpy.qos import QoSProfile
from replay_bags import write_bag
from sensor_msgs.msg import CompressedImage, Image

FRAMES = 8


@pytest.mark.parametrize('transport, kind', [('raw', Image), ('compressed', CompressedImage)])
def test_node_and_offline_replay_agree(tmp_path, transport, kind):
    topic = '/camera/image_raw' + ('/compressed' if transport == 'compressed' else '')
    bag = write_bag(tmp_path / 'bag', FRAMES, topics=[topic])
    offline = ['replay', str(bag), '--out', str(tmp_path / 'out'), '--every-frame']
    assert main([*offline, '--model', 'simple']) == 0
    expected = list(read_records(tmp_path / 'out/captions.jsonl'))
    assert len(expected) == FRAMES

    parameters = {'model': 'simple', 'max_rate_hz': 0.0, 'image_transport': transport,
                  'image_reliability': 'reliable'}
    with NodeProcess(parameters, ['-r', 'image_raw:=/camera/image_raw']) as node:
        assert node.change('configure') and node.change('activate')
        node.wait_for(lambda: node.node.count_publishers('/captioner/caption_info'))
        camera = node.camera(topic, QoSProfile(depth=1), kind)
        for number, frame in enumerate(open_bag(bag).frames([topic])):
            camera.publish(frame.data)  # already serialized
            # However long a caption takes, the next frame takes nothing's place.
            node.wait_for(lambda: len(node.infos) > number, 60)
        heard = list(node.infos)
    assert [
        (info['stamp']['sec'] * 10**9 + info['stamp']['nanosec'], info['topic'],
         info['frame_id'], info['caption'], info['score'], info['model']) for info in heard
    ] == [
        (record.stamp, record.topic, record.frame_id, record.caption, record.score, record.model)
        for record in expected]
