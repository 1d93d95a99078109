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

"""Test the commands that take `--model server`: what they ask it, and what they write."""

import json

import cv2
from fake_server import CAPTION, FakeServer
from jetcap_ros.cli import main
import pytest


@pytest.fixture
def server():
    with FakeServer('', logprobs=()) as fake:
        yield fake


def run(command, server, *arguments):
    return main([
        command, '--model', 'server', '--server-url', server.url, '--prompt', 'What is it?',
        *map(str, arguments)])


def test_caption_goes_on_after_a_picture_that_cannot_be_read(
        server, photograph, tmp_path, capsys):
    good, bad = tmp_path / 'good.png', tmp_path / 'bad.png'
    cv2.imwrite(str(good), photograph)
    bad.write_bytes(b'no picture')
    assert run('caption', server, '--json', bad, good) == 1
    caption = json.loads(capsys.readouterr().out)
    assert (caption['text'], caption['score'], caption['attention']) == (CAPTION, None, None)
    assert server.questions[-1]['messages'][0]['content'][1]['text'] == 'What is it?'


def test_replay_writes_the_same_again_and_goes_on(server, tmp_path, capsys):
    pytest.importorskip('rosbags')
    from replay_bags import write_bag
    from jetcap_ros.replay.captions import read_records
    bag, out, again = (tmp_path / name for name in ('tour', 'out', 'again'))
    write_bag(bag, 4)
    assert run('replay', server, bag, '--every-frame', '--out', out, '--timeout', 5) == 0
    records = list(read_records(out / 'captions.jsonl'))
    assert [(r.caption, r.score, r.model) for r in records] == 4 * [(CAPTION, None, 'server')]
    lines = (out / 'captions.jsonl').read_bytes()

    # A server that fails ends it: another model's captions would not be the same.
    server.play, server.good_answers = 'error500', 2  # of which one is for its start
    assert run('replay', server, bag, '--every-frame', '--out', again) == 2
    assert 'failed to decode image' in capsys.readouterr().err
    assert (again / 'captions.jsonl').read_bytes() == lines[:lines.index(b'\n') + 1]
    server.play = 'ok'
    more = '--resume', '--timeout', 60, '--expect', out / 'captions.jsonl', \
        '--write-bag', tmp_path / 'bag'
    assert run('replay', server, bag, '--every-frame', '--out', again, *more) == 0
    assert (again / 'captions.jsonl').read_bytes() == lines
    assert run('replay', server, bag, '--out', again, '--resume', '--prompt', 'Why?') == 2
    assert 'made with' in capsys.readouterr().err


def test_replay_of_several_bags_asks_one_server(server, tmp_path, capsys):
    pytest.importorskip('rosbags')
    from replay_bags import write_bag
    for name in ('one', 'two'):
        write_bag(tmp_path / 'bags' / name, 2)
    assert run('replay', server, tmp_path / 'bags', '--every-frame', '--out', tmp_path / 'o') == 0
    printed = capsys.readouterr()
    assert '2 bags, 4 captions' in printed.out and '1 at once' in printed.err


def test_evaluate_scores_what_a_server_says(server, photograph, tmp_path, capsys, monkeypatch):
    for library in ('torch', 'pycocoevalcap'):
        pytest.importorskip(library)
    monkeypatch.setattr('shutil.which', lambda name: None)  # no Java, which takes its time
    rows = [{'file': f'{number}.png', 'captions': [CAPTION, 'A ball .']} for number in range(3)]
    for row in rows:
        cv2.imwrite(str(tmp_path / row['file']), photograph[::8, ::8])
    captions, out = tmp_path / 'captions.jsonl', tmp_path / 'out'
    captions.write_text('\n'.join(json.dumps({'split': 'val', **row}) for row in rows))
    server.logprobs = (-0.5, -1.5)
    assert run('evaluate', server, '-', captions, tmp_path, '--out', out) == 0
    found = json.loads((out / 'scores.json').read_text())
    assert found['scores']['all']['BLEU-1'] == pytest.approx(100)
    assert found['settings']['server']['prompt'] == 'What is it?'
    results = [json.loads(line) for line in (out / 'captions.jsonl').read_text().splitlines()]
    assert [(r['caption'], r['value'], r['attention']) for r in results] == 3 * [
        (CAPTION, pytest.approx(-1.0), None)]
    page = (out / 'gallery.html').read_text()
    assert 'score\n0.37' in page and 'Where the model looked' not in page

    # One picture that it fails at is left out, and the exit code says so; all are too many.
    server.play, server.good_answers, server.logprobs = 'error500', 3, ()
    assert run('evaluate', server, '-', captions, tmp_path, '--out', out) == 1
    printed = capsys.readouterr()
    assert '1 of 3 pictures were not captioned' in printed.out
    assert '2.png: the server answers 500: failed to decode image' in printed.err
    server.good_answers = 1
    assert run('evaluate', server, '-', captions, tmp_path) == 2
    assert 'none of the pictures was captioned' in capsys.readouterr().err
    assert run('evaluate', server, '-', captions, tmp_path, '--calibrate') == 2
    assert '--calibrate: a server has' in capsys.readouterr().err


def measure_server(url, folder):
    from jetcap_ros.benchmark import latency, memory
    from jetcap_ros.benchmark.plan import Plan
    plan = Plan('', '', '', '', folder, quick=True, seconds=0.5, sustained_s=1.5, server={
        'model': 'server', 'fallback': 'none', 'server_url': url, 'inference_timeout_s': 20.0})
    assert list(plan.models) == ['mobilenet', 'simple', 'server']
    parameters = plan.models['server']
    return {
        'memory': memory.measure_node(plan, parameters),
        'startup': latency.measure_startup(plan, parameters),
        'running': latency.measure_running(plan, parameters)}


def test_benchmark_measures_a_server_as_the_other_models(server, tmp_path):
    pytest.importorskip('rclpy')
    from test_benchmark import in_a_process
    server.play, server.seconds = 'slow', 0.1
    found = in_a_process(measure_server, server.url, str(tmp_path))
    assert found['memory']['model'] == 'server'
    assert list(found['memory']['stages']) == [
        'server_files', 'server_start', 'vision', 'warm_up']
    assert found['startup']['configure_s'] < found['startup']['first_caption_s']
    running = found['running']
    assert 100 < running['worker_ms']['p50'] < running['vga_ms']['p99'] * 2
    assert running['sustained']['captions'] >= 3 and running['captions_per_s'] <= 10


@pytest.mark.parametrize('arguments, reason', [
    (('growth', '--model', 'server'), 'with memory and time'),
    (('--memory-sweep', '--model', 'server'), 'with memory and time'),
    pytest.param(
        ('--model', 'server', '--timeout', '-1'), '--timeout -1',
        marks=pytest.mark.needs('torchvision'))])
def test_what_a_benchmark_of_a_server_cannot_be(arguments, reason, capsys):
    pytest.importorskip('rclpy')
    assert main(['benchmark', *arguments]) == 2
    assert reason in capsys.readouterr().err
