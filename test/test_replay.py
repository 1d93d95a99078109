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

"""`jetcap replay`: its captions, going on, comparing, copying, many bags."""

import csv
import json
from pathlib import Path
import signal
import subprocess
import sys
import time

from jetcap_ros.cli import main
from jetcap_ros.engine.captioner import CaptionerError
from jetcap_ros.replay import fleet
from jetcap_ros.replay.captions import CaptionRecord, drop_partial_line, read_records
from jetcap_ros.replay.compare import compare, similarity
from jetcap_ros.replay.runner import ReplaySettings
import psutil
import pytest
from replay_bags import frame_image, RECORDING_DELAY, START, STORE, write_bag
from rosbags.rosbag2 import Reader


def replay(*arguments):
    return main(['replay', '--model', 'simple', *map(str, arguments)])


def records(out):
    return list(read_records(out / 'captions.jsonl'))


def start_replay(*arguments):
    command = [sys.executable, '-m', 'jetcap_ros.cli', 'replay', '--model', 'simple', *arguments]
    return subprocess.Popen(
        list(map(str, command)), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        cwd=Path(__file__).parent.parent)


def wait_for_lines(process, path, count):
    while process.poll() is None:
        if path.exists() and path.read_bytes().count(b'\n') >= count:
            return
        time.sleep(0.01)
    raise AssertionError(f'ended with {process.returncode}: {process.stderr.read()}')


@pytest.fixture(scope='module')
def bag(tmp_path_factory):
    """Write four photographs, each for a second; two frames are bad."""
    path = tmp_path_factory.mktemp('bags') / 'tour'
    return write_bag(path, 16, bad=(0, 6))


@pytest.fixture(scope='module')
def good_bag(tmp_path_factory):
    """Write photographs that can all be decoded."""
    return write_bag(tmp_path_factory.mktemp('good') / 'tour', 14)


@pytest.fixture(scope='module')
def good_out(good_bag):
    """Caption every frame of the good bag."""
    out = good_bag.parent / 'out'
    assert replay(good_bag, '--out', out, '--every-frame') == 0
    return out


@pytest.fixture(scope='module')
def out(bag):
    """Caption every frame of the bag."""
    out = bag.parent / 'out'
    assert replay(bag, '--out', out, '--every-frame') == 1  # for the two bad frames
    return out


def test_captions_every_good_frame(out):
    captions = records(out)
    assert [(record.bag_time - START - RECORDING_DELAY) // 250_000_000 for record in captions] == [
        number for number in range(16) if number not in (0, 6)]
    for record in captions:
        assert record.stamp == record.bag_time - RECORDING_DELAY
        assert (record.topic, record.frame_id) == ('/camera/image_raw', 'camera_frame')
        assert record.model == 'simple'
        assert 0 < record.score <= 1
        assert len(record.caption.split()) >= 3
    # The photographs are as different as an astronaut and a cat.
    assert len({record.caption for record in captions}) >= 3


def test_still_frames_are_left_out_also_by_a_replay_that_goes_on(tmp_path):
    bag = write_bag(
        tmp_path / 'standing', 14, picture=lambda number: frame_image(number - number % 4))
    options = bag, '--every-frame', '--skip-still', '--out', tmp_path / 'out'
    assert replay(*options) == 0
    whole = (tmp_path / 'out' / 'captions.jsonl').read_bytes()
    result = json.loads((tmp_path / 'out' / 'replay.json').read_text())['result']
    assert result['captions'] == 4 and result['still'] == 10  # four photographs
    (tmp_path / 'out' / 'captions.jsonl').write_bytes(b''.join(whole.splitlines(True)[:2]))
    assert replay(*options, '--resume') == 0
    assert (tmp_path / 'out' / 'captions.jsonl').read_bytes() == whole
    again = json.loads((tmp_path / 'out' / 'replay.json').read_text())['result']
    assert again['still'] == 10


def test_tells_and_counts_bad_frames(out):
    skipped = [json.loads(line) for line in (out / 'skipped.jsonl').read_text().splitlines()]
    assert [line['bag_time'] for line in skipped] == [
        START + RECORDING_DELAY + number * 250_000_000 for number in (0, 6)]
    assert 'rgb7' in skipped[0]['reason']
    summary = json.loads((out / 'replay.json').read_text())
    assert summary['result']['skipped'] == 2
    assert summary['result']['captions'] == 14
    assert summary['result']['complete'] is True


def test_measures_every_caption(out):
    with (out / 'timings.csv').open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row['bag_time']) for row in rows] == [record.bag_time for record in records(out)]
    for row in rows:
        assert 0 < float(row['model_ms']) <= float(row['latency_ms'])
        assert float(row['memory_mb']) > 10 and float(row['model_memory_mb']) > 10


def test_is_repeatable_byte_for_byte(bag, out, tmp_path):
    assert replay(bag, '--out', tmp_path / 'out', '--every-frame', '--threads', '1') == 1
    assert (tmp_path / 'out/captions.jsonl').read_bytes() == (out / 'captions.jsonl').read_bytes()


def test_captions_at_most_every_so_often(bag, out, tmp_path):
    assert replay(bag, '--out', tmp_path / 'out', '--every', '0.7') == 1
    # Frame 0 is bad, so the first is 1, and then every third; 6 is none of them.
    expected = [record for record in records(out) if (
        record.bag_time - START) // 250_000_000 % 3 == 1]
    assert records(tmp_path / 'out') == expected


def test_chooses_topics(tmp_path, capsys):
    topics = ('/front/image_raw', '/rear/image_raw/compressed')
    bag = write_bag(tmp_path / 'bag', 3, topics=topics)
    assert replay(bag, '--out', tmp_path / 'all', '--every-frame') == 0
    assert replay(bag, '--out', tmp_path / 'rear', '--every-frame', '--topic', topics[1]) == 0
    both = records(tmp_path / 'all')
    assert [record.topic for record in both] == [*topics] * 3
    assert records(tmp_path / 'rear') == both[1::2]
    # The same picture, with PNG's compression and without.
    assert [record.caption for record in both[::2]] == [record.caption for record in both[1::2]]
    capsys.readouterr()
    assert replay(bag, '--out', tmp_path / 'none', '--topic', '/left') == 2
    error = capsys.readouterr().err
    assert '/left' in error and topics[0] in error and topics[1] in error


def test_a_bag_without_images_fails(tmp_path, capsys):
    assert replay(write_bag(tmp_path / 'bag', 3, topics=()), '--out', tmp_path / 'out') == 1
    assert 'no image was found' in capsys.readouterr().err


@pytest.fixture(scope='module')
def long_replay(tmp_path_factory):
    """Return the arguments of a replay that can be stopped, and the folder of a whole one."""
    folder = tmp_path_factory.mktemp('long')
    bag = write_bag(folder / 'bag', 80, bad=(1, 20))
    arguments = (bag, '--every', '0.4', '--beam', 1, '--out')
    assert replay(*arguments, folder / 'whole') == 1  # for a bad frame
    return arguments, folder / 'whole'


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_what_was_stopped_goes_on_to_the_same_captions(tmp_path, long_replay, number):
    arguments, whole = long_replay
    process = start_replay(*arguments, tmp_path / 'out')
    wait_for_lines(process, tmp_path / 'out/captions.jsonl', 5)
    assert replay(*arguments, tmp_path / 'out', '--resume') == 2  # it is being written
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    count = len(records(tmp_path / 'out'))
    assert 5 <= count < 40
    if number != signal.SIGKILL:
        assert process.returncode == 130
        assert '--resume' in error and 'Traceback' not in error
        assert 'not to the end' in (tmp_path / 'out/report.html').read_text()
    with (tmp_path / 'out/captions.jsonl').open('a') as file:
        file.write('{"bag_time": 17000')  # as a process killed in the middle of a line leaves it
    assert replay(*arguments, tmp_path / 'out') == 2  # nothing is overwritten unasked
    assert replay(*arguments, tmp_path / 'out', '--resume') == 1
    for name in ('captions.jsonl', 'skipped.jsonl'):
        assert (tmp_path / 'out' / name).read_bytes() == (whole / name).read_bytes()
    pictures = [sorted(path.name for path in (folder / 'thumbnails').iterdir())
                for folder in (tmp_path / 'out', whole)]
    assert pictures[0] == pictures[1]


def test_goes_on_only_with_the_same_options(good_bag, good_out, capsys):
    assert replay(good_bag, '--out', good_out, '--resume', '--every', '1') == 2
    assert 'every 0.0' in capsys.readouterr().err
    assert replay(good_bag, '--out', good_out, '--resume', '--every-frame', '--beam', '1') == 2
    assert 'beam_size' in capsys.readouterr().err
    summary = (good_out / 'replay.json').read_text()
    changed = json.loads(summary)
    changed['settings']['captioner']['checkpoint_sha256'] = '0' * 64
    (good_out / 'replay.json').write_text(json.dumps(changed))
    assert replay(good_bag, '--out', good_out, '--resume', '--every-frame') == 2
    assert 'checkpoint_sha256 0000' in capsys.readouterr().err
    (good_out / 'replay.json').write_text(summary)
    # Nothing is left to do.
    assert replay(good_bag, '--out', good_out, '--resume', '--every-frame') == 0


def test_writes_the_captions_as_a_bag(good_bag, good_out, tmp_path):
    target = tmp_path / 'captions'
    arguments = (good_bag, '--out', good_out, '--resume', '--every-frame', '--write-bag', target)
    assert replay(*arguments) == 0
    written = {}
    with Reader(target) as reader:
        for connection, bag_time, data in reader.messages():
            text = STORE.deserialize_cdr(data, connection.msgtype).data
            written.setdefault(connection.topic, []).append((bag_time, text))
    expected = records(good_out)
    assert written['/camera/image_raw/caption'] == [
        (record.bag_time, record.caption) for record in expected]
    infos = written['/camera/image_raw/caption_info']
    assert [bag_time for bag_time, _ in infos] == [record.bag_time for record in expected]
    info = json.loads(infos[0][1])
    assert info['stamp'] == {'sec': 1_700_000_000, 'nanosec': 0}
    assert info['caption'] == expected[0].caption
    assert replay(*arguments) == 2  # it is not overwritten


def test_expect_tells_same_from_different(good_bag, good_out, tmp_path, capsys):
    arguments = (good_bag, '--out', good_out, '--resume', '--every-frame', '--expect')
    assert replay(*arguments, good_out / 'captions.jsonl') == 0
    assert '14 captions expected, 0 differences' in capsys.readouterr().out
    lines = (good_out / 'captions.jsonl').read_text().splitlines()
    changed = json.loads(lines[3])
    changed['caption'] += ' indeed'
    (tmp_path / 'changed.jsonl').write_text('\n'.join([*lines[:3], json.dumps(changed)]) + '\n')
    assert replay(*arguments, tmp_path / 'changed.jsonl') == 1
    text = capsys.readouterr().out
    assert '4 captions expected, 11 differences' in text
    assert f'  - {changed["caption"]}' in text
    assert 'no caption was expected' in text
    (tmp_path / 'changed.jsonl').write_text('\n'.join([
        *lines[:3], json.dumps(changed), *lines[4:]]) + '\n')
    assert replay(*arguments, tmp_path / 'changed.jsonl') == 1
    assert replay(*arguments, tmp_path / 'changed.jsonl', '--threshold', '0.7') == 0
    (tmp_path / 'changed.jsonl').write_text('no JSON\n')
    assert replay(*arguments, tmp_path / 'changed.jsonl') == 2
    assert 'line 1' in capsys.readouterr().err
    assert replay(*arguments, tmp_path / 'nothing.jsonl') == 2


def test_similarity_counts_common_words_in_order():
    assert similarity('a cat on a sofa', 'a cat on a sofa') == 1
    assert similarity('a cat on a sofa', 'two red buses') == 0
    assert similarity('a cat on a sofa', 'a cat on a chair') == pytest.approx(0.8)
    assert similarity('a b', 'b a') == pytest.approx(0.5)


def test_compare_keeps_frames_of_the_same_time_apart():
    def record(caption, bag_time=1, topic='/a'):
        return CaptionRecord(bag_time, 0, topic, '', caption, 0.5, 'simple')
    expected = [record('one'), record('two'), record('three', topic='/b'), record('four', 2)]
    assert compare(expected, expected).differences == []
    actual = [record('one'), record('three', topic='/b'), record('two'), record('five', 2)]
    differences = compare(expected, actual).differences
    assert [(item.expected, item.actual) for item in differences] == [('four', 'five')]
    assert [item.actual for item in compare(expected, expected[:3]).differences] == [None]


def test_a_partial_line_is_dropped(tmp_path):
    path = tmp_path / 'lines'
    for content, kept in ((b'', b''), (b'ab', b''), (b'ab\ncd', b'ab\n'), (b'ab\n', b'ab\n')):
        path.write_bytes(content)
        drop_partial_line(path)
        assert path.read_bytes() == kept


def test_many_bags_are_captioned_each_into_its_folder(tmp_path, capsys):
    archive = tmp_path / 'archive'
    write_bag(archive / 'monday' / 'a', 4)
    write_bag(archive / 'tuesday' / 'b', 4, storage='sqlite3', bad=(2,))
    broken = write_bag(archive / 'broken', 4)
    (broken / 'broken.mcap').write_bytes(b'no bag')
    out = tmp_path / 'out'
    assert replay(archive, '--out', out, '--every-frame') == 1  # for the broken one
    assert 'broken.mcap is damaged' in capsys.readouterr().err
    assert replay(archive / 'monday' / 'a', '--out', tmp_path / 'alone', '--every-frame') == 0
    alone = records(tmp_path / 'alone')
    assert records(out / 'monday/a') == alone
    assert records(out / 'tuesday/b') == alone[:2] + alone[3:]
    page = (out / 'index.html').read_text()
    assert 'href="monday/a/report.html"' in page and 'broken.mcap is damaged' in page
    # What is done is not done again; the earlier output can be expected as a whole.
    (archive / 'broken' / 'broken.mcap').unlink()
    (archive / 'broken' / 'metadata.yaml').unlink()
    again = (archive, '--out', out, '--resume', '--every-frame', '--expect')
    capsys.readouterr()
    assert replay(*again, out) == 1  # for the frame that was skipped
    text = capsys.readouterr().out
    assert text.count(' 0 differences') == 2 and '7 captions, 1 frames skipped' in text
    (out / 'tuesday/b/captions.jsonl').rename(tmp_path / 'captions.jsonl')
    assert replay(*again, out) == 2


def test_stopping_many_bags_keeps_what_was_captioned(tmp_path):
    archive = tmp_path / 'archive'
    for name in 'abc':
        write_bag(archive / name, 60)
    arguments = (archive, '--every-frame', '--beam', 1, '--jobs', 2, '--out')
    process = start_replay(*arguments, tmp_path / 'out')
    wait_for_lines(process, tmp_path / 'out/a/captions.jsonl', 3)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert 'Traceback' not in error and '--resume' in error
    assert 3 <= len(records(tmp_path / 'out/a')) < 60
    assert replay(*arguments, tmp_path / 'out', '--resume') == 0
    captions = (tmp_path / 'out/a/captions.jsonl').read_bytes()
    assert captions.count(b'\n') == 60
    for name in 'bc':
        assert (tmp_path / 'out' / name / 'captions.jsonl').read_bytes() == captions


def test_a_process_that_dies_costs_its_bag_only(tmp_path):
    archive = tmp_path / 'archive'
    for name in 'abc':
        write_bag(archive / name, 40)
    arguments = (archive, '--every-frame', '--beam', 1, '--jobs', 2, '--out')
    process = start_replay(*arguments, tmp_path / 'out')
    for name in 'ab':
        wait_for_lines(process, tmp_path / 'out' / name / 'captions.jsonl', 1)
    victim = next(
        child for child in psutil.Process(process.pid).children()
        if any(file.path.endswith('out/a/captions.jsonl') for file in child.open_files()))
    victim.kill()
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert 'a: the process that read it was killed' in error
    assert [len(records(tmp_path / 'out' / name)) for name in 'bc'] == [40, 40]
    assert 1 <= len(records(tmp_path / 'out/a')) < 40
    assert replay(*arguments, tmp_path / 'out', '--resume') == 0
    assert records(tmp_path / 'out/a') == records(tmp_path / 'out/b')


def test_processes_are_bounded_by_cores_and_memory(monkeypatch):
    simple = ReplaySettings(captioner={'model': 'simple'})
    mobilenet = ReplaySettings(captioner={'model': 'mobilenet'})
    monkeypatch.setattr(fleet, 'cores', lambda: 4)
    for available, expected in ((100, (1, 1)), (1050, (3, 1)), (2100, (4, 2)), (99999, (4, 4))):
        monkeypatch.setattr(fleet, 'available_memory_mb', lambda: available)
        counts = tuple(fleet.process_count(settings, 9) for settings in (simple, mobilenet))
        assert counts == expected
        assert fleet.process_count(simple, 2) <= 2


def test_another_checkpoint_than_the_jobs_is_refused():
    settings = ReplaySettings(captioner={'model': 'simple', 'checkpoint_sha256': '0' * 64})
    with pytest.raises(CaptionerError, match='SHA-256'):
        fleet.make_captioner(settings, 1)


def test_runs_on_a_cluster(tmp_path, capsys, monkeypatch):
    distributed = pytest.importorskip('distributed')
    archive = tmp_path / 'archive'
    for name in 'abc':
        write_bag(archive / name, 4)
    with distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None,
            host='127.0.0.1') as cluster:
        arguments = (archive, '--every-frame', '--cluster', cluster.scheduler_address, '--out')
        assert replay(*arguments, tmp_path / 'out') == 0
    assert replay(archive / 'a', '--out', tmp_path / 'alone', '--every-frame') == 0
    for name in 'abc':
        assert records(tmp_path / 'out' / name) == records(tmp_path / 'alone')
    capsys.readouterr()
    monkeypatch.setattr(fleet, 'CONNECT_TIMEOUT_S', 0.5)
    assert replay(archive, '--out', tmp_path / 'x', '--cluster', 'tcp://127.0.0.1:1') == 2
    assert 'no Dask scheduler' in capsys.readouterr().err


@pytest.mark.parametrize('options, text', [
    (('--every', '-1'), '--every'), (('--threshold', '2'), '--threshold'),
    (('--checkpoint', 'nothing.safetensors'), 'nothing.safetensors')])
def test_wrong_options_are_told(bag, tmp_path, capsys, options, text):
    assert replay(bag, '--out', tmp_path / 'out', *options) == 2
    assert text in capsys.readouterr().err
