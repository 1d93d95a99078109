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

"""Nothing is computed that nobody hears, nor anything again for a scene that is still the same."""

from diagnostic_msgs.msg import DiagnosticStatus
from jetcap_ros.images.still import Scene
from node_process import image_message, NodeProcess
import numpy as np
import pytest
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
from std_msgs.msg import String

SIMPLE = {'model': 'simple', 'max_rate_hz': 0.0}


class Robot(NodeProcess):
    """Has a camera at 20 Hz, and listens to captions only when told to."""

    def listen(self, topic, callback, kind=String):
        if kind is not String:
            super().listen(topic, callback, kind)

    def see(self, picture):
        message = image_message(picture)
        publisher = self.node.create_publisher(Image, '/image_raw', qos_profile_sensor_data)

        def publish():
            message.header.stamp = self.node.get_clock().now().to_msg()
            publisher.publish(message)

        self.node.create_timer(0.05, publish)
        return publisher

    def values(self):
        seen = len(self.statuses)
        self.wait_for(lambda: len(self.statuses) > seen)
        return self.diagnostics


def test_what_nobody_hears_is_not_captioned(photograph):
    with Robot(SIMPLE) as robot:
        camera = robot.see(np.ascontiguousarray(photograph[::2, ::2]))
        assert robot.change('configure') and robot.change('activate')
        robot.wait_for(camera.get_subscription_count)
        status = robot.status('nobody listens')
        assert status.level == DiagnosticStatus.OK
        robot.wait_for(lambda: not camera.get_subscription_count())  # in the end
        assert robot.values()['frames captioned'] == '0'

        answer = robot.caption_now()
        assert answer.success and answer.message

        heard = []
        echo = robot.node.create_subscription(
            String, '/captioner/caption', lambda message: heard.append(message.data), 10)
        robot.wait_for(lambda: heard)
        assert heard[0] == answer.message
        seen = len(robot.statuses)
        assert 'simple model captions' in robot.status('captions', after=seen).message

        robot.node.destroy_subscription(echo)
        robot.status('nobody listens', after=len(robot.statuses))
        assert robot.set_parameter('lazy', False).successful
        captioned = int(robot.values()['frames captioned'])
        robot.wait_for(lambda: int(robot.values()['frames captioned']) > captioned)


def test_a_still_scene_is_captioned_once(photograph):
    rng = np.random.default_rng(0)
    picture = np.ascontiguousarray(photograph[::2, ::2])

    def noisy():
        noise = rng.normal(0, 8, picture.shape)
        return image_message(np.clip(picture * 1.03 + noise, 0, 255).astype(np.uint8))

    with NodeProcess(SIMPLE) as node:
        assert node.change('configure') and node.change('activate')
        camera = node.camera()

        def caption(message, unchanged):
            seen = len(node.infos)
            return node.wait_for(lambda: node.next_caption(camera, message) and next(
                (info for info in node.infos[seen:] if info['unchanged'] == unchanged), None))

        first = caption(image_message(picture), False)
        again = caption(noisy(), True)
        assert again['caption'] == first['caption'] and again['score'] == first['score']
        assert again['stamp'] != first['stamp']
        other = picture.copy()
        other[60:150, 100:160] = 255 - other[60:150, 100:160]
        caption(image_message(other), False)
        caption(image_message(other), True)
        node.wait_for(lambda: node.diagnostics.get('state') == 'still' or not node.next_caption(
            camera, image_message(other)))
        assert int(node.diagnostics['frames still']) >= 1
        assert node.caption_now().success
        assert node.wait_for(lambda: not node.infos[-1]['unchanged'])
        assert node.set_parameter('still_threshold', 0.0).successful
        seen = len(node.infos)
        caption(image_message(other), False)
        caption(image_message(other), False)
        assert not any(info['unchanged'] for info in node.infos[seen + 1:])


@pytest.mark.parametrize('size', [(720, 1280), (120, 160), (7, 9)])
def test_the_difference_is_that_of_the_scene(size):
    rng = np.random.default_rng(1)
    scene = Scene()
    picture = rng.integers(0, 200, (*size, 3), dtype=np.uint8)
    assert scene.look(picture) == float('inf')
    scene.keep()
    assert scene.look(picture) == 0
    assert scene.look((picture * 1.05).astype(np.uint8)) < 1  # a wavering exposure
    assert scene.look((picture * 0.5).astype(np.uint8)) > 5  # the light went out
    assert scene.look(picture[::-1]) > 1
    scene.forget()
    assert scene.look(picture) == float('inf')
