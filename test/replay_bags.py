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

"""Small bags of photographs for the tests of replay."""

import functools

import cv2
import numpy as np
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import get_typestore, Stores

STORE = get_typestore(Stores.ROS2_HUMBLE)
START = 1_700_000_000 * 10**9  # ns
RECORDING_DELAY = 3_000_000  # ns, from a frame's stamp to its bag time
NAMES = ('astronaut', 'cat', 'coffee', 'rocket')


@functools.lru_cache(maxsize=None)
def photograph(name, zoom=0):
    """Return a 160x120 RGB photograph, larger zooms closer to its centre."""
    from skimage import data
    image = getattr(data, name)()
    height, width = image.shape[:2]
    y, x = height * zoom // 100, width * zoom // 100
    return cv2.resize(image[y:height - y, x:width - x], (160, 120), interpolation=cv2.INTER_AREA)


def frame_image(number):
    """Return the picture of a bag's nth frame: each photograph for four frames, nearing."""
    return photograph(NAMES[number // 4 % len(NAMES)], 4 * (number % 4))


def noise_image(number):
    """Return a 160x120 RGB picture that cannot be compressed."""
    return np.random.default_rng(number).integers(0, 256, (120, 160, 3), np.uint8)


def image_message(image, stamp, encoding='rgb8'):
    """Return an Image of `rosbags`."""
    return STORE.types['sensor_msgs/msg/Image'](
        _header(stamp), image.shape[0], image.shape[1], encoding, 0, 3 * image.shape[1],
        image.reshape(-1))


def compressed_message(image, stamp):
    """Return a CompressedImage (PNG, without loss) of `rosbags`."""
    png = cv2.imencode('.png', cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1]
    return STORE.types['sensor_msgs/msg/CompressedImage'](_header(stamp), 'png', png.reshape(-1))


def write_bag(
        path, frames=8, period=0.25, topics=('/camera/image_raw',), storage='mcap',
        compression='none', bad=(), picture=None):
    """
    Write a bag; a topic that ends in /compressed gets compressed images.

    :param bad: numbers of frames with an unknown encoding.
    :param picture: makes the nth frame, `frame_image` if None.
    """
    writer = Writer(path, version=9, storage_plugin=StoragePlugin[storage.upper()])
    writer.set_compression(CompressionMode[compression.upper()], CompressionFormat.ZSTD)
    with writer:
        images = []
        for topic in topics:
            compressed = topic.endswith('/compressed')
            msgtype = f'sensor_msgs/msg/{"CompressedImage" if compressed else "Image"}'
            connection = writer.add_connection(topic, msgtype, typestore=STORE)
            images.append((connection, compressed_message if compressed else image_message))
        other = writer.add_connection('/chatter', 'std_msgs/msg/String', typestore=STORE)
        for number in range(frames):
            stamp = START + round(number * period * 1e9)
            text = STORE.types['std_msgs/msg/String']('nothing to see')
            writer.write(other, stamp, STORE.serialize_cdr(text, other.msgtype))
            for connection, make in images:
                arguments = ((picture or frame_image)(number), stamp)
                message = make(*arguments, 'rgb7') if number in bad else make(*arguments)
                writer.write(
                    connection, stamp + RECORDING_DELAY,
                    STORE.serialize_cdr(message, connection.msgtype))
    return path


def _header(stamp):
    time = STORE.types['builtin_interfaces/msg/Time'](*divmod(stamp, 10**9))
    return STORE.types['std_msgs/msg/Header'](time, 'camera_frame')
