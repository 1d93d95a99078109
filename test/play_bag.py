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

"""Plays one topic of a bag over DDS with its original timing: play_bag.py BAG TOPIC."""

from pathlib import Path
import sys
import time

from jetcap_ros.replay.bag import open_bag
import rclpy
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CompressedImage, Image


def main(path, topic):
    """Publish the frames as they were recorded, once somebody listens."""
    rclpy.init()
    node = rclpy.create_node('bag_player')
    msgtype = CompressedImage if topic.endswith('/compressed') else Image
    publisher = node.create_publisher(msgtype, topic, qos_profile_sensor_data)
    while not publisher.get_subscription_count():
        time.sleep(0.02)
    time.sleep(0.5)  # the subscriber has to find us as well
    began, first = time.monotonic(), None
    for frame in open_bag(Path(path)).frames([topic]):
        first = frame.bag_time if first is None else first
        time.sleep(max(0.0, began + (frame.bag_time - first) / 1e9 - time.monotonic()))
        publisher.publish(frame.data)  # already serialized
    time.sleep(1.0)  # what was sent last shall arrive
    node.destroy_node()
    rclpy.try_shutdown()


if __name__ == '__main__':
    main(*sys.argv[1:])
