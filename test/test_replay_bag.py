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

"""Reading bags in every form they are recorded in, intact and damaged."""

import os
import subprocess
import sys

from jetcap_ros.images.image_decoding import decode_compressed, decode_image
from jetcap_ros.replay.archive import find_bags
from jetcap_ros.replay.bag import open_bag
from jetcap_ros.replay.errors import ReplayError
import numpy as np
import pytest
from replay_bags import frame_image, noise_image, RECORDING_DELAY, START, write_bag

RAW, COMPRESSED = '/front/image_raw', '/rear/image_raw/compressed'
FORMS = [
    ('sqlite3', 'none'), ('sqlite3', 'file'), ('sqlite3', 'message'), ('mcap', 'none'),
    ('mcap', 'file'), ('mcap', 'message'), ('mcap', 'storage')]


def storage_file(bag):
    file, = (file for file in bag.iterdir() if file.name != 'metadata.yaml')
    return file


def cut(bag, part):
    """Keep only a part of a bag's storage file."""
    file = storage_file(bag)
    os.truncate(file, int(file.stat().st_size * part))


@pytest.mark.parametrize('storage, compression', FORMS)
def test_every_form_gives_the_same_frames(tmp_path, storage, compression):
    path = write_bag(
        tmp_path / 'bag', 6, topics=(RAW, COMPRESSED), storage=storage, compression=compression)
    bag = open_bag(path)
    frames = list(bag.frames())
    assert bag.problems == []
    assert bag.image_topics == {
        RAW: 'sensor_msgs/msg/Image', COMPRESSED: 'sensor_msgs/msg/CompressedImage'}
    assert [frame.topic for frame in frames] == [RAW, COMPRESSED] * 6
    for number, (raw, compressed) in enumerate(zip(frames[::2], frames[1::2])):
        stamp = START + number * 250_000_000
        for frame, decode in ((raw, decode_image), (compressed, decode_compressed)):
            message = frame.message()
            assert frame.bag_time == stamp + RECORDING_DELAY
            assert message.header.stamp.sec * 10**9 + message.header.stamp.nanosec == stamp
            assert message.header.frame_id == 'camera_frame'
            np.testing.assert_array_equal(decode(message), frame_image(number))


def test_reads_the_topics_asked_for(tmp_path):
    bag = open_bag(write_bag(tmp_path / 'bag', 6, topics=(RAW, COMPRESSED)))
    assert [frame.topic for frame in bag.frames([RAW])] == [RAW] * 6
    assert bag.counts == {RAW: 6, COMPRESSED: 6}


@pytest.mark.parametrize('storage', ['sqlite3', 'mcap'])
def test_reads_a_storage_file_alone(tmp_path, storage):
    path = write_bag(tmp_path / 'bag', 4, storage=storage)
    bag = open_bag(storage_file(path))
    assert len(list(bag.frames())) == 4
    assert bag.start == START
    assert bag.problems == bag.notes == []


@pytest.mark.parametrize('storage, compression', FORMS)
def test_a_truncated_bag_gives_what_it_holds_and_tells_where_it_broke(
        tmp_path, storage, compression):
    # Compression leaves noise as it is, so that a part of the file is as much of the frames.
    path = write_bag(
        tmp_path / 'bag', 60, 0.1, storage=storage, compression=compression, picture=noise_image)
    whole = [frame.data for frame in open_bag(path).frames()]
    cut(path, 0.6)
    bag = open_bag(path)
    held = [frame.data for frame in bag.frames()]
    # Of 36 frames in the part that is left, those of a chunk (18) that is cut are lost.
    assert 18 <= len(held) <= 36
    assert held == whole[:len(held)]
    problem, = bag.problems
    assert storage_file(path).name in problem
    assert f'{len(held)} images' in problem
    assert ' s' in problem.rsplit('the last at', 1)[1]


@pytest.mark.parametrize('storage, compression', FORMS)
@pytest.mark.parametrize('size', [0, 5, 3000])
def test_a_stump_is_told_and_gives_nothing(tmp_path, storage, compression, size):
    path = write_bag(tmp_path / 'bag', 4, storage=storage, compression=compression)
    os.truncate(storage_file(path), size)
    bag = open_bag(path)
    assert list(bag.frames()) == []
    assert len(bag.problems) == 1 and 'no image was read' in bag.problems[0]


def test_random_damage_never_does_more_than_shorten(tmp_path):
    random = np.random.default_rng(7)
    for storage, compression in FORMS:
        path = write_bag(tmp_path / storage / compression, 12, storage=storage,
                         compression=compression)
        intact = storage_file(path).read_bytes()
        for _ in range(12):
            damaged = bytearray(intact)
            start = int(random.integers(len(damaged)))
            damaged[start:start + 64] = random.bytes(len(damaged[start:start + 64]))
            storage_file(path).write_bytes(damaged)
            bag = open_bag(path)
            readable = 0
            for frame in bag.frames():
                try:
                    readable += len(frame.message().data) > 0
                except ValueError as error:
                    assert str(error)
            assert readable <= 12


def test_reads_a_bag_whose_recorder_was_killed(tmp_path):
    """No metadata.yaml, and messages still in SQLite's write-ahead log."""
    path = write_bag(tmp_path / 'bag', 6, storage='sqlite3')
    (path / 'metadata.yaml').unlink()
    file = storage_file(path).rename(path / 'bag_0.db3')
    subprocess.run([sys.executable, '-c', f'''
import os, signal, sqlite3
database = sqlite3.connect({str(file)!r}, isolation_level=None)
database.execute('PRAGMA journal_mode = WAL')
database.execute('PRAGMA wal_autocheckpoint = 0')
database.execute("""INSERT INTO messages (topic_id, timestamp, data)
    SELECT topic_id, timestamp + 10000000000, data FROM messages WHERE topic_id = 1 LIMIT 2""")
os.kill(os.getpid(), signal.SIGKILL)'''], check=False)
    assert (path / 'bag_0.db3-wal').stat().st_size
    bag = open_bag(path)
    assert len(list(bag.frames())) == 8
    assert bag.problems == []
    assert bag.notes == ['it has no metadata.yaml, the recorder was not ended properly']


def test_reads_a_split_bag_in_order_and_tells_of_a_file_that_is_missing(tmp_path):
    path = tmp_path / 'split'
    path.mkdir()
    names = [f'split_{number}.mcap' for number in (9, 10, 11)]
    for number, name in enumerate(names):
        part = write_bag(tmp_path / 'parts' / str(number), 2)
        storage_file(part).rename(path / name)
    assert list(find_bags([path])[0]) == ['split']
    bag = open_bag(path)
    assert [file.name for file in bag.files] == names
    (path / 'metadata.yaml').write_text(
        'rosbag2_bagfile_information: {relative_file_paths: '
        f'[{", ".join([*names, "split_12.mcap"])}]}}')
    bag = open_bag(path)
    assert len(list(bag.frames())) == 6
    problem, missing = bag.problems
    assert 'topics_with_message_count: expected list' in problem
    assert missing == 'split_12.mcap is missing'


def test_finds_bags_below_a_folder(tmp_path):
    write_bag(tmp_path / 'monday' / 'a', 1)
    write_bag(tmp_path / 'tuesday' / 'b', 1, storage='sqlite3')
    storage_file(write_bag(tmp_path / 'c', 1)).rename(tmp_path / 'loose.mcap')
    (tmp_path / 'c' / 'metadata.yaml').unlink()
    (tmp_path / 'c').rmdir()
    assert list(find_bags([tmp_path])[0]) == ['loose.mcap', 'monday/a', 'tuesday/b']
    assert list(find_bags([tmp_path / 'monday' / 'a'])[0]) == ['a']
    with pytest.raises(ReplayError, match='same name'):
        find_bags([tmp_path / 'monday', tmp_path / 'monday'])


@pytest.mark.parametrize('name, text', [
    ('nothing', 'does not exist'), ('old.bag', 'ROS 1'), ('notes.txt', 'neither'),
    ('empty', 'holds no')])
def test_what_is_no_bag_is_refused(tmp_path, name, text):
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'notes.txt').write_text('hello')
    with pytest.raises(ReplayError, match=text):
        open_bag(tmp_path / name)
