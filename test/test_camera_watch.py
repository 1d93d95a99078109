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

"""What the node says when frames do not come, or their stamps are of no use."""

from types import SimpleNamespace

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus
from jetcap_ros.node.clocks import age_ns, clock_problem, stamp_ns, too_old
from jetcap_ros.node.silence import explain_silence
from node_process import image_message, NodeProcess
import pytest
import rclpy
from rclpy.context import Context
from sensor_msgs.msg import CompressedImage, Image

IMAGE, COMPRESSED = 'sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage'
S = 1_000_000_000
NOW = 1_700_000_000 * S
SIMPLE = {'model': 'simple', 'max_rate_hz': 0.0}


def test_stamps_before_1970_are_times():
    assert stamp_ns(Image()) == 0
    message = Image()
    message.header.stamp = Time(sec=-5, nanosec=250_000_000)
    assert stamp_ns(message) == -4_750_000_000


@pytest.mark.parametrize('stamp, now, is_sim_time, age, problem', [
    (NOW - S, NOW, False, S, ''),
    (1000 * S, NOW, False, NOW - 1000 * S, ''),  # a bag of another time
    (NOW + S // 10, NOW, False, None, ''),
    (NOW + 30 * S, NOW, False, None, "30.0 s in the future of the node's clock: set the clocks"),
    (NOW, 20 * S, True, None, 'the camera does not go by /clock'),
    (NOW, 0, True, None, 'nothing comes on /clock'),
    (0, NOW, False, None, 'no stamp'),
    (-S, NOW, False, None, 'before 1970'),
])
def test_the_wrong_clock_is_named(stamp, now, is_sim_time, age, problem):
    assert age_ns(stamp, now) == age
    text = clock_problem(stamp, now, is_sim_time)
    assert problem in text and bool(problem) == bool(text)


@pytest.mark.parametrize('stamp, limit_s, problem', [
    (NOW - 3 * S, 0.0, ''),
    (NOW - 3 * S, 4.0, ''),
    (NOW - 3 * S, 2.0, '3.0 s old: either the clocks of camera and node differ'),
    (0, 2.0, 'max_frame_age_s is 2 and frames have no stamp'),
])
def test_frames_too_old_are_told_with_their_age(stamp, limit_s, problem):
    text = too_old(stamp, NOW, limit_s)
    assert problem in text and bool(problem) == bool(text)


def publisher(kind, name='usb_cam', namespace='/'):
    """Return what rclpy says of a publisher."""
    return SimpleNamespace(
        topic_type=kind, node_name=name, node_namespace=namespace,
        qos_profile=SimpleNamespace(reliability=SimpleNamespace(name='BEST_EFFORT')))


TOPICS = {
    '/cam/image': [IMAGE], '/cam/image/compressed': [COMPRESSED], '/tf': ['tf2_msgs/msg/TFMessage'],
    '/rear/jpeg': [COMPRESSED], '/map': [IMAGE], '/camera/depth': [IMAGE]}


@pytest.mark.parametrize('topic, compressed, publishers, expected', [
    ('/image', False, [],
     'no publisher; image_topics may be meant to be /cam/image or '
     '/cam/image with image_transport compressed or '),
    ('/camera/depth', False, [],  # the node subscribes to it, so that it is a topic
     'no publisher; image_topics may be meant to be /cam/image or '),
    ('/cam/image_raw', True, [],
     'no publisher; image_topics may be meant to be /cam/image or /cam/image with image_transport '
     'raw or '),
    ('/cam/image', False, [COMPRESSED],
     f'it is {COMPRESSED}; set image_transport to compressed and remap /cam/image/compressed to '
     '/cam/image'),
    ('/cam/image/compressed', False, [COMPRESSED],
     f'it is {COMPRESSED}; set image_transport to compressed'),
    ('/cam/image/compressed', True, [IMAGE],
     f'it is {IMAGE}; set image_transport to raw and image_topics to /cam/image/compressed'),
    ('/tf', False, ['tf2_msgs/msg/TFMessage'], 'it is tf2_msgs/msg/TFMessage, which is no picture'),
    ('/cam/image', False, [IMAGE], f'1 publisher of {IMAGE}: /usb_cam, best_effort; raw'),
])
def test_silence_is_explained(topic, compressed, publishers, expected):
    text = explain_silence(topic, compressed, [publisher(kind) for kind in publishers], TOPICS)
    assert text.startswith(expected), text


def test_without_any_picture_nothing_is_suggested():
    assert explain_silence('/image', False, [], {'/tf': ['tf2_msgs/msg/TFMessage']}) == \
        'no publisher'


def test_a_camera_of_the_other_type_is_told(photograph):
    with NodeProcess({**SIMPLE, 'image_topics': ['cam/image']}) as node:
        jpeg = node.node.create_publisher(CompressedImage, '/cam/image/compressed', 1)
        assert node.change('configure') and node.change('activate')
        node.wait_for(
            lambda: 'active: captions /cam/image (raw, best_effort) on /captioner/caption'
            in node.output())
        suggested = 'no publisher; image_topics may be meant to be /cam/image with image_transport'
        status = node.status(suggested, timeout=15)
        assert status.level == DiagnosticStatus.ERROR
        node.wait_for(lambda: node.output().count(suggested) == 1)
        node.node.destroy_publisher(jpeg)
        context = Context()  # Fast DDS has one type for a topic in each
        rclpy.init(context=context, domain_id=node.domain)
        wrong = rclpy.create_node('usb_cam', context=context)
        wrong.create_publisher(CompressedImage, '/cam/image', 1)
        assert node.status(f'it is {COMPRESSED}; set image_transport').level \
            == DiagnosticStatus.ERROR
        wrong.destroy_node()
        rclpy.shutdown(context=context)
        assert node.next_caption(node.camera('/cam/image'), image_message(photograph))
        node.wait_for(lambda: node.statuses[-1].level == DiagnosticStatus.OK)
        assert node.output().count(suggested) == 1
        assert node.output().count(f'it is {COMPRESSED}') == 1


def test_a_silent_camera_does_not_hide_that_another_model_captions():
    with NodeProcess({'min_available_memory_mb': 1e6}) as node:
        assert node.change('configure') and node.change('activate')
        status = node.status('no frames', timeout=15)
        assert status.level == DiagnosticStatus.ERROR
        assert '. the simple model captions instead of mobilenet: full model: ' in status.message
        assert node.diagnostics['state'] == 'degraded'


def test_stamps_that_are_no_times_cost_no_caption(photograph):
    with NodeProcess(SIMPLE) as node:
        # The service is there before anything is configured.
        assert node.caption_now().message == 'the node is unconfigured, not active'
        assert 'waits for `ros2 lifecycle set /captioner configure`' in node.output()
        assert node.change('configure') and node.change('activate')
        camera, message = node.camera(), image_message(photograph)
        for stamp, problem in ((Time(), 'no stamp'), (Time(sec=-5), 'before 1970'),
                               (Time(sec=2_000_000_000), 'in the future')):
            message.header.stamp = stamp
            seen, after = len(node.infos), len(node.statuses)
            node.wait_for(lambda: camera.publish(message) or len(node.infos) > seen)
            assert node.infos[-1]['age_ms'] is None
            assert node.status(problem, after).level == DiagnosticStatus.WARN
        # As of a camera whose clock is off.
        assert node.set_parameter('max_frame_age_s', 2.0).successful
        message.header.stamp = Time(sec=1000)
        status = node.wait_for(lambda: camera.publish(message) or next(
            (s for s in node.statuses if 'every frame is dropped' in s.message), None))
        assert status.level == DiagnosticStatus.WARN
        node.wait_for(lambda: 'either the clocks of camera and node differ' in node.output())
        assert 'Traceback' not in node.output()


def test_simulated_time_that_stands_still_is_told(photograph):
    with NodeProcess({**SIMPLE, 'use_sim_time': True}) as node:
        assert node.change('configure') and node.change('activate')
        info = node.next_caption(node.camera(), image_message(photograph))
        assert info['caption'] and info['age_ms'] is None
        assert node.status('nothing comes on /clock').level == DiagnosticStatus.WARN
