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

"""Cameras for measurements, in a process of their own: stamped frames at a steady rate."""

import argparse
import array
import time

import numpy as np
import rclpy
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image


def main() -> None:
    """Publish until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('topics', nargs='+')
    parser.add_argument('--width', type=int, default=640)
    parser.add_argument('--height', type=int, default=480)
    parser.add_argument('--rate', type=float, default=30.0, help='frames per second, of each')
    args = parser.parse_args()
    rclpy.init()
    node = rclpy.create_node('benchmark_camera')
    publishers = [
        node.create_publisher(Image, topic, qos_profile_sensor_data) for topic in args.topics]
    message = make_image(
        np.random.default_rng(0).integers(0, 255, (args.height, args.width, 3), dtype=np.uint8))
    due = time.monotonic()
    while rclpy.ok():
        for publisher in publishers:
            message.header.stamp = node.get_clock().now().to_msg()
            publisher.publish(message)
        due += 1 / args.rate
        time.sleep(max(0.0, due - time.monotonic()))


def make_image(pixels: np.ndarray) -> Image:
    """Return an rgb8 Image message of (H, W, 3) pixels, not yet stamped."""
    height, width, _ = pixels.shape
    message = Image(height=height, width=width, encoding='rgb8', step=3 * width)
    message.data = array.array('B', pixels.tobytes())
    return message


if __name__ == '__main__':
    main()
