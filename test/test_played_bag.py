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

"""What is checked of a bag before it is played to the node, and of what was recorded."""

from jetcap_ros.replay.errors import ReplayError
from jetcap_ros.replay.played_bag import check_play, check_recorded, read_image_settings
import pytest
import yaml


def write_metadata(folder, topics):
    """Write a bag's metadata: of each topic the type and the number of messages."""
    folder.mkdir()
    entries = [
        {'topic_metadata': {'name': name, 'type': kind}, 'message_count': count}
        for name, (kind, count) in topics.items()]
    (folder / 'metadata.yaml').write_text(yaml.safe_dump(
        {'rosbag2_bagfile_information': {'topics_with_message_count': entries}}))
    return folder


@pytest.fixture
def bag(tmp_path):
    return write_metadata(tmp_path / 'drive1', {
        '/cam/image': ('sensor_msgs/msg/Image', 30),
        '/cam/image/compressed': ('sensor_msgs/msg/CompressedImage', 30),
        '/rear/image': ('sensor_msgs/msg/Image', 0), '/tf': ('tf2_msgs/msg/TFMessage', 9)})


@pytest.mark.parametrize('changes', [
    {}, {'transport': 'compressed'}, {'topics': ['/cam/image/compressed'],
                                      'transport': 'compressed'}])
def test_a_bag_with_the_topic_can_be_played(bag, tmp_path, changes):
    check_play(**{'bag': str(bag), 'rate': '2', 'output': str(tmp_path / 'new'),
                  'topics': ['/cam/image'], 'transport': 'raw', **changes})


@pytest.mark.parametrize('changes, problem', [
    ({'rate': 'fast'}, 'rate:=fast: expected a number'),
    ({'rate': '0'}, 'rate:=0: expected a number'),
    ({'output': '.'}, r'output:=\. exists already'),
    ({'bag': 'missing'}, 'there is no such bag'),
    ({'bag': '.'}, 'ros2 bag reindex'),
    ({'topics': ['/image_raw']}, r'no Image on /image_raw\. It has /cam/image \(Image, 30\)'),
    ({'topics': ['/rear/image']}, 'no Image on /rear/image'),  # not one message
    ({'topics': ['/rear/image'], 'transport': 'compressed'}, 'no CompressedImage on /rear/image/c'),
    ({'topics': ['/tf']}, 'no Image on /tf'),
])
def test_what_cannot_be_is_refused(bag, tmp_path, changes, problem):
    with pytest.raises(ReplayError, match=problem):
        check_play(**{'bag': str(bag), 'rate': '1.0', 'output': str(tmp_path / 'new'),
                      'topics': ['/cam/image'], 'transport': 'raw', **changes})


def test_captions_are_counted_and_a_bag_without_any_is_removed(tmp_path):
    kind = 'std_msgs/msg/String'
    full = write_metadata(tmp_path / 'full', {
        '/captioner/a/caption': (kind, 3), '/captioner/b/caption': (kind, 4),
        '/captioner/a/caption_info': (kind, 9)})
    assert check_recorded(str(full)) == 7
    empty = write_metadata(tmp_path / 'empty', {'/captioner/caption': (kind, 0)})
    with pytest.raises(ReplayError, match='nothing was captioned'):
        check_recorded(str(empty))
    assert full.exists() and not empty.exists()


def test_the_image_topics_of_a_parameter_file_are_found(tmp_path):
    path = tmp_path / 'params.yaml'
    path.write_text('/**: {ros__parameters: {image_topics: [a, b], model: simple}}')
    assert read_image_settings(str(path)) == {'image_topics': ['a', 'b']}
    assert read_image_settings('missing.yaml') == {}
