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

"""Scores, calibration and gallery of `jetcap evaluate`, on drawn pictures."""

import json
import shutil

import cv2
from jetcap_ros.cli import main
from jetcap_ros.errors import UserError
from jetcap_ros.models.mobilenet import MobileNetCaptioningModel
from jetcap_ros.training import metrics
from jetcap_ros.training.calibration import calibrate, plot_reliability
from jetcap_ros.training.checkpoint import checkpoint_contents, save_atomically
from jetcap_ros.training.dataset import build_vocabulary, tokenize
import numpy as np
import pytest
import torch

CAPTIONS = ('A red circle on the left .', 'There is a red circle on grey .')


def people(count):
    """Return three captions for each of some pictures that have nothing in common."""
    return [[f'a dog{n} runs on grass{n} today', f'the dog{n} runs on grass{n}',
             f'one dog{n} runs on grass{n} fast'] for n in range(count)]


@pytest.fixture(scope='module')
def scene(tmp_path_factory):
    """Return a folder with pictures, captions and an untrained checkpoint."""
    folder = tmp_path_factory.mktemp('scene')
    rows = []
    for number in range(6):
        image = np.full((60, 80, 3), 30 * number, np.uint8)
        cv2.imwrite(str(folder / f'{number}.png'), image)
        rows.append({'file': f'{number}.png', 'split': 'val', 'captions': list(CAPTIONS),
                     'source': 'one' if number < 4 else 'two'})
    rows.append({'file': 'absent.png', 'split': 'train', 'captions': list(CAPTIONS)})
    (folder / 'captions.jsonl').write_text('\n'.join(map(json.dumps, rows)))
    torch.manual_seed(0)
    vocabulary = build_vocabulary(map(tokenize, CAPTIONS), 1)
    model = MobileNetCaptioningModel(len(vocabulary), 8, 16, 8, 'mobilenet_v3_small')
    save_atomically(checkpoint_contents(model, vocabulary), str(folder / 'model.pth'))
    return folder


def arguments(scene, *more):
    return ['evaluate', str(scene / 'model.pth'), str(scene / 'captions.jsonl'), str(scene),
            '--quantize', 'none', '--threads', '1', '--max-length', '8', *more]


def test_writes_scores_captions_and_gallery(scene, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(metrics.shutil, 'which', lambda name: None)
    assert main(arguments(scene, '--out', str(tmp_path), '--beam', '2')) == 0
    table = capsys.readouterr().out
    assert 'METEOR is left out' in table and 'one' in table and 'two' in table
    document = json.loads((tmp_path / 'scores.json').read_text())
    assert document['settings']['tokenizer'] == 'plain' and document['settings']['beam'] == 2
    assert {name: row['pictures'] for name, row in document['scores'].items()} == {
        'one': 4, 'two': 2, 'all': 6}
    assert 'METEOR' not in document['scores']['all']
    assert 0 <= document['scores']['all']['BLEU-1'] <= 100
    rows = [json.loads(line) for line in (tmp_path / 'captions.jsonl').read_text().splitlines()]
    assert [row['file'] for row in rows] == [f'{n}.png' for n in range(6)]
    assert all(row['caption'] and 0 < row['score'] < 1 for row in rows)
    assert all(set(row['metrics']) == set(metrics.METRICS) - {'METEOR'} for row in rows)
    page = (tmp_path / 'gallery.html').read_text()
    assert page.count('data:image/jpeg;base64,') == 24 and 'src="http' not in page


@pytest.mark.skipif(not metrics.has_java(), reason='no Java: no METEOR and no PTB tokenizer')
def test_with_java_a_copy_scores_full():
    tokens = metrics.tokenize_all([["A man's dog, brown."], ['Two cats sit .']], java=True)
    assert tokens == [["a man 's dog brown"], ['two cats sit']]
    scores = metrics.score(
        [group[0] for group in tokens], [group * 2 for group in tokens], java=True)
    assert scores.total['METEOR'] == pytest.approx(100)
    assert scores.total['BLEU-1'] == pytest.approx(100)
    assert set(scores.total) == set(metrics.METRICS)


def test_limit_and_simple_model_on_a_packed_file(scene, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(metrics.shutil, 'which', lambda name: None)
    packed = tmp_path / 'model.safetensors'
    assert main(['pack', str(scene / 'model.pth'), '--out', str(packed)]) == 0
    command = arguments(scene, '--limit', '3', '--out', str(tmp_path / 'out'))
    command[1] = str(packed)
    assert main([*command, '--model', 'simple']) == 0
    scores = json.loads((tmp_path / 'out' / 'scores.json').read_text())['scores']
    assert scores['one']['pictures'] == 3 and 'all' not in scores


def test_what_cannot_be_read_is_told_and_left_out(scene, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(metrics.shutil, 'which', lambda name: None)
    rows = [{'file': name, 'split': 'val', 'captions': list(CAPTIONS)}
            for name in ('cut.png', '0.png', '1.png')]
    (scene / 'cut.png').write_bytes((scene / '0.png').read_bytes()[:70])
    captions = tmp_path / 'captions.jsonl'
    captions.write_text('\n'.join(map(json.dumps, rows)))
    command = arguments(scene)
    command[2] = str(captions)
    assert main(command) == 1
    out, error = capsys.readouterr()
    assert 'cut.png: ' in error and '1 of 3 pictures' in out
    captions.write_text(json.dumps(rows[0]))
    assert main(command) == 2
    assert 'none of the pictures was captioned' in capsys.readouterr().err


@pytest.mark.parametrize('more, message', [
    (('--split', 'test'), "split 'test'"),
    (('--beam', '0'), 'expected 1 to'),
    (('--split', 'train'), 'absent.png'),
    (('--model', 'simple'), 'jetcap pack'),
    (('--calibrate',), '20 pictures'),
])
def test_bad_requests(scene, capsys, more, message):
    assert main(arguments(scene, *more)) == 2
    assert message in capsys.readouterr().err


def test_missing_checkpoint(scene, capsys):
    command = arguments(scene)
    command[1] = '/nowhere.pth'
    assert main(command) == 2
    assert '/nowhere.pth' in capsys.readouterr().err


def test_calibrated_score_means_what_it_says(tmp_path):
    random = np.random.default_rng(0)
    x = random.uniform(-4, 0, 400)
    good = random.random(400) < 1 / (1 + np.exp(-(2 * x + 4)))
    references = people(400)
    found = calibrate(
        x, [group[0] if g else 'the' for g, group in zip(good, references)], references)
    assert found.good == pytest.approx(good.mean())
    assert found.slope == pytest.approx(2, abs=0.5)
    assert found.intercept == pytest.approx(4, abs=1)
    assert found.expected_error < 0.1 and found.ranking > 0.8
    assert 0 < found.score(-4) < found.score(0) < 1
    plot_reliability(found, str(tmp_path / 'plot.png'))
    assert cv2.imread(str(tmp_path / 'plot.png')) is not None


def test_calibration_refuses_what_it_cannot_learn_from():
    references = people(30)
    with pytest.raises(UserError, match='all are bad'):
        calibrate(np.linspace(-2, 0, 30), ['the'] * 30, references)
    with pytest.raises(UserError, match='20 pictures'):
        calibrate([-1.0], ['a dog'], references[:1])


def test_calibration_is_stored_and_applied(scene, tmp_path, capsys, monkeypatch):
    from jetcap_ros.models.checkpoint import read_checkpoint
    from jetcap_ros.training import evaluation
    monkeypatch.setattr(metrics.shutil, 'which', lambda name: None)
    path = tmp_path / 'model.pth'
    shutil.copyfile(scene / 'model.pth', path)
    references = people(40)
    fitted = calibrate(
        np.linspace(-2, 0, 40),
        [group[0] if n % 3 else 'the' for n, group in enumerate(references)], references)
    monkeypatch.setattr(evaluation, 'calibrate', lambda *args: fitted)
    command = arguments(scene, '--calibrate', '--length-penalty', '0.7', '--out', str(tmp_path))
    command[1] = str(path)
    assert main(command) == 0
    checkpoint = read_checkpoint(str(path))
    assert checkpoint.score_calibration == {
        'slope': fitted.slope, 'intercept': fitted.intercept}
    assert checkpoint.search == {'length_penalty': 0.7}
    assert (tmp_path / 'reliability.png').exists()
    row = json.loads((tmp_path / 'captions.jsonl').read_text().splitlines()[0])
    assert row['score'] == pytest.approx(float(fitted.score(row['value'])))
