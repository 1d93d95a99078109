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

"""Training end to end on drawn pictures: formats, stages, kill and resume, errors."""

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import cv2
from jetcap_ros.cli import main
from jetcap_ros.engine.lazy_loader import LazyModel
from jetcap_ros.engine.settings import SHIPPED_CHECKPOINT
from jetcap_ros.errors import UserError
from jetcap_ros.images.picture import read_picture
from jetcap_ros.images.preprocessing import normalize, squash
from jetcap_ros.models.checkpoint import read_checkpoint
from jetcap_ros.models.encoder import MobileNetEncoder
from jetcap_ros.models.errors import CheckpointError
from jetcap_ros.models.few_words import LEAST_SHARE
from jetcap_ros.models.mobilenet import (
    AttentionDecoder, MobileNetCaptioningModel, WordLayers)
from jetcap_ros.models.vocabulary import Vocabulary
from jetcap_ros.models.weight_reader import WeightReader
from jetcap_ros.training import bleu, cider
from jetcap_ros.training.caption_files import CaptionedPicture, read_captions
from jetcap_ros.training.checkpoint import (
    build_model, checkpoint_contents, load_checkpoint)
from jetcap_ros.training.config import read_config, TrainingConfig, write_config
from jetcap_ros.training.dataset import (
    build_vocabulary, encode, tokenize)
from jetcap_ros.training.decoding import decode, teacher_forcing
from jetcap_ros.training.embeddings import read_glove
from jetcap_ros.training.encoder_weights import load_encoder_weights
from jetcap_ros.training.features import cache_features, random_views, view
from jetcap_ros.training.meteor import sentence_meteor
from jetcap_ros.training.pictures import present_pictures
from jetcap_ros.training.rewards import Rewards
from jetcap_ros.training.sentences import read_objects
from jetcap_ros.training.task import Split, Task
from jetcap_ros.training.teachers import Teachers
import numpy as np
import pytest
import torch
from torch.nn import functional

COLOURS = {'red': (200, 30, 30), 'green': (30, 180, 40), 'blue': (40, 60, 210)}
SHAPES = ('circle', 'square')
SMALL = """
encoder: mobilenet_v3_small
embed_dim: 8
decoder_dim: 16
attention_dim: 8
min_count: 1
captions_per_picture: 2
bfloat16: false
stages:
  frozen: {epochs: 2, batch_pictures: 4, views: 2, learning_rate: 0.01}
  fine-tune: {epochs: 1, batch_pictures: 4, from_block: 9, views: 0}
  self-critical: {epochs: 1, batch_pictures: 4, samples: 3, views: 1, bleu_weight: 0.5}
"""


def draw(shape, colour, x, y):
    """Return a picture of one shape on grey."""
    image = np.full((96, 128, 3), 128, np.uint8)
    if shape == 'circle':
        cv2.circle(image, (x, y), 20, COLOURS[colour], -1)
    else:
        cv2.rectangle(image, (x - 18, y - 18), (x + 18, y + 18), COLOURS[colour], -1)
    return image


@pytest.fixture(scope='session')
def drawn(tmp_path_factory):
    """Return a folder of drawn pictures and their caption file."""
    folder = tmp_path_factory.mktemp('drawn')
    (folder / 'images').mkdir()
    chance = random.Random(1)
    rows = []
    for number in range(14):
        shape, colour = SHAPES[number % 2], list(COLOURS)[number % 3]
        x = chance.choice((30, 98))
        image = draw(shape, colour, x, chance.randint(30, 66))
        name = f'{number}.png'
        cv2.imwrite(str(folder / 'images' / name), image[..., ::-1])
        side = 'left' if x == 30 else 'right'
        rows.append({
            'file': name, 'split': 'train' if number < 10 else 'val', 'captions': [
                f'A {colour} {shape} on the {side} .', f'The {shape} at the {side} is {colour}.']})
    (folder / 'captions.jsonl').write_text('\n'.join(map(json.dumps, rows)))
    (folder / 'small.yaml').write_text(SMALL)
    return folder


def arguments(drawn, out, *more):
    return ['train', str(drawn / 'captions.jsonl'), str(drawn / 'images'), '--out', str(out),
            '--config', str(drawn / 'small.yaml'), '--encoder-weights', 'none', '--threads', '1',
            *more]


@pytest.fixture(scope='session')
def trained(drawn, tmp_path_factory):
    """Return the folder of a whole run."""
    out = tmp_path_factory.mktemp('trained')
    assert main(arguments(drawn, out)) == 0
    return out


def test_run_writes_checkpoints_log_and_curves(trained):
    with open(trained / 'log.csv', newline='') as file:
        rows = list(csv.DictReader(file))
    assert [row['stage'] for row in rows] == ['frozen', 'frozen', 'fine-tune', 'self-critical']
    assert float(rows[1]['train_loss']) < float(rows[0]['train_loss'])
    assert rows[0]['reward'] == '' and float(rows[3]['reward']) > 0
    assert cv2.imread(str(trained / 'curves.png')) is not None
    for name in ('1_frozen.pth', '2_fine-tune.pth', '3_self-critical.pth', 'model.pth'):
        assert (trained / name).exists()


def test_checkpoint_is_what_the_package_reads(trained):
    checkpoint = read_checkpoint(str(trained / 'model.pth'))
    assert checkpoint.architecture == 'mobilenet_v3_small'
    assert (checkpoint.embed_dim, checkpoint.decoder_dim, checkpoint.attention_dim) == (8, 16, 8)
    contents = torch.load(trained / 'model.pth', weights_only=True)
    assert contents['word_map']['<pad>'] == 0 and contents['vocab_size'] == len(
        contents['rev_word_map'])
    model = MobileNetCaptioningModel(
        contents['vocab_size'], contents['embed_dim'], contents['decoder_dim'],
        contents['attention_dim'], contents['encoder'])
    model.load_state_dict(contents['model_state_dict'])


def test_only_the_blocks_asked_for_are_trained(trained):
    frozen, tuned, critical = (
        torch.load(trained / name, weights_only=True)['model_state_dict']
        for name in ('1_frozen.pth', '2_fine-tune.pth', '3_self-critical.pth'))
    changed = {name for name in frozen if not torch.equal(frozen[name], tuned[name])}
    blocks = {int(name.split('.')[1]) for name in changed if name.startswith('encoder.')}
    assert blocks == set(range(9, 13))
    assert not any('running' in name for name in changed)
    changed = {name for name in tuned if not torch.equal(tuned[name], critical[name])}
    assert changed and all(name.startswith('decoder.') for name in changed)


def test_killed_run_goes_on_to_the_same_weights(drawn, trained, tmp_path):
    out = tmp_path / 'killed'
    command = [sys.executable, '-m', 'jetcap_ros.cli',
               *arguments(drawn, out, '--save-every', '0')]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and process.poll() is None:
            if (out / 'log.csv').exists() and (out / 'state.pth').exists():
                break
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == -signal.SIGKILL and not (out / 'model.pth').exists()
    assert main(arguments(drawn, out)) == 0
    one, other = (torch.load(folder / 'model.pth', weights_only=True)['model_state_dict']
                  for folder in (trained, out))
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name
    with open(out / 'log.csv', newline='') as file:
        assert [row['epoch'] for row in csv.DictReader(file)] == ['1', '2', '1', '1']


def test_random_views_are_mirrored_truly_and_keep_the_hue():
    frame = np.zeros((224, 224, 3), np.uint8)
    frame[:, :56] = 200, 30, 30  # red at the left, blue at the right
    frame[:, -56:] = 40, 60, 210
    frames = torch.from_numpy(np.stack([frame] * 20))
    numbers = np.random.default_rng(1)
    views, mirrored = random_views(frames, numbers)
    assert views.shape == (20, 3, 224, 224) and views.dtype == torch.float32
    redder = views[:, 0] - views[:, 2]
    left = redder[:, :, :8].mean((1, 2)) > redder[:, :, -8:].mean((1, 2))
    assert (left.numpy() != mirrored).all()
    assert 4 < mirrored.sum() < 16
    again, _ = random_views(frames, numbers)
    assert not torch.equal(again, views)


def test_other_settings_do_not_mix_with_a_run(drawn, trained, capsys):
    assert main(arguments(drawn, trained, '--set', 'decoder_dim=32')) == 2
    assert 'other settings' in capsys.readouterr().err
    assert main(arguments(drawn, trained, '--set', 'frozen.epochs=3')) == 2


def test_a_finished_run_trains_on_in_a_new_stage(drawn, trained, tmp_path):
    out = tmp_path / 'longer'
    shutil.copytree(trained, out)
    config = tmp_path / 'longer.yaml'
    config.write_text(SMALL + '  self-critical 2: {epochs: 1, batch_pictures: 4, views: 1}\n')
    assert main(arguments(drawn, out, '--config', str(config))) == 0
    with open(out / 'log.csv', newline='') as file:
        assert [row['stage'] for row in csv.DictReader(file)][-2:] == [
            'self-critical', 'self-critical 2']
    assert (out / '4_self-critical_2.pth').exists()


def test_start_from_a_checkpoint(drawn, trained, tmp_path):
    out = tmp_path / 'more'
    assert main(arguments(
        drawn, out, '--init', str(trained / 'model.pth'), '--stages', 'frozen',
        '--set', 'frozen.epochs=0')) == 0
    one, other = (torch.load(folder / 'model.pth', weights_only=True)['model_state_dict']
                  for folder in (trained, out))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_start_from_a_packed_file(drawn, trained, tmp_path):
    packed, out = tmp_path / 'packed.safetensors', tmp_path / 'more'
    assert main(['pack', str(trained / 'model.pth'), '--out', str(packed)]) == 0
    assert main(arguments(
        drawn, out, '--init', str(packed), '--stages', 'frozen', '--set',
        'frozen.epochs=0')) == 0
    again = tmp_path / 'again.safetensors'
    assert main(['pack', str(out / 'model.pth'), '--out', str(again)]) == 0
    with WeightReader(read_checkpoint(str(packed))) as one, \
            WeightReader(read_checkpoint(str(again))) as other:
        for name in read_checkpoint(str(packed)).parameter_shapes():
            np.testing.assert_allclose(
                one.array(name), other.array(name), rtol=1e-5, atol=1e-7, err_msg=name)


def test_pictures_of_another_size(drawn, trained, tmp_path, capsys):
    def size(folder):
        return read_checkpoint(str(folder / 'model.pth')).image_size

    assert size(trained) == 224
    out, further = tmp_path / 'larger', tmp_path / 'further'
    init = '--init', str(trained / 'model.pth')
    stages = '--stages', 'frozen,fine-tune', '--set', 'frozen.epochs=1'
    assert main(arguments(drawn, out, *init, *stages, '--set', 'image_size=64')) == 0
    assert size(out) == 64
    frames = {np.load(path, mmap_mode='r').shape[1:] for path in out.glob('cache/pictures_*.npy')}
    assert frames == {(64, 64, 3)}
    damaged = torch.load(out / 'model.pth', weights_only=True)
    torch.save({**damaged, 'image_size': 100}, tmp_path / 'damaged.pth')
    assert main(arguments(drawn, further, '--init', str(tmp_path / 'damaged.pth'))) == 2
    assert 'damaged.pth' in capsys.readouterr().err
    # What goes on from it sees the same size, if not told another.
    assert main(arguments(
        drawn, further, '--init', str(out / 'model.pth'), '--stages', 'frozen', '--set',
        'frozen.epochs=0')) == 0
    assert size(further) == 64
    assert main([
        'average', str(trained / 'model.pth'), str(out / 'model.pth'), '--out',
        str(tmp_path / 'average.pth')]) == 2
    assert 'not the image_size' in capsys.readouterr().err


def test_a_known_vocabulary_grows_and_needs_no_frequent_words():
    captions = [['a', 'red', 'cup'], ['a', 'cup']]
    known = ['<start>', 'a', '<end>']
    assert build_vocabulary(captions, 2, known).words == [*known, 'cup']
    assert build_vocabulary(captions, 9, known).words == known
    with pytest.raises(UserError, match='9 times'):
        build_vocabulary(captions, 9)


def test_a_checkpoint_learns_words_it_does_not_know(drawn, detecting, tmp_path, capsys):
    rows = (drawn / 'captions.jsonl').read_text()
    (tmp_path / 'captions.jsonl').write_text(rows.replace('circle', 'glorb'))
    command = arguments(
        drawn, tmp_path / 'out', '--init', str(detecting / 'model.pth'), '--stages', 'frozen',
        '--set', 'frozen.epochs=8', '--set', 'frozen.learning_rate=0.01')
    command[1] = str(tmp_path / 'captions.jsonl')
    assert main(command) == 0
    old = load_checkpoint(str(detecting / 'model.pth'))
    assert f'{old["vocab_size"]} words, 1 of the captions are new' in capsys.readouterr().err
    first, new = (
        load_checkpoint(str(tmp_path / 'out' / name)) for name in ('0_initial.pth', 'model.pth'))
    word = new['word_map']['glorb']
    assert word == old['vocab_size'] == new['vocab_size'] - 1
    assert {name: index for name, index in new['word_map'].items() if index < word} \
        == old['word_map']
    for name, rows in old['model_state_dict'].items():
        assert torch.equal(first['model_state_dict'][name][:len(rows)] if rows.ndim else rows,
                           rows), name
    assert first['model_state_dict']['words.out.bias'][word] == 0
    model = build_model(new).eval()
    model.vocabulary = Vocabulary.from_map(new['word_map'])
    said = [model.caption(read_picture(str(drawn / 'images' / f'{number}.png'))).text
            for number in range(0, 10, 2)]
    assert sum('glorb' in text for text in said) >= 4, said


def test_a_damaged_packed_file_is_no_start(drawn, trained, tmp_path, capsys):
    packed = tmp_path / 'packed.safetensors'
    assert main(['pack', str(trained / 'model.pth'), '--out', str(packed)]) == 0
    packed.write_bytes(packed.read_bytes()[:-100])
    assert main(arguments(drawn, tmp_path / 'more', '--init', str(packed))) == 2
    assert 'packed.safetensors' in capsys.readouterr().err


def test_teachers_are_asked_for_their_mean_probabilities(drawn, trained, tmp_path):
    paths = [str(trained / name) for name in ('1_frozen.pth', 'model.pth')]
    models = [build_model(load_checkpoint(path)).eval() for path in paths]
    vocabulary = Vocabulary.from_map(load_checkpoint(paths[0])['word_map'])
    torch.manual_seed(1)
    images = torch.randn(2, 3, 224, 224)
    end, pad = vocabulary.end, vocabulary.word_map['<pad>']
    captions = torch.tensor([
        [[vocabulary.start, 5, 6, end], [vocabulary.start, 7, end, pad]],
        [[vocabulary.start, 6, 6, end], [vocabulary.start, end, pad, pad]]])
    found = Teachers(paths, vocabulary, 'cpu').probabilities(
        images, captions, torch.tensor([pad]))
    with torch.no_grad():
        expected = sum(
            model(images.repeat_interleave(2, dim=0), captions.flatten(0, 1))[0].softmax(2)
            for model in models) / 2
    wanted = captions.flatten(0, 1)[:, 1:] != pad
    assert (models[0].decoder.fc.weight != models[1].decoder.fc.weight).any()
    torch.testing.assert_close(found, expected[wanted])


def test_a_model_comes_closer_to_its_teacher(drawn, trained, tmp_path):
    """Other weights with the teacher's words learn its probabilities, whatever the captions."""
    teacher = str(trained / 'model.pth')
    losses = {}
    for part in ('0.0', '1.0'):
        out = tmp_path / part
        assert main(arguments(
            drawn, out, '--teacher', teacher, '--stages', 'fine-tune', '--set', 'seed=5', '--set',
            'fine-tune.epochs=8', '--set', f'fine-tune.distillation={part}', '--set',
            'fine-tune.learning_rate=0.01')) == 0
        model, expected = (
            build_model(load_checkpoint(str(path))).eval() for path in (out / 'model.pth', teacher))
        images = torch.from_numpy(np.concatenate([
            view(cv2.imread(str(path)), 0, '') for path in sorted((drawn / 'images').iterdir())]))
        words = torch.tensor([[1, 2]] * len(images))
        with torch.no_grad():
            goal = expected(images, words)[0][:, 0].softmax(1)
            losses[part] = functional.cross_entropy(model(images, words)[0][:, 0], goal).item()
    assert losses['1.0'] < losses['0.0']


def test_likelihood_keeps_self_critical_training_to_what_people_say(drawn, trained, tmp_path):
    losses = []
    for weight in (0, 2):
        out = tmp_path / str(weight)
        assert main(arguments(
            drawn, out, '--init', str(trained / '1_frozen.pth'), '--stages', 'self-critical',
            '--set', 'self-critical.epochs=6', '--set', 'self-critical.learning_rate=0.01',
            '--set', f'self-critical.likelihood_weight={weight}')) == 0
        with open(out / 'log.csv', newline='') as file:
            losses.append(float(list(csv.DictReader(file))[-1]['val_loss']))
    assert losses[1] < losses[0]


def test_teachers_that_cannot_teach(drawn, trained, tmp_path, capsys):
    settings = ('--stages', 'fine-tune', '--set', 'fine-tune.distillation=0.5')
    assert main(arguments(drawn, tmp_path / 'a', *settings)) == 2
    assert 'needs a --teacher' in capsys.readouterr().err
    teacher = ('--teacher', str(trained / 'model.pth'))
    assert main(arguments(
        drawn, tmp_path / 'b', *settings, *teacher, '--set', 'fine-tune.views=2')) == 2
    assert 'views: 0' in capsys.readouterr().err
    assert main(arguments(
        drawn, tmp_path / 'c', *settings, *teacher, '--set', 'min_count=7')) == 2
    assert 'another vocabulary' in capsys.readouterr().err


def test_the_decoder_learns_from_sentences_alone(drawn, tmp_path, capsys):
    text = tmp_path / 'text.txt'
    text.write_text(20 * ''.join(
        f'A {colour} {shape} on the {side}.\n'
        for colour in COLOURS for shape in SHAPES for side in ('left', 'right'))
        + 'A purple elephant on the left.\nA red')
    out = tmp_path / 'text'
    stages = tmp_path / 'text.yaml'
    stages.write_text(SMALL.partition('stages:')[0] + """stages:
  text: {epochs: 8, batch_pictures: 8, views: 1, learning_rate: 0.02, dropout: 0}
  fine-tune: {epochs: 1, batch_pictures: 4, from_block: 9, views: 0, words_weight: 0.1}
""")
    assert main([*arguments(drawn, out), '--config', str(stages), '--text', str(text)]) == 0
    assert '240 of 242 sentences' in capsys.readouterr().out
    with open(out / 'log.csv', newline='') as file:
        rows = list(csv.DictReader(file))
    losses = [float(row['train_loss']) for row in rows if row['stage'] == 'text']
    assert losses[-1] < 0.8 * losses[0]
    before, after = (
        torch.load(out / name, weights_only=True)['model_state_dict']
        for name in ('0_initial.pth', '1_text.pth'))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all(name.startswith('decoder.') for name in changed)
    # The detector that learned beside the words is part of what comes out.
    assert 'words.out.weight' in torch.load(
        out / 'model.pth', weights_only=True)['model_state_dict']
    assert main([*arguments(drawn, tmp_path / 'none'), '--config', str(stages)]) == 2
    assert '--text FILE' in capsys.readouterr().err


def test_sources_count_as_often_as_they_are_wanted():
    pictures = [CaptionedPicture(str(i), 'train', ['a red circle'], source)
                for i, source in enumerate(['room'] * 10 + ['street'] * 10)]
    vocabulary = build_vocabulary([['a', 'red', 'circle']], 1)
    split = Split(pictures, TrainingConfig(), vocabulary, {})
    weights = {'room': 2.5, 'street': 0.5}
    order = split.order(weights, np.random.default_rng(1))
    assert len(order) == split.count(weights) == 30
    assert 20 <= sum(i < 10 for i in order) <= 30 and np.bincount(order).max() == 3
    plain = split.order({}, np.random.default_rng(1))
    assert sorted(plain) == list(range(20)) and list(plain) != sorted(plain)


def test_objects_that_a_detector_saw_are_wanted_words():
    vocabulary = build_vocabulary([['a', 'red', 'cup']], 1)
    pictures = [CaptionedPicture('a.jpg', 'train', ['A red .'])]
    split = Split(pictures, TrainingConfig(), vocabulary, {'a.jpg': {'cup': 0.5, 'tie': 0.9}})
    shares = split.shares(np.array([0]))[0]
    word_map = vocabulary.word_map
    assert shares[word_map['red']] == 1
    assert shares[word_map['cup']] == pytest.approx(0.3)  # and no word of its own for a tie


def test_the_last_file_of_objects_that_names_a_picture_counts(tmp_path):
    seen, listed = tmp_path / 'seen.jsonl', tmp_path / 'listed.jsonl'
    seen.write_text('{"file": "a.jpg", "objects": {"cup": 0.5}}\n'
                    '{"file": "b.jpg", "objects": {"tie": 0.9}}\n')
    listed.write_text('{"file": "a.jpg", "objects": {"vase": 1}}\n')
    assert read_objects([seen, listed]) == {'a.jpg': {'vase': 1.0}, 'b.jpg': {'tie': 0.9}}
    listed.write_text('{"file": "a.jpg"}\n')
    with pytest.raises(UserError, match=r'listed\.jsonl:1: no objects of a picture'):
        read_objects([seen, listed])


def test_a_word_is_as_usual_as_in_the_pictures_that_an_epoch_shows():
    vocabulary = build_vocabulary([['a', 'big', 'red', 'cup', 'door']], 1)
    pictures = [CaptionedPicture('0', 'train', ['A red cup'], 'table')] + [
        CaptionedPicture(name, 'train', ['A big door', 'A red door'], 'wall') for name in '123']
    config = TrainingConfig(source_weights={'table': 6.0, 'wall': 0.5})
    train = Split(pictures, config, vocabulary, {})
    task = Task(config, vocabulary, train, train, '', '', 'cpu', Teachers([], vocabulary, 'cpu'))
    shares = torch.sigmoid(task.usual).numpy()
    for word, expected in (('cup', 6 / 7.5), ('door', 1.5 / 7.5), ('red', 6.75 / 7.5)):
        assert shares[vocabulary.word_map[word]] == pytest.approx(expected, abs=1e-4)


def test_things_are_said_from_a_larger_part_on_than_other_words():
    vocabulary = build_vocabulary([['a', 'big', 'red', 'cup', 'door']], 1)
    pictures = [CaptionedPicture(str(n), 'train', ['A red cup', 'A big door']) for n in range(20)]
    config = TrainingConfig()
    objects = {str(n): {'cup': 1.0, 'a': 1.0} for n in range(20)}
    objects['0']['door'] = 1.0
    train = Split(pictures, config, vocabulary, objects)
    task = Task(config, vocabulary, train, train, '', '', 'cpu', Teachers([], vocabulary, 'cpu'))
    least = task.least.numpy()
    # Half of the captions name the cup, and as a certain object it counts 0.6.
    assert least[vocabulary.word_map['cup']] == pytest.approx(0.7 * 0.6)
    for word in ('a', 'big', 'red', 'door', '<end>'):
        assert least[vocabulary.word_map[word]] == pytest.approx(LEAST_SHARE)


def test_pictures_with_few_captions_teach_likelihood(drawn, trained, tmp_path):
    stage = ['--stages', 'self-critical', '--init', str(trained / '2_fine-tune.pth'),
             '--set', 'self-critical.min_references=3']
    assert main(arguments(drawn, tmp_path / 'few', *stage)) == 0
    with open(tmp_path / 'few' / 'log.csv', newline='') as file:
        row, = csv.DictReader(file)
    assert float(row['reward']) == 0  # all have two
    before, after = (
        torch.load(path, weights_only=True)['model_state_dict']
        for path in (trained / '2_fine-tune.pth', tmp_path / 'few' / 'model.pth'))
    assert not torch.equal(before['decoder.fc.weight'], after['decoder.fc.weight'])


def test_rewards_are_the_same_in_processes_of_their_own():
    references = [[[4, 5, 6, 7], [4, 6, 7, 8]], [[5, 5, 9], [9, 4, 4, 4]]]
    captions = [[4, 5, 6], [9, 4, 5]]
    here = Rewards(references, 1.0, 2.0)([0, 1], captions)
    there = Rewards(references, 1.0, 2.0, processes=1)([0, 1], captions)
    assert here == there and here[0] > 0


def test_words_said_twice_cost_reward_but_for_small_ones():
    references = [[[4, 5, 4, 6], [4, 7, 4, 8]]] * 2  # 4 is said twice as a rule
    plain, strict = Rewards(references), Rewards(references, repeat_weight=0.5)
    for caption, cost in (([4, 5, 4, 6], 0.0), ([4, 5, 4, 5], 0.5), ([5, 5, 6, 6], 1.0)):
        assert strict.one(0, caption) == plain.one(0, caption) - cost


def test_words_that_nobody_said_of_the_picture_cost_reward():
    kin = {5: [5, 6], 6: [5, 6], 7: [7]}  # a couch, couches, a lamp; 4 is 'a'
    references = [[[4, 5]], [[4, 7]]]
    plain, strict = Rewards(references), Rewards(references, invented_weight=0.25, kin=kin)
    for picture, caption, cost in (
            (0, [4, 6], 0.0), (0, [4, 4, 7], 0.25), (1, [5, 6], 0.5), (1, [4, 7], 0.0)):
        assert strict.one(picture, caption) == plain.one(picture, caption) - cost


def test_runs_of_a_stage_are_averaged_and_pulled_back(drawn, trained, tmp_path):
    out = tmp_path / 'runs'
    settings = ('--set', 'self-critical.runs=2', '--set', 'self-critical.pull_back=0.25')
    assert main(arguments(drawn, out, *settings)) == 0
    before, one, two, after, plain = (
        torch.load(path, weights_only=True)['model_state_dict']['decoder.fc.weight'] for path in (
            out / '2_fine-tune.pth', out / '3_self-critical.run1.pth',
            out / '3_self-critical.run2.pth', out / 'model.pth', trained / 'model.pth'))
    assert torch.equal(one, plain) and not torch.equal(one, two)
    torch.testing.assert_close(after, 0.25 * before + 0.375 * (one + two))
    with open(out / 'log.csv', newline='') as file:
        assert [(row['stage'], row['run']) for row in csv.DictReader(file)][-2:] == [
            ('self-critical', '1'), ('self-critical', '2')]
    assert main(arguments(drawn, out, *settings)) == 0
    again = torch.load(out / 'model.pth', weights_only=True)['model_state_dict']
    assert torch.equal(again['decoder.fc.weight'], after)


def test_average_of_checkpoints(drawn, trained, tmp_path, capsys):
    paths = [str(trained / name) for name in ('1_frozen.pth', '2_fine-tune.pth')]
    packed = str(tmp_path / 'packed.safetensors')
    assert main(['pack', paths[1], '--out', packed, '--quantize', 'none']) == 0
    out = str(tmp_path / 'average.pth')
    assert main(['average', paths[0], packed, '--parts', '0.25,0.75', '--out', out]) == 0
    assert '0.25' in capsys.readouterr().out
    one, two, average = (
        torch.load(path, weights_only=True)['model_state_dict'] for path in (*paths, out))
    assert average.keys() == one.keys()
    for name in ('decoder.fc.weight', 'encoder.12.0.weight'):
        assert not torch.equal(one[name], two[name])
        torch.testing.assert_close(average[name], 0.25 * one[name] + 0.75 * two[name])
    model = LazyModel(out, 'mobilenet', quantize='none', reserve_memory_mb=0).model
    assert model.caption(np.zeros((48, 64, 3), np.uint8), 3, 20).text


def test_normalization_is_averaged_with_the_weights_it_belongs_to(trained, tmp_path):
    contents = torch.load(trained / 'model.pth', weights_only=True)
    state = contents['model_state_dict']
    scaled = dict(state)
    for name in ('0.0.weight', '0.1.weight'):  # twice the weights, half the gain: the same layer
        factor = 2.0 if name == '0.0.weight' else 0.5
        scaled[f'encoder.{name}'] = factor * state[f'encoder.{name}']
    other, out = tmp_path / 'other.pth', str(tmp_path / 'average.pth')
    torch.save({**contents, 'model_state_dict': scaled}, other)
    assert main(['average', str(trained / 'model.pth'), str(other), '--out', out]) == 0
    image = torch.rand(1, 3, 224, 224)
    cells = [build_model(load_checkpoint(str(path))).cells(image)
             for path in (trained / 'model.pth', out)]
    torch.testing.assert_close(*cells)


@pytest.mark.parametrize('more, message', [
    (('--parts', '0.5,0.4'), 'together 0.9'),
    (('--parts', '0.5'), '1 parts of 2'),
    (('--parts', 'half,half'), "'half'"),
    (('--parts', 'nan,1'), 'together nan'),
    (('--out', 'average.safetensors'), 'ends in .pth'),
])
def test_parts_that_make_no_average(trained, tmp_path, monkeypatch, capsys, more, message):
    monkeypatch.chdir(tmp_path)
    model = str(trained / 'model.pth')
    assert main(['average', model, model, '--out', 'average.pth', *more]) == 2
    assert message in capsys.readouterr().err
    assert not os.listdir(tmp_path)


def test_only_checkpoints_of_one_model_are_averaged(drawn, trained, tmp_path, capsys):
    out = str(tmp_path / 'average.pth')
    for name, setting, message in (
            ('words', 'min_count=7', 'not the vocabulary'),
            ('sizes', 'decoder_dim=40', 'not the encoder and sizes')):
        assert main(arguments(
            drawn, tmp_path / name, '--stages', 'frozen', '--set', 'frozen.epochs=0',
            '--set', setting)) == 0
        other = str(tmp_path / name / 'model.pth')
        assert main(['average', str(trained / 'model.pth'), other, '--out', out]) == 2
        assert f'{other}: {message}' in capsys.readouterr().err
    other = tmp_path / 'broken.pth'
    other.write_bytes(b'PK')
    assert main(['average', str(trained / 'model.pth'), str(other), '--out', out]) == 2
    assert 'broken.pth' in capsys.readouterr().err and not os.path.exists(out)


@pytest.fixture(scope='session')
def detecting(drawn, tmp_path_factory):
    """Return the folder of a run that taught the shipped checkpoint to detect drawn words."""
    out = tmp_path_factory.mktemp('detecting')
    config = out / 'words.yaml'
    config.write_text(
        'bfloat16: false\nstages: {words: {epochs: 10, batch_pictures: 2, views: 2, '
        'learning_rate: 0.006, dropout: 0.0, words_dim: 12}}')
    assert main(arguments(
        drawn, out / 'run', '--config', str(config), '--init', SHIPPED_CHECKPOINT)) == 0
    return out / 'run'


def test_words_are_detected_in_pictures(drawn, detecting):
    before, after = (
        torch.load(detecting / name, weights_only=True)['model_state_dict']
        for name in ('0_initial.pth', 'model.pth'))
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items()
               if not name.startswith('words.'))
    contents = load_checkpoint(str(detecting / 'model.pth'))
    model, word_map, right = build_model(contents).eval(), contents['word_map'], 0
    for number in range(10):
        image = cv2.imread(str(drawn / 'images' / f'{number}.png'))[..., ::-1]
        with torch.no_grad():
            gains = model.words(model.cells(torch.from_numpy(normalize(squash(image)))))[0]
        found = max(COLOURS, key=lambda colour: gains[word_map[colour]])
        right += found == list(COLOURS)[number % 3]
    assert right >= 8


@pytest.mark.parametrize('quantize', ('none', 'int8'))
def test_both_models_search_with_the_detected_words(tmp_path, photograph, quantize):
    contents = load_checkpoint(SHIPPED_CHECKPOINT)
    plain = build_model(contents).eval()
    torch.manual_seed(6)
    plain.words = WordLayers(len(contents['word_map']), 1280, 24).eval()
    with torch.no_grad():
        plain.words.mean.fill_(0.3)
        plain.words.deviation.fill_(0.4)
        plain.words.out.weight.mul_(10)
        plain.words.usual.copy_(torch.randn(len(contents['word_map'])))
        wanted = plain.words(plain.cells(
            torch.from_numpy(normalize(squash(photograph, plain.image_size)))))[0].numpy()
    vocabulary = Vocabulary.from_map(contents['word_map'])
    path, packed = str(tmp_path / 'words.pth'), str(tmp_path / 'words.safetensors')
    torch.save(checkpoint_contents(plain, vocabulary), path)
    assert main(['pack', path, '--out', packed, '--quantize', quantize]) == 0
    captions = set()
    for name, file in (('mobilenet', path), ('mobilenet', packed), ('simple', packed)):
        model = LazyModel(file, name, quantize=quantize, reserve_memory_mb=0).model
        x = model.as_input(photograph)
        evidence = model.word_detector(model.search_cells(
            x if name == 'simple' else torch.from_numpy(x)))
        np.testing.assert_allclose(evidence, wanted, atol=0.01 if quantize == 'none' else 0.5)
        shares = 1 / (1 + np.exp(-evidence - plain.words.usual.numpy()))
        np.testing.assert_allclose(model.word_detector.shares(evidence), shares, atol=1e-5)
        captions.add(model.caption(photograph).text)
        model.search_options['word_gain'] = 0
        assert model.caption(photograph).text not in captions
    assert len(captions) == 1


@pytest.mark.parametrize('change, message', [
    (lambda state: state.pop('words.out.bias'), 'words.out.bias has shape None'),
    (lambda state: state.update({'words.mean': torch.zeros(3)}), 'words.mean has shape'),
    (lambda state: state.update({'words.more': torch.zeros(3)}), 'words.more has shape'),
    (lambda state: state.update({'words.hidden.bias': torch.zeros(0)}), 'words.'),
    (lambda state: state.update({'words.hidden.bias': torch.zeros(())}), 'words.'),
])
def test_detectors_that_do_not_fit_are_refused(detecting, tmp_path, change, message):
    contents = torch.load(detecting / 'model.pth', weights_only=True)
    change(contents['model_state_dict'])
    path = str(tmp_path / 'words.pth')
    torch.save(contents, path)
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(path)


def test_detectors_know_usual_words_and_older_ones_do_not(detecting, tmp_path, photograph):
    contents = torch.load(detecting / 'model.pth', weights_only=True)
    state, word_map = contents['model_state_dict'], contents['word_map']
    assert state['words.usual'][word_map['<end>']] == state['words.usual'].max()
    a, red, zoo = (state['words.usual'][word_map[word]].item() for word in ('a', 'red', 'zoo'))
    assert a > red > zoo == pytest.approx(np.log(1e-4), abs=1e-3)
    assert read_checkpoint(str(detecting / 'model.pth')).few_words
    assert state['words.least'][word_map['red']] == pytest.approx(LEAST_SHARE)
    del state['words.usual'], state['words.least']
    older, average = str(tmp_path / 'older.pth'), str(tmp_path / 'average.pth')
    torch.save(contents, older)
    assert not read_checkpoint(older).few_words
    assert not {'words.usual', 'words.least'} & load_checkpoint(older)['model_state_dict'].keys()
    assert LazyModel(older, 'mobilenet', reserve_memory_mb=0).model.caption(photograph).text
    for files, known in (([detecting / 'model.pth'] * 2, True),
                         ([detecting / 'model.pth', older], False)):
        assert main(['average', *map(str, files), '--out', average]) == 0
        assert read_checkpoint(average).few_words == known
        least = load_checkpoint(average)['model_state_dict']['words.least']
        assert least[word_map['red']] == pytest.approx(LEAST_SHARE)
        assert load_checkpoint(average)


def test_damaged_detectors_are_named(detecting, tmp_path):
    contents = torch.load(detecting / 'model.pth', weights_only=True)
    contents['model_state_dict']['words.deviation'][3] = 0
    torch.save(contents, tmp_path / 'zero.pth')
    with pytest.raises(CheckpointError, match='words.deviation'):
        LazyModel(str(tmp_path / 'zero.pth'), 'mobilenet', reserve_memory_mb=0).model
    contents['model_state_dict']['words.deviation'][3] = float('nan')
    torch.save(contents, tmp_path / 'nan.pth')
    with pytest.raises(CheckpointError, match='words.deviation'):
        LazyModel(str(tmp_path / 'nan.pth'), 'mobilenet', reserve_memory_mb=0).model


def test_a_detector_goes_with_its_encoder(drawn, detecting, tmp_path, capsys):
    out = tmp_path / 'on'
    assert main(arguments(
        drawn, out, '--stages', 'fine-tune', '--init', str(detecting / 'model.pth'))) == 0
    names = torch.load(out / 'model.pth', weights_only=True)['model_state_dict']
    assert not any(name.startswith('words.') for name in names)
    config = tmp_path / 'order.yaml'
    config.write_text('stages: {words: {}, fine-tune: {}}')
    assert main(arguments(drawn, tmp_path / 'order', '--config', str(config))) == 2
    assert 'words: the last stage' in capsys.readouterr().err
    for setting in ('runs: 2', 'pull_back: 0.5', 'from_block: 7'):
        config.write_text(f'stages: {{words: {{{setting}}}}}')
        assert main(arguments(drawn, tmp_path / 'order', '--config', str(config))) == 2
        assert 'words: takes no runs' in capsys.readouterr().err
    both = [str(detecting / name) for name in ('model.pth', '0_initial.pth')]
    assert main(['average', *both, '--out', str(tmp_path / 'average.pth')]) == 2
    assert 'not the encoder and sizes' in capsys.readouterr().err


def test_weights_of_efficientnet_take_in_their_own_normalization(tmp_path):
    names = {'0.0': '_conv_stem', '0.1': '_bn0', '22.0': '_conv_head', '22.1': '_bn1'}
    parts = ('_expand_conv', '_bn0'), ('_depthwise_conv', '_bn1'), ('_project_conv', '_bn2')
    encoder = MobileNetEncoder('efficientnet_lite2').eval()
    for number, block in enumerate(encoder.blocks[1:-1]):
        for layer, (convolution, norm) in zip(block.layers, parts[-len(block.layers):]):
            names[layer.name] = f'_blocks.{number}.{convolution}'
            names[layer.norm] = f'_blocks.{number}.{norm}'
    torch.manual_seed(1)
    for module in encoder.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.2, 0.2)
    tensors = {}
    for name, tensor in encoder.state_dict().items():
        layer, _, kind = name.rpartition('.')
        tensors[f'{names[layer]}.{kind}'] = tensor
    torch.save(tensors, tmp_path / 'lite2.pth')
    weights = load_encoder_weights('efficientnet_lite2', str(tmp_path / 'lite2.pth'))
    ours = MobileNetEncoder('efficientnet_lite2').eval()
    ours.load_state_dict(weights)
    image = np.random.default_rng(1).integers(256, size=(224, 224, 3), dtype=np.uint8)
    theirs = (torch.from_numpy(image).permute(2, 0, 1)[None].float() - 127) / 128
    with torch.no_grad():
        found = ours.run_blocks(torch.from_numpy(normalize(image)), 0, 1)
        expected = encoder.run_blocks(theirs, 0, 1)
    # Beyond the edges the one sees the mean colour, the other grey.
    torch.testing.assert_close(found[:, :, 1:, 1:], expected[:, :, 1:, 1:], rtol=0, atol=1e-5)
    assert not torch.equal(weights['0.0.weight'], tensors['_conv_stem.weight'])
    del tensors['_conv_head.weight']
    torch.save(tensors, tmp_path / 'part.pth')
    with pytest.raises(UserError, match='not the weights of efficientnet_lite2'):
        load_encoder_weights('efficientnet_lite2', str(tmp_path / 'part.pth'))


# Formats

def test_missing_files_are_named(drawn, tmp_path, capsys):
    with pytest.raises(UserError, match='No such file'):
        read_captions(str(tmp_path / 'none'))
    pictures, _ = read_captions(str(drawn / 'captions.jsonl'))
    with pytest.raises(UserError, match='14 of 14 captioned pictures.*0.png'):
        present_pictures(pictures, str(tmp_path))
    with pytest.raises(UserError, match='no such folder'):
        present_pictures(pictures, str(tmp_path / 'none'))
    (tmp_path / 'binary').write_bytes(b'\xff\xfe\x00')
    with pytest.raises(UserError, match='UTF-8'):
        read_captions(str(tmp_path / 'binary'))


@pytest.mark.parametrize('more, message', [
    (('--set', 'frozen.epoch=3'), "unknown setting 'epoch'"),
    (('--set', 'warm.epochs=3'), "no stage 'warm'"),
    (('--set', 'decoder_dim=many'), 'expected int'),
    (('--set', 'encoder=resnet'), 'unknown encoder'),
    (('--set', 'image_size=250'), 'a multiple of 32'),
    (('--set', 'image_size=0'), 'a multiple of 32'),
    (('--stages', 'frozen,cold'), "unknown stage 'cold'"),
    (('--stages', 'words,fine-tune'), 'words: the last stage'),
    (('--encoder-weights', '/nowhere.pth'), '/nowhere.pth'),
    (('--init', '/nowhere.pth'), 'not a checkpoint'),
    (('--config', '/nowhere.yaml'), 'No such file'),
    (('--set', 'fine-tune.from_block=99', '--stages', 'fine-tune'), '13 blocks'),
])
def test_bad_settings(drawn, tmp_path, capsys, more, message):
    assert main(arguments(drawn, tmp_path / 'out', *more)) == 2
    assert message in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a CUDA device')
def test_cuda_without_a_device(drawn, tmp_path, capsys):
    assert main(arguments(drawn, tmp_path / 'out', '--device', 'cuda')) == 2
    assert 'no CUDA device' in capsys.readouterr().err


def test_config_is_written_as_it_is_read(tmp_path):
    (tmp_path / 'a.yaml').write_text(SMALL)
    config = read_config(str(tmp_path / 'a.yaml'), ['frozen.epochs=7', 'seed=3'])
    assert config.stages[0].epochs == 7 and config.seed == 3
    write_config(config, str(tmp_path / 'b.yaml'))
    assert read_config(str(tmp_path / 'b.yaml')) == config


@pytest.mark.parametrize('name', [
    'full', 'mobilenet_v2', 'simple', 'simple_distilled', 'simple_plain'])
def test_shipped_configurations_are_valid(name):
    folder = os.path.join(os.path.dirname(__file__), '..', 'config', 'training')
    config = read_config(os.path.join(folder, name + '.yaml'))
    assert config.stages


# Parts

def test_tokens():
    assert tokenize("A man 's dog, well-fed (brown) runs .") == [
        'a', "man's", 'dog', 'well-fed', 'brown', 'runs']


def test_vocabulary_and_encoding():
    vocabulary = build_vocabulary([['a', 'dog'], ['a', 'cat']], min_count=2)
    assert vocabulary.words == ['<pad>', '<start>', '<end>', '<unk>', 'a']
    assert encode(['a', 'dog', 'a'], vocabulary, 2) == [1, 4, 3, 2]


def test_glove(tmp_path):
    vocabulary = build_vocabulary([['dog', 'cat']], min_count=1)
    path = tmp_path / 'glove.txt'
    path.write_text('dog 1 2 3\nhouse 4 5 6\n')
    embedding = read_glove(str(path), vocabulary, 3)
    assert embedding[vocabulary.word_map['dog']].tolist() == [1, 2, 3]
    assert embedding[vocabulary.word_map['cat']].abs().max() <= 0.1
    with pytest.raises(UserError, match='--set embed_dim=3'):
        read_glove(str(path), vocabulary, 4)
    path.write_text('dog 1 2 x\n')
    with pytest.raises(UserError, match=':1:'):
        read_glove(str(path), vocabulary, 3)


def test_mirrored_view_mirrors(drawn):
    image = draw('circle', 'red', 30, 40)
    assert np.array_equal(view(image, 1, 'a'), view(image, 0, 'a')[..., ::-1])
    assert np.array_equal(view(image, 2, 'a'), view(image, 2, 'a'))
    assert not np.array_equal(view(image, 2, 'a'), view(image, 2, 'b'))


def test_cached_features_resume_and_follow_the_weights(drawn, tmp_path):
    torch.manual_seed(0)
    encoder = MobileNetCaptioningModel(4, 2, 2, 2, 'mobilenet_v3_small').encoder.eval()
    files, images = ['0.png', '1.png'], str(drawn / 'images')
    first = cache_features(str(tmp_path), encoder, 2, files, images, 2)
    name, = (n for n in os.listdir(tmp_path) if n.endswith('.npy'))
    expected = encoder.run_blocks(torch.from_numpy(view(
        cv2.imread(str(drawn / 'images' / '1.png'))[..., ::-1], 1, '1.png')), 0, 2)
    np.testing.assert_allclose(first[1, 1], expected[0].detach().numpy(), atol=1e-2)
    stamp = os.stat(tmp_path / name).st_mtime_ns
    cache_features(str(tmp_path), encoder, 2, files, images, 2)
    assert os.stat(tmp_path / name).st_mtime_ns == stamp
    with torch.no_grad():
        next(encoder.parameters()).add_(0.1)
    other = cache_features(str(tmp_path), encoder, 2, files, images, 2)
    assert not np.array_equal(first, other)


def test_what_cannot_be_read_is_told_and_left_out(drawn, tmp_path, capsys):
    shutil.copytree(drawn, tmp_path / 'drawn')
    images = tmp_path / 'drawn' / 'images'
    (images / '3.png').unlink()
    (images / '4.png').write_bytes((images / '4.png').read_bytes()[:70])
    command = arguments(
        tmp_path / 'drawn', tmp_path / 'out', '--stages', 'frozen', '--set', 'frozen.epochs=1')
    assert main(command) == 1
    out, error = capsys.readouterr()
    assert out.endswith(f'\n{tmp_path / "out" / "model.pth"}\n')
    assert '1 of 14 captioned pictures are not in' in error and '3.png' in error
    assert f'{images / "4.png"}: it is damaged' in error
    assert '12 of 14 pictures were read, with 24 captions' in error
    for number in range(5, 11):
        (images / f'{number}.png').write_text('no picture')
    assert main(command) == 2
    assert 'only 6 of 13 pictures could be read' in capsys.readouterr().err


def test_training_decoder_is_the_plain_one():
    torch.manual_seed(0)
    decoder = AttentionDecoder(30, 6, 10, 5, 12).eval()
    cells, captions = torch.rand(3, 49, 12), torch.randint(4, 30, (3, 2, 7))
    captions[0, 1, 4:] = 0
    logits, targets = teacher_forcing(decoder, cells, captions, torch.tensor([0]))
    plain, _ = decoder(cells.repeat_interleave(2, 0), captions.flatten(0, 1))
    wanted = captions.flatten(0, 1)[:, 1:] != 0
    assert torch.equal(targets, captions.flatten(0, 1)[:, 1:][wanted])
    torch.testing.assert_close(logits, plain[wanted], atol=1e-5, rtol=1e-5)


def test_drawn_captions_carry_their_log_probability():
    torch.manual_seed(0)
    decoder = AttentionDecoder(12, 6, 10, 5, 12).eval()
    cells = torch.rand(2, 49, 12)
    words, log_probabilities = decode(
        decoder, cells, 4, 1, 2, torch.tensor([0, 1, 3]), max_length=9)
    assert not torch.isin(words, torch.tensor([0, 1, 3])).any()
    n, k = 1, 2
    row = words[n, k].tolist()
    row = row[:row.index(2) + 1] if 2 in row else row
    logits, _ = decoder(cells[n:n + 1], torch.tensor([[1, *row]]))
    logits[..., [0, 1, 3]] = -1e9
    expected = torch.log_softmax(logits, 2)[0, range(len(row)), row]
    torch.testing.assert_close(log_probabilities[n, k, :len(row)], expected, atol=1e-5, rtol=1e-4)
    assert (log_probabilities[n, k, len(row):] == 0).all()


def test_ciderd_rewards_what_people_say():
    references = [[['a', 'dog', 'runs', 'on', 'grass'], ['the', 'dog', 'is', 'running']],
                  [['a', 'man', 'sits', 'on', 'a', 'bench'], ['an', 'old', 'man', 'rests']]]
    scorer = cider.CiderD(references)
    exact, other = references[0][0], references[1][0]
    assert scorer.score(0, exact) > scorer.score(0, ['a', 'dog']) > scorer.score(0, other)
    assert scorer.score(0, exact, without=1) == pytest.approx(10.0)
    assert scorer.score(0, exact, without=0) < scorer.score(0, exact)
    assert scorer.score(0, []) == 0.0


def test_bleu_is_one_for_a_copy_and_less_for_a_part():
    reference = [1, 2, 3, 4, 5, 6]
    assert bleu.corpus_bleu4([reference], [[reference]]) == pytest.approx(1.0)
    # Precision is full; four words of six: the brevity penalty alone.
    assert bleu.corpus_bleu4([reference[:4]], [[reference]]) == pytest.approx(np.exp(1 - 6 / 4))
    assert bleu.corpus_bleu4([[1, 3, 5]], [[reference]]) == 0.0
    assert 0 < bleu.sentence_bleu4([1, 3, 5], [reference]) < 0.5
    assert bleu.sentence_bleu4([], [reference]) == bleu.sentence_bleu4([9], [reference]) == 0.0


def test_meteor_minds_what_is_left_out_and_the_order():
    reference = [1, 2, 3, 4]
    assert sentence_meteor(reference, [[9], reference]) == pytest.approx(1.0)
    # One chunk of two of four words: precision 1, recall 1 / 2, no penalty.
    assert sentence_meteor([1, 2], [reference]) == pytest.approx(0.5 / (0.85 + 0.15 * 0.5))
    # All words in chunks of one: the whole penalty.
    assert sentence_meteor([4, 3, 2, 1], [reference]) == pytest.approx(0.4)
    assert sentence_meteor([1, 2, 3, 4, 9, 9], [reference]) > sentence_meteor([1, 2], [reference])
    assert sentence_meteor([9], [reference]) == sentence_meteor([], [reference]) == 0.0
