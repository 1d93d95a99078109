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

"""What comes out of the node, and what it makes of cameras that differ, over real DDS."""

import time

import cv2
from diagnostic_msgs.msg import DiagnosticStatus
from jetcap_ros.images.image_decoding import decode_image
from node_process import image_message, NodeProcess
import numpy as np
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image

SIMPLE = {'model': 'simple', 'max_rate_hz': 0.0}


def test_the_captioned_image_keeps_header_and_size(photograph):
    with NodeProcess({**SIMPLE, 'publish_image': True, 'draw_attention': True}) as node:
        pictures = []
        node.listen('image_captioned', pictures.append, Image)
        assert node.change('configure') and node.change('activate')
        camera = node.camera()
        small = image_message(np.ascontiguousarray(photograph[::2, ::2]), 'left_eye')
        info = node.next_caption(camera, small)
        node.wait_for(lambda: pictures or not node.next_caption(camera, small))
        assert pictures[0].header.frame_id == info['frame_id'] == 'left_eye'
        assert any(
            i['stamp']['nanosec'] == pictures[0].header.stamp.nanosec for i in node.infos)
        drawn = decode_image(pictures[0])
        assert drawn.shape == (128, 128, 3)
        assert (drawn != photograph[::2, ::2]).any()


def test_nothing_is_drawn_that_was_not_asked_for(photograph):
    with NodeProcess(SIMPLE) as node:
        pictures = []
        node.listen('image_captioned', pictures.append, Image)
        assert node.change('configure') and node.change('activate')
        for _ in range(3):
            node.next_caption(node.camera(), image_message(photograph[:200, :200].copy()))
        assert not pictures


def test_an_unchanged_sentence_is_said_once(photograph):
    with NodeProcess({**SIMPLE, 'publish_unchanged': False}) as node:
        assert node.change('configure') and node.change('activate')
        camera = node.camera()
        small = image_message(photograph[::2, ::2].copy())
        for _ in range(4):
            node.next_caption(camera, small)
        time.sleep(0.3)
        assert len(node.infos) >= 4 and len(node.captions) == 1
        assert node.set_parameter('publish_unchanged', True).successful
        node.next_caption(camera, small)
        assert node.wait_for(lambda: len(node.captions) > 1)


def test_compressed_images(photograph):
    with NodeProcess({**SIMPLE, 'image_transport': 'compressed'}) as node:
        assert node.change('configure') and node.change('activate')
        camera = node.camera('/image_raw/compressed', kind=CompressedImage)
        message = CompressedImage(format='rgb8; jpeg compressed bgr8')
        ok, data = cv2.imencode('.jpg', photograph[..., ::-1])
        message.data = data.tobytes()
        info = node.next_caption(camera, message)
        assert ok and info['topic'] == '/image_raw/compressed'
        assert len(info['caption'].split()) >= 3
        message.data = message.data[:500]
        node.wait_for(lambda: camera.publish(message) or any(
            s.level == DiagnosticStatus.WARN for s in node.statuses))


def test_topics_are_remapped_and_names_are_relative(photograph):
    arguments = ['-r', 'image_raw:=/robot/head/image', '-r', '__ns:=/robot']
    with NodeProcess(SIMPLE, arguments, name='/robot/captioner') as node:
        assert node.change('configure') and node.change('activate')
        info = node.next_caption(node.camera('/robot/head/image'), image_message(photograph))
        assert info['topic'] == '/robot/head/image'


def test_another_qos_is_said_with_what_to_change(photograph):
    with NodeProcess({**SIMPLE, 'image_reliability': 'reliable'}) as node:
        assert node.change('configure') and node.change('activate')
        best_effort = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        camera = node.node.create_publisher(Image, '/image_raw', best_effort)
        node.wait_for(lambda: camera.publish(image_message(photograph))
                      or 'set image_reliability to best_effort' in node.output())
        status = node.status('set image_reliability to best_effort', timeout=15)
        assert status.level == DiagnosticStatus.ERROR
        node.node.destroy_publisher(camera)
        # A reliable camera, and one that went and came back.
        for _ in range(2):
            camera = node.camera(qos=QoSProfile(depth=1))
            assert node.next_caption(camera, image_message(photograph))['caption']
            node.node.destroy_publisher(camera)
