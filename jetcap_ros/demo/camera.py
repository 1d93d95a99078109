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

"""
The camera of the demonstration, a process of its own: shows picture files in turn.

Standard input says which, one path a line, as JSON; each is published until the next, and the end
of the input is the end of the camera. The file's name goes along as the frame's frame_id.
"""

import argparse
import json
from pathlib import Path
import sys
import threading

import rclpy
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image

from .pictures import Picture, picture_for_camera


def main() -> None:
    """Publish until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--topic', default='/image_raw')
    parser.add_argument('--rate', type=float, default=5.0, help='frames per second')
    args = parser.parse_args()
    rclpy.init()
    node = rclpy.create_node('demo_camera')
    publisher = node.create_publisher(Image, args.topic, qos_profile_sensor_data)
    ended = threading.Event()
    frame = None

    def follow_input() -> None:
        nonlocal frame
        try:
            for line in sys.stdin:
                frame = make_frame(Path(json.loads(line)))
        finally:
            ended.set()

    threading.Thread(target=follow_input, daemon=True).start()
    while not ended.wait(1 / args.rate):
        message = frame
        if message is not None:
            message.header.stamp = node.get_clock().now().to_msg()
            publisher.publish(message)
    node.destroy_node()
    rclpy.try_shutdown()


def make_frame(path: Path) -> Image:
    """Return a picture as a message that is not yet stamped."""
    pixels = picture_for_camera(path)
    height, width = pixels.shape[:2]
    message = Image(height=height, width=width, encoding='rgb8', is_bigendian=0, step=3 * width)
    message.data = pixels.tobytes()
    message.header.frame_id = Picture(path).name
    return message


if __name__ == '__main__':
    main()
