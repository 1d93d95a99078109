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

"""Test that both models caption as a plain program would, whatever form the weights are in."""

import copy
import json
import subprocess
import sys
import textwrap

from jetcap_ros.engine.captioner import Captioner
from jetcap_ros.engine.lazy_loader import lazy_load_model_class, lazy_load_quantization, LazyModel
from jetcap_ros.engine.settings import CaptionerSettings
from jetcap_ros.engine.stages import CUDA_MB
from jetcap_ros.models.checkpoint import read_checkpoint
from jetcap_ros.models.encoder import MobileNetEncoder
from jetcap_ros.models.errors import CheckpointError
from jetcap_ros.models.mobilenet import MobileNetCaptioningModel
from jetcap_ros.models.packed import pack
from jetcap_ros.models.quantization import apply_dynamic_quantization
from jetcap_ros.models.runtimes.fastest import Fastest
from jetcap_ros.models.simple import SimpleCaptioningModel
from jetcap_ros.models.torch_products import has_int8_engine, int8_product
from jetcap_ros.models.weight import quantize_rows
from jetcap_ros.models.weight_reader import WeightReader
from model_files import checkpoint, features, picture, plain_tokens
import numpy as np
import pytest
import torch

KINDS = {
    'v3_small 358': {'decoder': 358, 'embed': 100, 'attention': 77, 'words': 301},
    'v3_small seed 1': {'seed': 1}, 'v3_small seed 7': {'seed': 7},
    'v3_small pruned': {'pruned': True, 'seed': 3, 'decoder': 33, 'attention': 1},
    'v2': {'architecture': 'mobilenet_v2', 'seed': 4},
    'v3_small, sizes of 1': {'decoder': 1, 'embed': 1, 'attention': 1, 'words': 9, 'seed': 8},
    'v3_large pruned': {'architecture': 'mobilenet_v3_large', 'pruned': True, 'seed': 5},
    'features in the names': {'prefix': 'encoder.features.', 'seed': 2},
    'half precision': {'half': True, 'seed': 6}}
PICTURES = [picture(seed) for seed in range(2)]


class Files:
    """A checkpoint as training writes it, packed with and without int8, and its plain captions."""

    def __init__(self, folder, **kind):
        contents = checkpoint(**kind)
        self.plain, self.packed, self.int8 = (
            str(folder / name) for name in ('plain.pth', 'none.safetensors', 'int8.safetensors'))
        torch.save(contents, self.plain)
        pack(read_checkpoint(self.plain), self.packed, 'none')
        pack(read_checkpoint(self.plain), self.int8)
        self.words = contents['word_map']
        self.names = contents['rev_word_map']
        architecture = kind.get('architecture', 'mobilenet_v3_small')
        self.network = features(architecture, 0.5, kind.get('pruned', False))
        if kind.get('half'):
            self.network = copy.deepcopy(self.network)
            self.network.load_state_dict({
                name[8:]: tensor.float() if tensor.is_floating_point() else tensor
                for name, tensor in contents['model_state_dict'].items()
                if name.startswith('encoder.')})
        self.decoder = {
            name[8:]: tensor.float() for name, tensor in contents['model_state_dict'].items()
            if name.startswith('decoder.')}

    def plain_captions(self):
        return [[self.names[index] for index in plain_tokens(
            self.network, self.decoder, image, self.words['<start>'], self.words['<end>'])]
            for image in PICTURES]

    def captions(self, model):
        return [model.generate(image, self.words, self.names) for image in PICTURES]


@pytest.fixture(scope='module', params=list(KINDS), ids=list(KINDS))
def files(request, tmp_path_factory):
    """Return the files of one kind of checkpoint."""
    return Files(tmp_path_factory.mktemp('models'), **KINDS[request.param])


@pytest.fixture(scope='module')
def small(tmp_path_factory):
    """Return the files of one small checkpoint."""
    return Files(tmp_path_factory.mktemp('small'), seed=7)


def load(path, name='mobilenet', quantize='none', **options):
    return LazyModel(path, name, quantize=quantize, reserve_memory_mb=0, **options).model


def test_token_for_token_what_the_plain_loop_gives(files):
    expected = files.plain_captions()
    assert len({word for caption in expected for word in caption}) > 1
    assert files.captions(load(files.plain)) == expected
    assert files.captions(load(files.packed)) == expected
    assert files.captions(load(files.packed, 'simple')) == expected


def test_int8_models_caption_as_the_plain_loop_with_their_weights(files):
    """All forms of an int8 checkpoint are one network: that of the dequantized weights."""
    metadata = read_checkpoint(files.int8)
    with WeightReader(metadata) as reader:
        weights = {name: torch.tensor(reader.array(name)) for name in metadata.parameter_shapes()}
    encoder = MobileNetEncoder(metadata.architecture, metadata.blocks, folded=True).eval()
    encoder.load_state_dict({
        name[8:]: tensor for name, tensor in weights.items() if name.startswith('encoder.')})
    decoder = {name[8:]: tensor for name, tensor in weights.items() if name.startswith('dec')}
    expected = [[files.names[index] for index in plain_tokens(
        encoder, decoder, image, files.words['<start>'], files.words['<end>'])]
        for image in PICTURES]
    assert files.captions(load(files.int8, 'simple')) == expected
    assert files.captions(load(files.int8, quantize='none')) == expected
    assert files.captions(load(files.int8, quantize='int8')) == expected
    assert files.captions(load(files.plain, quantize='int8')) == expected


def test_captions_of_both_models_agree_in_everything(small):
    simple, full = load(small.int8, 'simple'), load(small.int8, quantize='int8')
    for image in (picture(5, (120, 333)), picture(6)):
        for beam_size in (1, 3, 5):
            one, other = (model.caption(image, beam_size, 12) for model in (simple, full))
            assert one.indices == other.indices and one.text == other.text
            assert not {small.words[word] for word in ('<pad>', '<start>', '<unk>')} & set(
                one.indices)
            assert '<end>' not in one.text
            assert one.log_probability == pytest.approx(other.log_probability, abs=0.02)
            assert 0 < one.score < 1
            assert one.attention.shape == (7, 7)
            assert one.attention.sum() == pytest.approx(1, abs=1e-4)
            np.testing.assert_allclose(one.attention, other.attention, atol=0.01)


def test_a_checkpoint_says_how_large_the_pictures_are_that_it_sees(tmp_path):
    contents = {**checkpoint(seed=7), 'image_size': 96}
    plain, packed = str(tmp_path / 'plain.pth'), str(tmp_path / 'packed.safetensors')
    torch.save(contents, plain)
    pack(read_checkpoint(plain), packed, 'none')
    assert read_checkpoint(packed).image_size == 96
    image, found = picture(5, (120, 333)), []
    for path, name in ((plain, 'mobilenet'), (packed, 'mobilenet'), (packed, 'simple')):
        model = load(path, name)
        assert model.as_input(image).shape == (1, 3, 96, 96)
        found.append(model.caption(image, 3, 12))
        assert found[-1].attention.shape == (3, 3)
    assert found[0].text == found[1].text == found[2].text
    settings = CaptionerSettings(checkpoint=packed, model='simple', beam_size=3, max_length=12)
    with Captioner(settings) as captioner:
        captioner.configure()
        said = captioner.caption(image)
    assert said.text == found[0].text and said.attention.shape == (3, 3)


def test_words_that_are_no_longer_remembered_are_read_again(small, monkeypatch):
    model = load(small.packed, 'simple')
    expected = model.caption(PICTURES[1], 5)
    monkeypatch.setattr('jetcap_ros.models.decoder.CACHED_WORDS', 2)
    for _ in range(2):
        found = load(small.packed, 'simple').caption(PICTURES[1], 5)
        assert found.indices == expected.indices
        # The fastest products may be others of one model and the next.
        assert found.log_probability == pytest.approx(expected.log_probability, abs=1e-5)


def test_beam_search_is_the_same_on_the_plain_decoder(small):
    plain = model_in_hand(small)
    plain.vocabulary = read_checkpoint(small.plain).vocabulary
    for beam_size in (1, 3):
        one, other = (model.caption(PICTURES[0], beam_size)
                      for model in (plain, load(small.packed, 'simple')))
        assert one.indices == other.indices
        assert one.log_probability == pytest.approx(other.log_probability, abs=1e-4)
        np.testing.assert_allclose(one.attention, other.attention, atol=1e-4)


def test_a_wider_beam_is_at_least_as_probable_here(small):
    model = load(small.packed, 'simple')
    totals = [
        found.log_probability * len(found.indices)
        for found in (model.caption(PICTURES[0], beam_size) for beam_size in (2, 20))]
    assert totals[1] >= totals[0]


def test_scores_follow_the_calibration(small, tmp_path):
    contents = torch.load(small.plain, weights_only=True)
    contents['score_calibration'] = {'slope': 2.0, 'intercept': 3.0}
    contents['search'] = {'length_penalty': 0.7, 'block_ngram': 1}
    torch.save(contents, tmp_path / 'calibrated.pth')
    packed = str(tmp_path / 'calibrated.safetensors')
    pack(read_checkpoint(str(tmp_path / 'calibrated.pth')), packed)
    found = load(packed, 'simple').caption(PICTURES[0])
    assert found.score == pytest.approx(1 / (1 + np.exp(-(2 * found.log_probability + 3))))
    assert len(set(found.indices)) == len(found.indices)  # no word comes twice
    plain = load(small.int8, 'simple').caption(PICTURES[0])
    assert plain.score == pytest.approx(np.exp(plain.log_probability))


@pytest.fixture(params=[e for e in torch.backends.quantized.supported_engines if e != 'none'])
def engine(request):
    """Use one of torch's int8 engines; qnnpack is the one for ARM."""
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = request.param
    yield
    torch.backends.quantized.engine = before


@pytest.mark.parametrize('inner', [96, 2, 1])
@pytest.mark.parametrize('scale', [1e-6, 1e-3, 1, 1e3])
def test_int8_products_are_those_of_float_inputs(engine, scale, inner):
    rng = np.random.default_rng(1)
    weight = quantize_rows(rng.normal(size=(200, inner)).astype(np.float32))
    bias = rng.normal(size=200).astype(np.float32)
    product = int8_product(weight, bias)
    for rows in (1, 3, 20):
        x = (scale * rng.normal(size=(rows, inner))).astype(np.float32)
        expected = x @ weight.dequantized().T + bias
        # 63 coarse steps, each of 126 fine ones, to either side.
        step = np.abs(x).max() / 63 / 126
        bound = step * np.abs(weight.dequantized()).sum(axis=1).max() + 1e-5 * scale + 1e-6
        assert np.abs(product(x) - expected).max() <= bound
    assert np.allclose(product(np.zeros((2, inner), np.float32)), bias, atol=1e-6)


def test_rows_are_quantized_to_within_half_a_step():
    values = np.random.default_rng(2).normal(size=(9, 4, 3, 3)).astype(np.float32)
    values[3] = 0
    values[4] *= 1e-44 / np.abs(values[4]).max()  # smaller than what float32 holds well
    weight = quantize_rows(values)
    assert weight.values.dtype == np.int8 and weight.values.min() >= -127
    error = np.abs(weight.dequantized() - values).reshape(9, -1).max(axis=1)
    assert (error <= weight.scale / 2 * 1.0001)[[0, 1, 2, 3, 5, 6, 7, 8]].all()
    assert error[4] < 1e-43


def model_in_hand(small):
    model = MobileNetCaptioningModel(
        len(small.words), 13, 35, 17, MobileNetEncoder('mobilenet_v3_small', read_checkpoint(
            small.plain).blocks))
    model.load_state_dict(torch.load(small.plain, weights_only=True)['model_state_dict'])
    return model


@pytest.mark.skipif(not has_int8_engine(), reason='this torch has no int8 engine')
def test_a_model_in_hand_is_quantized(small):
    model = model_in_hand(small)
    expected = small.plain_captions()
    assert small.captions(model) == expected
    assert lazy_load_quantization()(model) is model
    assert not [name for name, _ in model.named_parameters() if name.startswith('decoder')]
    # Only the decoder's weights are rounded: most words stay.
    found = small.captions(model)
    assert [caption[0] for caption in found] == [caption[0] for caption in expected]
    assert apply_dynamic_quantization(model) is model
    assert small.captions(model) == found


@pytest.fixture()
def no_engine(monkeypatch):
    """Make torch say that it was built without a quantized engine."""
    monkeypatch.setattr(type(torch.backends.quantized), 'supported_engines', ['none'])
    has_int8_engine.cache_clear()
    yield
    monkeypatch.undo()
    has_int8_engine.cache_clear()


def test_without_an_int8_engine_a_model_in_hand_stays_as_it_is(small, no_engine):
    model = model_in_hand(small)
    with pytest.warns(UserWarning, match='no quantized engine'):
        assert apply_dynamic_quantization(model) is model
    assert small.captions(model) == small.plain_captions()


def test_without_an_int8_engine_weights_are_loaded_in_float32(small, no_engine):
    with pytest.warns(UserWarning, match='no quantized engine'):
        model = load(small.int8, quantize='int8')
    assert small.captions(model) == small.captions(load(small.int8, 'simple'))


def test_what_is_no_image_is_refused(small):
    for model in (load(small.packed, 'simple'), load(small.packed)):
        for image in (np.zeros((224, 224), np.uint8), np.zeros((1, 3, 100, 100), np.float32),
                      np.zeros((0, 4, 3), np.uint8)):
            with pytest.raises(ValueError, match='expected a'):
                model.generate(image, small.words, small.names)


@pytest.mark.filterwarnings('ignore:invalid value')
def test_weights_that_give_no_numbers_are_said_so(small, tmp_path):
    contents = torch.load(small.plain, weights_only=True)
    contents['model_state_dict']['decoder.fc.weight'].fill_(3e38)  # finite, as such
    path = str(tmp_path / 'huge.pth')
    torch.save(contents, path)
    pack(read_checkpoint(path), str(tmp_path / 'huge.safetensors'), 'none')
    for file, name in ((path, 'mobilenet'), (str(tmp_path / 'huge.safetensors'), 'simple')):
        with pytest.raises(ValueError, match='not numbers'):
            load(file, name)


def test_the_simple_model_names_the_command_for_a_pth(small):
    with pytest.raises(CheckpointError, match='jetcap pack .*plain.pth'):
        load(small.plain, 'simple')
    with pytest.raises(CheckpointError, match='jetcap pack'):
        SimpleCaptioningModel(read_checkpoint(small.plain), Fastest([]))


@pytest.mark.parametrize('name, expected', [
    ('simple', ['metadata', 'opencv', 'weights', 'cleanup', 'warm_up']),
    ('mobilenet', ['quantization', 'metadata', 'torch', 'model_class', 'instance', 'weights',
                   'cleanup', 'warm_up'])])
def test_a_lazy_model_loads_in_stages_when_it_is_asked_for(small, name, expected):
    begun, stages = [], []
    lazy = LazyModel(
        small.int8, name, reserve_memory_mb=0, on_begin=begun.append, on_stage=stages.append)
    assert not begun and lazy.checkpoint is None
    model = lazy.model
    assert lazy.model is model
    assert begun == [stage.name for stage in stages] == expected
    assert all(stage.seconds >= 0 and stage.rss_mb > 0 and stage.available_mb > 0
               for stage in stages)


@pytest.mark.parametrize('name', ['simple', 'mobilenet'])
def test_without_memory_for_a_stage_it_is_not_begun(small, name):
    stages = []
    lazy = LazyModel(small.int8, name, reserve_memory_mb=1e9, on_stage=stages.append)
    with pytest.raises(MemoryError, match=r'stage \w+.*\d+ MB.*10000000\d\d') as caught:
        lazy.model
    assert not stages
    # Both numbers: what there is, and what is needed.
    assert len([word for word in str(caught.value).split() if word.isdigit()]) >= 2


@pytest.mark.parametrize('name', ['simple', 'mobilenet'])
def test_stages_take_no_more_memory_than_they_ask_for(name):
    code = textwrap.dedent(f"""
        import json, re, threading, time
        from jetcap_ros.engine.lazy_loader import LazyModel

        def anonymous_mb():
            with open('/proc/self/status') as status:
                return int(re.search(r'RssAnon:\\s+(\\d+)', status.read())[1]) / 1024

        def follow():
            while True:
                for stage in stages[-1:]:
                    mb = anonymous_mb()
                    if stage is stages[-1]:  # else it may be the next one's
                        stage[3] = max(stage[3], mb)
                time.sleep(0.0005)

        stages = []
        lazy = LazyModel('', {name!r}, reserve_memory_mb=0, on_begin=lambda stage:
                         stages.append([stage, lazy.need_mb(stage), anonymous_mb(), 0]))
        threading.Thread(target=follow, daemon=True).start()
        lazy.model
        print(json.dumps(stages))
    """)
    out = subprocess.run([sys.executable, '-c', code], check=True, capture_output=True, text=True)
    for stage, need, before, peak in json.loads(out.stdout):
        assert peak - before <= need + 1, stage


def test_a_cuda_context_is_asked_for_with_the_first_weights(small):
    asked = [
        [LazyModel(small.int8, device=device).need_mb(stage) for stage in ('torch', 'weights')]
        for device in ('cpu', 'cuda')]
    assert asked[1] == [asked[0][0], asked[0][1] + CUDA_MB]


def test_the_model_class_is_loaded_by_name():
    assert lazy_load_model_class() is MobileNetCaptioningModel
    assert lazy_load_quantization() is apply_dynamic_quantization


@pytest.mark.parametrize('options', [
    {'name': 'resnet'}, {'quantize': 'int4'}, {'device': 'tpu'}])
def test_unknown_choices_are_refused(small, options):
    with pytest.raises(ValueError, match='none of'):
        LazyModel(small.int8, **options)


def test_the_simple_model_never_imports_a_framework(small):
    program = textwrap.dedent("""
        import sys
        from jetcap_ros.engine.lazy_loader import (
            lazy_load_model_class, lazy_load_quantization, LazyModel)
        import jetcap_ros.models.checkpoint
        assert not {'torch', 'cv2', 'torchvision'} & set(sys.modules)
        lazy_load_quantization()
        try:
            lazy_load_model_class(1e9)
        except MemoryError as error:
            print(error)
        import numpy
        model = LazyModel(sys.argv[1], 'simple', reserve_memory_mb=0).model
        print(model.caption(numpy.zeros((224, 224, 3), numpy.uint8)).indices)
        assert 'cv2' in sys.modules
        assert not {'torch', 'torchvision', 'safetensors'} & set(sys.modules)
    """)
    done = subprocess.run(
        [sys.executable, '-c', program, small.int8], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    refused, caption = done.stdout.splitlines()
    assert 'torch' in refused and '1000000280 MB' in refused
    assert json.loads(caption)


def test_the_full_model_imports_neither_torchvision_nor_a_compiler(small):
    program = textwrap.dedent("""
        import sys, numpy
        from jetcap_ros.engine.lazy_loader import LazyModel
        LazyModel(sys.argv[1], reserve_memory_mb=0).model
        assert 'torch' in sys.modules
        assert not {'torchvision', 'sympy', 'triton', 'torch._dynamo'} & set(sys.modules)
    """)
    subprocess.run([sys.executable, '-c', program, small.int8], check=True, timeout=120)
