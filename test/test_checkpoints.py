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

"""Test that checkpoints are packed and read as they are, and damaged ones refused clearly."""

import copy
import errno
import json
import os
import resource
import struct
import subprocess
import sys

from jetcap_ros.models.checkpoint import is_quantized, read_checkpoint, sha256
from jetcap_ros.models.errors import CheckpointError
from jetcap_ros.models.packed import pack
from jetcap_ros.models.safetensors_file import write_safetensors
from jetcap_ros.models.weight_reader import WeightReader
from model_files import checkpoint, features
import numpy as np
import pytest
from safetensors import safe_open
import torch


class Files:
    """A small checkpoint, its files, and copies with changes."""

    def __init__(self, folder):
        self.folder = folder
        self.contents = checkpoint()
        self.plain, self.int8, self.none = (
            str(folder / name) for name in ('plain.pth', 'int8.safetensors', 'none.safetensors'))
        torch.save(self.contents, self.plain)
        pack(read_checkpoint(self.plain), self.int8)
        pack(read_checkpoint(self.plain), self.none, 'none')

    def changed(self, change):
        """Return the path of a `.pth` whose contents were changed."""
        contents = copy.deepcopy(self.contents)
        change(contents)
        path = str(self.folder / 'changed.pth')
        torch.save(contents, path)
        return path

    def written(self, data, name='damaged'):
        """Return the path of a file with this data."""
        path = self.folder / name
        path.write_bytes(data)
        return str(path)


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """Return small files."""
    return Files(tmp_path_factory.mktemp('checkpoints'))


def weights(path):
    """Return all that a checkpoint holds, as float32."""
    metadata = read_checkpoint(path)
    with WeightReader(metadata) as reader:
        return {name: reader.array(name) for name in metadata.parameter_shapes()}


def refused(path, text='', **options):
    """Check that a file is refused in one line that names it, then or when it is read."""
    with pytest.raises(CheckpointError, match=text) as caught:
        metadata = read_checkpoint(path, **options)
        with WeightReader(metadata) as reader:
            for name in metadata.parameter_shapes():
                reader.read(name)
    message = str(caught.value)
    assert message.startswith(f'{path}: ') and len(message) < len(path) + 320
    assert message.isprintable()


def test_every_size_is_read_from_the_tensors(files):
    for path in (files.plain, files.int8, files.none):
        metadata = read_checkpoint(path)
        assert metadata.architecture == 'mobilenet_v3_small'
        assert (metadata.embed_dim, metadata.decoder_dim, metadata.attention_dim) == (13, 35, 17)
        assert metadata.encoder_dim == features(metadata.architecture, 0.5)[-1][0].out_channels
        assert metadata.vocabulary.word_map == files.contents['word_map']
        assert metadata.packed == (path != files.plain)
        assert metadata.quantize == ('int8' if path == files.int8 else 'none')


def test_packing_keeps_the_weights(files, tmp_path):
    plain, none, int8 = weights(files.plain), weights(files.none), weights(files.int8)
    assert list(plain) == list(none) == list(int8)
    for name, values in plain.items():
        assert np.array_equal(none[name], values), name
        steps = np.abs(values.reshape(len(values), -1)).max(axis=1) / 127
        if not is_quantized(values.shape):
            steps = 0 * steps
        error = np.abs(int8[name] - values).reshape(len(values), -1).max(axis=1)
        assert (error <= 0.501 * steps).all(), name
    # A byte a value and four a row, where it is quantized; nothing else but the header.
    expected = sum(
        values.size + 4 * len(values) if is_quantized(values.shape) else values.nbytes
        for values in plain.values())
    with open(files.int8, 'rb') as file:
        header = 8 + int.from_bytes(file.read(8), 'little')
    assert os.path.getsize(files.int8) - header == expected
    # Packed again: unchanged, or in float32 what int8 stands for.
    again = str(tmp_path / 'again.safetensors')
    pack(read_checkpoint(files.int8), again)
    assert sha256(again) == sha256(files.int8)
    pack(read_checkpoint(files.int8), again, 'none')
    assert all(np.array_equal(values, int8[name]) for name, values in weights(again).items())


def test_depthwise_convolutions_are_not_quantized():
    assert not is_quantized((32, 1, 3, 3)) and not is_quantized((96, 16, 1, 1))
    assert not is_quantized((96,))
    assert is_quantized((1280, 320, 1, 1)) and is_quantized((12, 8))


def test_the_same_file_gives_the_same_bytes(files, tmp_path):
    again = str(tmp_path / 'again.safetensors')
    assert pack(read_checkpoint(files.plain), again) == os.path.getsize(files.int8)
    assert sha256(again) == sha256(files.int8)


@pytest.mark.parametrize('quantize', ['int8', 'none'])
def test_packed_files_are_safetensors_of_tensors_and_json_alone(files, quantize):
    path = getattr(files, quantize)
    metadata = read_checkpoint(path)
    size = 0
    with safe_open(path, 'numpy') as file, WeightReader(metadata) as reader:
        for name in file.keys():
            values = file.get_tensor(name)
            size += values.nbytes
            weight = reader.read(name.removesuffix('.scale'))
            ours = weight.scale if name.endswith('.scale') else weight.values
            assert ours.dtype == values.dtype and np.array_equal(ours, values)
            assert values.dtype == (
                np.int8 if quantize == 'int8' and is_quantized(values.shape) else np.float32)
        texts = file.metadata()
    assert set(texts) == {
        'format', 'version', 'quantize', 'encoder', 'words', 'score_calibration', 'search',
        'image_size'}
    assert json.loads(texts['words']) == metadata.vocabulary.words
    with open(path, 'rb') as file:
        length, = struct.unpack('<Q', file.read(8))
        assert json.loads(file.read(length))
    assert os.path.getsize(path) == 8 + length + size


def test_a_file_that_cannot_be_written_whole_is_not_written(files, tmp_path):
    path = str(tmp_path / 'packed.safetensors')
    pack(read_checkpoint(files.int8), path)
    before = sha256(path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OSError) as caught:
            pack(read_checkpoint(files.plain), path, 'none')
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.errno == errno.EFBIG
    assert sha256(path) == before and os.listdir(tmp_path) == ['packed.safetensors']
    with pytest.raises(OSError):
        write_safetensors(str(tmp_path / 'no' / 'folder'), {}, {})


def test_words_that_would_make_a_file_nobody_reads_are_not_packed(files, tmp_path):
    metadata = read_checkpoint(files.plain)
    metadata.vocabulary.words[0] = 5_000_000 * 'w'
    with pytest.raises(CheckpointError, match='plain.pth: cannot be packed'):
        pack(metadata, str(tmp_path / 'out.safetensors'))
    assert not os.listdir(tmp_path)


def test_the_pack_command(files, tmp_path):
    out = str(tmp_path / 'out.safetensors')
    command = [sys.executable, '-m', 'jetcap_ros.cli', 'pack', files.plain, '--out', out]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert sha256(out) == sha256(files.int8) and sha256(out) in done.stdout
    command[4] = files.written(b'PK\x03\x04', 'cut.pth')
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and 'cut.pth' in done.stderr
    assert 'Traceback' not in done.stderr and sha256(out) == sha256(files.int8)


def test_words_keep_every_character_and_sentences_only_printed_ones(files, tmp_path):
    words = ['"quoted"', 'a\\b', 'Straße', '犬', '\u202e', 'line\nbreak', '\x1b[31m', '\ud800', '']

    def rename(contents):
        names = list(contents['word_map'])
        names[-len(words):] = words
        contents['word_map'] = {word: index for index, word in enumerate(names)}
        contents['rev_word_map'] = dict(enumerate(names))

    packed = str(tmp_path / 'words.safetensors')
    pack(read_checkpoint(files.changed(rename)), packed)
    vocabulary = read_checkpoint(packed).vocabulary
    assert vocabulary.words[-len(words):] == words
    sentence = vocabulary.sentence(range(len(vocabulary) - len(words), len(vocabulary)))
    assert sentence == '"quoted" a\\b Straße 犬  linebreak [31m  '
    assert vocabulary.sentence([0, vocabulary.special[0], 1, vocabulary.end, 2]) == 'w0 w1'


def test_the_sha256_is_checked(files):
    for path in (files.plain, files.int8):
        right = sha256(path)
        for text in (right, f'  {right.upper()}\n'):
            assert read_checkpoint(path, text).path == path
        for text in ('0' * 64, right[:-1], 'sha256'):
            refused(path, right, expected_sha256=text)


@pytest.mark.parametrize('text, change', [
    ('no dict', lambda c: c.pop('model_state_dict')),
    ('no dict', lambda c: c.update(model_state_dict=[1])),
    ('not a tensor', lambda c: c['model_state_dict'].update(a='text')),
    ('no word_map', lambda c: c.pop('word_map')),
    ('no word_map', lambda c: c.update(word_map={})),
    ('whole numbers', lambda c: c['word_map'].update(w0=True)),
    ('whole numbers', lambda c: c['word_map'].update(w0=0.0)),
    ('each once', lambda c: c['word_map'].update(w0=1)),
    ('each once', lambda c: c['word_map'].update(w0=10**6)),
    ('each once', lambda c: c['word_map'].update(w0=-1)),
    ('not a word', lambda c: c['word_map'].update({7: c['word_map'].pop('w0')})),
    ('<end>', lambda c: c['word_map'].update(END=c['word_map'].pop('<end>'))),
    ('<start>', lambda c: c['word_map'].update(START=c['word_map'].pop('<start>'))),
    ('vocab_size', lambda c: c.update(vocab_size=39)),
    ('vocab_size', lambda c: c.update(vocab_size='40')),
    ('rev_word_map', lambda c: c['rev_word_map'].update({0: 'w1'})),
    ('rev_word_map', lambda c: c['rev_word_map'].pop(0)),
    ('rev_word_map', lambda c: c.update(rev_word_map=3)),
    ('do not belong together', lambda c: (
        c['word_map'].update(new=40), c['rev_word_map'].update({40: 'new'}),
        c.update(vocab_size=41))),
    ('score_calibration', lambda c: c.update(score_calibration={'slope': 'steep'})),
    ('score_calibration', lambda c: c.update(score_calibration={'slope': float('nan')})),
    ('score_calibration', lambda c: c.update(score_calibration={'slope': 1})),
    ('search', lambda c: c.update(search=[1])),
    ('length_penalty', lambda c: c.update(search={'length_penalty': -1.0})),
    ('block_ngram', lambda c: c.update(search={'block_ngram': 1e300})),
    ('word_gain', lambda c: c.update(search={'word_gain': -0.5})),
    ('image_size', lambda c: c.update(image_size=100)),
    ('image_size', lambda c: c.update(image_size=1 << 20)),
    ('image_size', lambda c: c.update(image_size='224'))])
def test_contents_that_do_not_fit_together(files, text, change):
    refused(files.changed(change), text)


def set_value(name, value):
    """Return a change that puts one value into a tensor."""
    return lambda tensors: tensors[name].view(-1).__setitem__(0, value)


def resize(name, *shape):
    """Return a change of a tensor's shape."""
    return lambda tensors: tensors.update({name: torch.zeros(shape)})


@pytest.mark.parametrize('text, change', [
    ('no encoder', lambda t: [t.pop(name) for name in list(t) if name.startswith('encoder')]),
    ('no encoder', lambda t: [t.pop(name) for name in list(t) if name.startswith('decoder')]),
    ('none of', lambda t: [t.pop(name) for name in list(t) if name.startswith('encoder.12.')]),
    ('fc.bias is missing', lambda t: t.pop('decoder.fc.bias')),
    ('0.1.running_var', lambda t: t.pop('encoder.0.1.running_var')),
    ('f_beta.weight is unknown', resize('decoder.f_beta.weight', 2, 2)),
    ('fc.bias has shape', resize('decoder.fc.bias', 41)),
    ('decoder.init_h.weight', resize('decoder.init_h.weight', 35)),
    ('decoder.init_h.weight is empty', resize('decoder.init_h.weight', 0, 288)),
    ('embedding.weight', resize('decoder.embedding.weight', 40, 13, 1)),
    ('decode_step.weight_hh', resize('decoder.decode_step.weight_hh', 105, 36)),
    ('0.0.weight', resize('encoder.0.0.weight', 8, 3, 4, 3)),
    ('fc2.weight', resize('encoder.1.block.1.fc2.weight', 8, 9, 1, 1)),
    ('fc.weight holds .* not finite', set_value('decoder.fc.weight', float('nan'))),
    ('embedding.* not finite', set_value('decoder.embedding.weight', float('inf'))),
    ('running_mean .* not finite', set_value('encoder.0.1.running_mean', float('-inf'))),
    ('not finite', set_value('encoder.0.1.running_var', -1.0))])
def test_tensors_that_do_not_fit_together(files, text, change):
    refused(files.changed(lambda contents: change(contents['model_state_dict'])), text)


def test_what_is_no_file(files, tmp_path):
    os.mkfifo(tmp_path / 'fifo')
    os.symlink(tmp_path / 'fifo', tmp_path / 'link')
    os.symlink('nowhere', tmp_path / 'broken')
    for path in (tmp_path, '/dev/zero', '/dev/stdin', tmp_path / 'fifo', tmp_path / 'link'):
        refused(str(path), 'not a file')
    for path in (tmp_path / 'missing.pth', tmp_path / 'broken', files.plain + '/below', ''):
        refused(str(path), 'no such file')
    refused('/proc/self/mem', 'cannot be read')
    refused('/proc/self/mem', 'cannot be read', expected_sha256='0' * 64)
    refused(files.written(b''), 'neither')
    with pytest.raises(CheckpointError):
        read_checkpoint('nul\0byte')


@pytest.mark.skipif(os.geteuid() == 0, reason='root reads every file')
def test_a_file_without_permission(files):
    path = files.written(b'x', 'locked')
    os.chmod(path, 0)
    refused(path, 'cannot be read .*Permission')


@pytest.mark.parametrize('kind', ['plain', 'int8', 'none'])
def test_a_file_that_is_cut_or_exchanged_while_it_is_read(files, kind):
    with open(getattr(files, kind), 'rb') as file:
        data = file.read()
    path = files.written(data, 'cut')
    metadata = read_checkpoint(path)
    name = 'decoder.fc.weight'
    with WeightReader(metadata) as reader:
        before = reader.read(name).values
        os.truncate(path, 5000)  # a mapped page beyond the end would end the process
        for name in metadata.parameter_shapes():
            with pytest.raises(CheckpointError, match='cut'):
                reader.read(name)
    assert np.isfinite(before).all()
    with pytest.raises(CheckpointError, match='cut'):
        with WeightReader(metadata):
            pass
    # Another checkpoint in its place: what was read of it no longer holds.
    torch.save(checkpoint(decoder=36), path)
    if kind != 'plain':
        pack(read_checkpoint(path), path, kind)
    with WeightReader(metadata) as reader, pytest.raises(CheckpointError, match='changed'):
        reader.read('decoder.fc.weight')
