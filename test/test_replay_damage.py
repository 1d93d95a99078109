"""What recorders, disks and clocks do to bags: every frame is captioned, or told as lost."""

from collections import Counter
import contextlib
from dataclasses import dataclass
import io
import json
import os
import random
import re
import resource
import sqlite3
import tracemalloc

from jetcap_ros.cli import main
from jetcap_ros.engine.captioner import Caption
from jetcap_ros.replay import storage
from jetcap_ros.replay.archive import find_bags
from jetcap_ros.replay.bag import open_bag
from jetcap_ros.replay.captions import read_records
from jetcap_ros.replay.runner import Observer, replay_bag, ReplaySettings
from mcap.writer import CompressionType, IndexType, Writer as McapWriter
import numpy as np
import pytest
from replay_bags import image_message, START, STORE
import zstandard

TOPIC, TYPE = '/camera/image_raw', 'sensor_msgs/msg/Image'
EVERY_FRAME = ReplaySettings(every=0.0)
SECOND = 10**9


@dataclass
class Echo:
    """Captions without a model: what it is asked for is counted."""

    worker_pid: int | None = None
    worker_rss_mb = 0.0
    count: int = 0

    def caption(self, image):
        self.count += 1
        return Caption('a frame', 0.5, 'calibrated', 'echo', 0.0, np.full((7, 7), 1 / 49))


class Loud(Observer):
    """Keeps what a replay tells."""

    def __init__(self):
        self.notices = []

    def notice(self, text):
        self.notices.append(text)


def replay(bag, out, settings=EVERY_FRAME):
    return replay_bag(bag, out, settings, Echo)


def times(out):
    return [record.bag_time for record in read_records(out / 'captions.jsonl')]


def frame(number=0):
    """Return a message that shows the same every time, whatever a model may call it."""
    return bytes(STORE.serialize_cdr(
        image_message(np.full((12, 16, 3), 128, np.uint8), START), TYPE))


def write_mcap(path, stamps, index=IndexType.ALL, chunked=True, compression=CompressionType.NONE,
               chunk_size=2000, data=frame):
    """Write an .mcap file with frames at the times."""
    with path.open('wb') as file:
        writer = McapWriter(
            file, chunk_size=chunk_size, compression=compression, index_types=index,
            use_chunking=chunked)
        writer.start('ros2', 'a recorder')
        schema = writer.register_schema(TYPE, 'ros2msg', b'')
        channel = writer.register_channel(TOPIC, 'cdr', schema)
        for number, stamp in enumerate(stamps):
            writer.add_message(channel, stamp, data(number), stamp, number)
        writer.finish()
    return path


def write_db3(path, stamps):
    """Write a .db3 file with frames at the times."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.executescript(f"""
            PRAGMA synchronous = OFF;
            CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT, type TEXT);
            CREATE TABLE messages(
                id INTEGER PRIMARY KEY, topic_id INTEGER, timestamp INTEGER, data BLOB);
            CREATE INDEX timestamp_idx ON messages (timestamp ASC);
            INSERT INTO topics VALUES (1, '{TOPIC}', '{TYPE}');""")
        database.executemany(
            'INSERT INTO messages (topic_id, timestamp, data) VALUES (1, ?, ?)',
            [(stamp, frame(number)) for number, stamp in enumerate(stamps)])
    return path


WRITE = {'mcap': write_mcap, 'db3': write_db3}


def write_split(folder, parts, suffix='mcap', duration=None):
    """Write a bag of a file for each list of times, with the metadata.yaml of its recorder."""
    folder.mkdir(parents=True)
    names = [f'{folder.name}_{number}.{suffix}' for number in range(len(parts))]
    for name, stamps in zip(names, parts):
        WRITE[suffix](folder / name, stamps)
    stamps = [stamp for part in parts for stamp in part]
    duration = max(stamps) - min(stamps) if duration is None else duration
    topic = {'name': TOPIC, 'type': TYPE, 'serialization_format': 'cdr'}
    (folder / 'metadata.yaml').write_text(json.dumps({'rosbag2_bagfile_information': {
        'version': 5, 'storage_identifier': suffix, 'relative_file_paths': names,
        'duration': {'nanoseconds': duration},
        'starting_time': {'nanoseconds_since_epoch': min(stamps)},
        'message_count': len(stamps),
        'topics_with_message_count': [
            {'topic_metadata': topic, 'message_count': len(stamps)}]}}))
    return folder


def at(*seconds):
    return [START + round(second * SECOND) for second in seconds]


@pytest.mark.parametrize('suffix', ['mcap', 'db3'])
def test_frames_behind_the_end_that_the_metadata_gives_are_captioned(tmp_path, suffix, capsys):
    """Humble wrote the last file's duration as that of the bag."""
    parts = [at(0, 1, 2), at(3, 4, 5)]
    bag = write_split(tmp_path / 'bag', parts, suffix, duration=2 * SECOND)
    command = ['replay', str(bag), '--out', str(tmp_path / 'out'), '--model', 'simple']
    assert main(command) == 0
    assert times(tmp_path / 'out') == sum(parts, [])
    # Whether words change between frames so alike is the libraries' rounding.
    printed = re.sub(r' \d+ changes,', '', capsys.readouterr().out)
    assert '6 captions, 0 frames skipped, 0 still, 0 lost' in printed


def test_a_recorder_killed_in_the_last_file_costs_what_it_had_not_written(tmp_path):
    bag = write_split(tmp_path / 'bag', [at(0, 1, 2), at(3, 4, 5, 6, 7)])
    last = bag / 'bag_1.mcap'
    whole = last.read_bytes()
    (bag / 'metadata.yaml').unlink()
    last.write_bytes(whole[:whole.index(b'\x06', len(whole) // 3)])
    result = replay(bag, tmp_path / 'out')
    assert result.complete and not result.whole
    assert 3 < result.captions < 8 and times(tmp_path / 'out') == at(*range(result.captions))
    assert 'bag_1.mcap is damaged' in result.problems[0]
    assert replay(bag, tmp_path / 'out').captions == result.captions


@pytest.mark.parametrize('suffix', ['mcap', 'db3'])
@pytest.mark.parametrize('every', [0.0, 0.5])
def test_a_clock_that_was_set_back_costs_nothing(tmp_path, suffix, every):
    parts = [at(3600, 3601, 3602, 3603), at(0, 1, 2, 3), at(3601.2)]
    bag = write_split(tmp_path / 'bag', parts, suffix)
    result = replay(bag, tmp_path / 'out', ReplaySettings(every=every))
    assert result.whole and times(tmp_path / 'out') == sum(parts, [])
    assert 'not to the end' not in (tmp_path / 'out/report.html').read_text()


@pytest.mark.parametrize('form', [
    {'chunked': False}, {'chunked': False, 'index': IndexType.NONE}, {'index': IndexType.NONE},
    {'index': IndexType.CHUNK}, {'index': IndexType.ALL, 'compression': CompressionType.LZ4},
    {'index': IndexType.CHUNK, 'compression': CompressionType.ZSTD}])
def test_mcap_files_of_every_index_and_order_of_time(tmp_path, form):
    stamps = at(5, 6, 7, 2, 3, 4, 4, 1)
    file = write_mcap(tmp_path / 'bag.mcap', stamps, **form)
    result = replay(file, tmp_path / 'out')
    assert result.whole and times(tmp_path / 'out') == stamps


def test_what_was_stopped_goes_on_after_a_clock_was_set_back(tmp_path):
    bag = write_split(tmp_path / 'bag', [at(8, 9, 8, 10), at(0, 1, 9, 9)], 'mcap')

    class Stops(Observer):
        count = 0

        def stopped(self):
            self.count += 1
            return self.count == 4
    captioner = Echo()
    for _ in range(4):
        result = replay_bag(bag, tmp_path / 'out', EVERY_FRAME, lambda: captioner, Stops())
        if result.complete:
            break
    replay_bag(bag, tmp_path / 'out', EVERY_FRAME, lambda: captioner)
    assert times(tmp_path / 'out') == at(8, 9, 8, 10, 0, 1, 9, 9)
    assert captioner.count == 8


def test_a_file_beside_its_compressed_twin_is_read_once(tmp_path):
    """As `ros2 bag play` leaves them, or a recorder killed while it compressed."""
    bag = write_split(tmp_path / 'bag', [at(0, 1), at(2, 3)])
    for number in (0, 1):
        plain = bag / f'bag_{number}.mcap'
        packed = zstandard.compress(plain.read_bytes())
        (bag / f'bag_{number}.mcap.zstd').write_bytes(packed[:None if number else -9])
    plain.write_bytes(plain.read_bytes()[:-30])  # of bag_1: being unpacked
    result = replay(bag, tmp_path / 'out')
    assert result.whole and times(tmp_path / 'out') == at(0, 1, 2, 3)


def test_a_file_that_is_not_of_the_bag_is_left_out_and_told(tmp_path):
    bag = write_split(tmp_path / 'bag', [at(0, 1)])
    write_mcap(bag / 'bag_1.mcap', at(2))  # the recorder did not come to list it
    write_mcap(bag / 'recovered.mcap', at(0, 1))
    result = replay(bag, tmp_path / 'out')
    assert times(tmp_path / 'out') == at(0, 1, 2)
    assert not result.whole and 'recovered.mcap is left out' in result.problems[0]


def test_without_room_to_unpack_a_bag_is_not_complete(tmp_path):
    bag = write_split(tmp_path / 'bag', [at(0, 1), at(*range(2, 60))], 'db3')
    packed = bag / 'bag_1.db3'
    packed.with_suffix('.db3.zstd').write_bytes(zstandard.compress(packed.read_bytes()))
    packed.unlink()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, hard))  # as a full disk: no larger file
    try:
        result = replay(bag, tmp_path / 'out')
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not result.complete and result.captions == 2
    assert 'bag_1.db3.zstd cannot be read' in result.problems[0]
    assert 'TMPDIR' in result.problems[0]
    result = replay(bag, tmp_path / 'out')
    assert result.whole and times(tmp_path / 'out') == at(*range(60))


@pytest.mark.parametrize('suffix', ['mcap', 'db3'])
def test_a_missing_file_of_a_split_bag_is_counted(tmp_path, suffix):
    bag = write_split(tmp_path / 'bag', [at(0, 1), at(2, 3, 4), at(5)], suffix)
    (bag / f'bag_1.{suffix}').unlink()
    result = replay(bag, tmp_path / 'out')
    assert (result.captions, result.lost) == (3, 3)
    assert result.problems == [
        f'bag_1.{suffix} is missing', '3 of 6 recorded frames cannot be read']


@pytest.mark.parametrize('metadata', [
    '', 'rosbag2_bagfile_information:', 'rosbag2_bagfile_information: 7', '[', '- a', '\0',
    'rosbag2_bagfile_information: {relative_file_paths: 3}',
    'rosbag2_bagfile_information: {relative_file_paths: [[1], null]}',
    'rosbag2_bagfile_information: {relative_file_paths: [a_0.mcap],'
    ' topics_with_message_count: [{topic_metadata: [x]}]}'])
def test_damaged_metadata_costs_nothing_but_is_told(tmp_path, metadata):
    bag = write_split(tmp_path / 'a', [at(0, 1), at(2)])
    (bag / 'metadata.yaml').write_text(metadata)
    result = replay(bag, tmp_path / 'out')
    assert times(tmp_path / 'out') == at(0, 1, 2)
    assert not result.whole and 'metadata.yaml cannot be read' in result.problems[0]
    assert '\n' not in result.problems[0]


def test_a_bag_of_an_archive_that_cannot_be_opened_costs_itself(tmp_path, capsys):
    archive = tmp_path / 'archive'
    write_split(archive / 'good', [at(0, 1)])
    whole = (write_split(archive / 'cut', [at(0, 1)]) / 'metadata.yaml').read_text()
    (archive / 'cut/metadata.yaml').write_text(whole[:60])
    (archive / 'empty').mkdir()
    (archive / 'empty/metadata.yaml').write_text(whole)
    command = ['replay', str(archive), '--out', str(tmp_path / 'out'), '--model', 'simple']
    assert main(command) == 1
    assert times(tmp_path / 'out/good') == times(tmp_path / 'out/cut') == at(0, 1)
    error = capsys.readouterr().err
    assert 'Traceback' not in error
    assert 'cut: its metadata.yaml cannot be read' in error and 'holds no .db3' in error


def test_bags_below_linked_folders_are_found_once(tmp_path):
    write_split(tmp_path / 'disk/monday', [at(0)])
    write_split(tmp_path / 'archive/tuesday', [at(0)])
    (tmp_path / 'archive/disk').symlink_to(tmp_path / 'disk')
    (tmp_path / 'archive/again').symlink_to(tmp_path / 'archive')
    (tmp_path / 'archive/gone').symlink_to(tmp_path / 'nowhere')
    bags, problems = find_bags([tmp_path / 'archive'])
    assert list(bags) == ['disk/monday', 'tuesday'] and problems == []


def test_what_is_unreadable_is_told(tmp_path):
    write_split(tmp_path / 'archive/good', [at(0)])
    closed = write_split(tmp_path / 'archive/closed', [at(0), at(1)])
    (closed / 'closed_1.mcap').chmod(0)
    (tmp_path / 'archive/sealed').mkdir(0)
    if os.access(tmp_path / 'archive/sealed', os.R_OK):
        pytest.skip('nothing is unreadable to root')
    bags, problems = find_bags([tmp_path / 'archive'])
    assert list(bags) == ['closed', 'good']
    assert problems == [f'{tmp_path / "archive/sealed"} cannot be read: Permission denied']
    result = replay(closed, tmp_path / 'out')
    assert not result.complete and 'Permission denied' in result.problems[0]


def bomb():
    """Return 3 GB of zeros in a few kB, made without them."""
    packed = io.BytesIO()
    with zstandard.ZstdCompressor(level=3).stream_writer(packed, closefd=False) as writer:
        for _ in range(3000):
            writer.write(bytes(1 << 20))
    return packed.getvalue()


def test_what_unpacks_to_gigabytes_is_refused_at_a_bound(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, 'MAX_BYTES', 8 << 20)  # the bound itself takes long to reach
    data = bomb()
    told = zstandard.ZstdCompressor().compress(bytes(20 << 20))
    frames = [frame(), data, told, frame()]
    file = write_mcap(
        tmp_path / 'bag.mcap', at(0, 1, 2, 3), chunk_size=100_000, data=frames.__getitem__)
    chunks = write_mcap(
        tmp_path / 'chunks.mcap', at(0, 1, 2), chunk_size=500,
        compression=CompressionType.ZSTD, data=[frame(), bytes(20 << 20), frame()].__getitem__)
    tracemalloc.start()
    result = replay(file, tmp_path / 'out')
    assert (result.captions, result.skipped) == (2, 2)
    reasons = [json.loads(line)['reason']
               for line in (tmp_path / 'out/skipped.jsonl').read_text().splitlines()]
    assert all('unpacks to more than 8 MB' in reason for reason in reasons)
    result = replay(chunks, tmp_path / 'chunks')
    assert (result.captions, result.lost) == (2, 1)
    assert 'unpacks to more than 8 MB' in result.problems[0]
    assert tracemalloc.get_traced_memory()[1] < 40 << 20
    tracemalloc.stop()


def test_replay_goes_on_after_a_power_cut(tmp_path):
    bag = write_split(tmp_path / 'bag', [at(0, 1, 2)])
    out = tmp_path / 'out'
    assert replay(bag, out).whole
    for journal in (b'', bytes(400)):
        (out / 'replay.json').write_bytes(journal)
        result = replay(bag, out)
        assert result.whole and times(out) == at(0, 1, 2)
    (out / 'replay.json').write_text('{"settings": ')
    with pytest.raises(ValueError, match='replay.json is damaged: delete it'):
        replay(bag, out)


def damage(kind, bag, rng):
    """Damage a bag, and return how many frames are certainly lost, None if that is unknown."""
    files = sorted(bag.glob('bag_*'))
    file = rng.choice(files)
    content = bytearray(file.read_bytes())
    if kind == 'cut':
        os.truncate(file, rng.randrange(len(content)))
    elif kind == 'flip':
        for _ in range(rng.randrange(1, 20)):
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        file.write_bytes(content)
    elif kind == 'hole':
        start = rng.randrange(len(content))
        content[start:start + 512] = bytes(len(content[start:start + 512]))
        file.write_bytes(content)
    elif kind == 'missing':
        file.unlink()


@pytest.mark.parametrize('suffix', ['mcap', 'db3'])
@pytest.mark.parametrize('kind', ['permuted', 'cut', 'flip', 'hole', 'missing'])
def test_captioned_and_told_as_lost_is_what_was_written(tmp_path, monkeypatch, suffix, kind):
    monkeypatch.setattr(os, 'fsync', lambda descriptor: None)  # each would wait for the disk
    rng = random.Random(f'{suffix} {kind}')
    for trial in range(1 if kind == 'permuted' else 8):
        stamps = [START + number * SECOND // 10 for number in range(24)]
        if kind == 'permuted':
            rng.shuffle(stamps)
        bag = write_split(tmp_path / str(trial) / 'bag', [stamps[:10], stamps[10:16], stamps[16:]],
                          suffix)
        damage(kind, bag, rng)
        result = replay(bag, tmp_path / str(trial) / 'out')
        assert result.complete
        told = result.captions + result.skipped + result.lost
        # A flipped bit can turn one message into two; nothing is ever told too low.
        assert told >= 24 if kind in ('flip', 'hole') else told == 24, (trial, result)
        assert result.whole or result.skipped or result.problems
        written = Counter(stamps)
        if kind not in ('flip', 'hole'):
            assert not Counter(times(tmp_path / str(trial) / 'out')) - written


@pytest.mark.parametrize('suffix', ['mcap', 'db3'])
def test_damaged_lengths_ask_for_no_memory(tmp_path, suffix):
    rng = random.Random(suffix)
    file = WRITE[suffix](tmp_path / f'bag.{suffix}', at(*range(12)))
    whole = file.read_bytes()
    tracemalloc.start()
    for _ in range(40):
        damaged = bytearray(whole)
        for _ in range(40):
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        file.write_bytes(damaged)
        list(open_bag(file).frames())
    assert tracemalloc.get_traced_memory()[1] < 10 << 20
    tracemalloc.stop()


def test_an_mcap_file_cut_at_every_chunk_gives_all_before(tmp_path):
    file = write_mcap(tmp_path / 'bag.mcap', at(*range(12)))
    whole = file.read_bytes()
    starts = [
        start for start in range(len(whole) - 9) if whole[start] == 6
        and 1000 < int.from_bytes(whole[start + 1:start + 9], 'little') < 4000]
    assert len(starts) > 3
    counts = []
    for start in starts:
        file.write_bytes(whole[:start])
        bag = open_bag(file)
        counts.append(len(list(bag.frames())))
        assert len(bag.problems) == 1
    assert counts[0] == 0 and counts == sorted(set(counts)) and counts[-1] >= 8


def test_frames_behind_a_damaged_chunk_are_read(tmp_path):
    file = write_mcap(tmp_path / 'bag.mcap', at(*range(12)))
    whole = bytearray(file.read_bytes())
    start = next(
        start for start in range(3000, len(whole) - 9) if whole[start] == 6
        and 1000 < int.from_bytes(whole[start + 1:start + 9], 'little') < 4000)
    for place in (start + 3, start + 600):  # its length, a message in it
        damaged = bytearray(whole)
        damaged[place] ^= 0xff
        file.write_bytes(damaged)
        bag = open_bag(file)
        read = [frame.bag_time for frame in bag.frames()]
        assert at(11)[0] in read and at(0)[0] in read and 8 <= len(read) < 12
        assert 'bag.mcap is damaged' in bag.problems[0]
