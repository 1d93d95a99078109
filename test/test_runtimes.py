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

"""Test that the simple model says the same in all its runtimes, and takes the fastest."""

import importlib.util
from pathlib import Path
import platform
import time

from jetcap_ros.engine.captioner import Captioner, CaptionerError
from jetcap_ros.engine.lazy_loader import LazyModel
from jetcap_ros.engine.settings import CaptionerSettings, SHIPPED_CHECKPOINT
from jetcap_ros.engine.worker_process import worker_environment
from jetcap_ros.models.checkpoint import read_checkpoint
from jetcap_ros.models.decoder import table_product
from jetcap_ros.models.runtimes import opencv
from jetcap_ros.models.runtimes.blas import numpy_product, row_product
from jetcap_ros.models.runtimes.fastest import Fastest
from jetcap_ros.models.runtimes.runtime import Runtime
from jetcap_ros.models.weight import quantize_rows, Weight
from jetcap_ros.models.weight_reader import WeightReader
import numpy as np
import pytest

HAS_ONNX_RUNTIME = importlib.util.find_spec('onnxruntime') is not None
THP = Path('/sys/kernel/mm/transparent_hugepage/enabled')
HAS_LARGE_PAGES = THP.exists() and '[never]' not in THP.read_text() and tuple(
    map(int, platform.libc_ver()[1].split('.'))) >= (2, 35)
needs_onnx_runtime = pytest.mark.skipif(not HAS_ONNX_RUNTIME, reason='onnxruntime is missing')
PRODUCTS = {
    'opencv': opencv.opencv_product, 'matrix': opencv.matrix_product,
    'convolution': opencv.convolution_product, 'numpy': numpy_product, 'row': row_product,
    'table': table_product}
BROKEN = {
    'segfault': 'import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)',
    'missing': 'raise ImportError("/lib/libgomp.so.1: cannot allocate memory in static TLS block")'}


@pytest.mark.parametrize('make', [
    *PRODUCTS, pytest.param('onnxruntime', marks=needs_onnx_runtime)])
@pytest.mark.parametrize('quantized', [False, True])
@pytest.mark.parametrize('n, m', [(301, 358), (1, 7), (5, 1), (37, 4), (64, 2), (1, 1)])
def test_products_of_changing_numbers_of_rows(monkeypatch, make, quantized, n, m):
    monkeypatch.setattr(opencv, 'MAX_ROWS', 200)
    rng = np.random.default_rng(0)
    weight = Weight(rng.normal(size=(n, m)).astype(np.float32))
    if quantized:
        weight = quantize_rows(weight.values)
    bias = rng.normal(size=n).astype(np.float32)
    if make == 'onnxruntime':
        from jetcap_ros.models.runtimes.onnx import onnx_runtime
        product = onnx_runtime(1).product(weight, bias)
    else:
        product = PRODUCTS[make](weight, bias)
    # The parts of an int8 kernel's input are 14 bits.
    tolerance = 1e-4 if make != 'onnxruntime' or not quantized else 2e-3 * m ** 0.5
    results = []
    for rows in (1, 1) if make == 'row' else (1, 3, 3, 1, 49, 2, 20, 1):
        x = rng.normal(size=(rows, m)).astype(np.float32)
        results.append((product(x), x @ weight.dequantized().T + bias))
    for found, expected in results:  # none was written over by a later one
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


def test_padding_narrow_maps_changes_no_feature(monkeypatch):
    checkpoint = read_checkpoint(SHIPPED_CHECKPOINT)
    image = np.random.default_rng(0).normal(size=(1, 3, 224, 224)).astype(np.float32)
    features = []
    for width in (0, opencv.WIDE_ENOUGH):
        monkeypatch.setattr(opencv, 'LEAST_WIDTH', width)
        with WeightReader(checkpoint) as reader:
            features.append(opencv.opencv_encoder(
                checkpoint.blocks, lambda name: reader.read(f'encoder.{name}'), 224)(image))
    np.testing.assert_allclose(*features, rtol=0, atol=1e-3)
    assert features[0].shape == (1, 1280, 7, 7) and features[0].std() > 0.1


def test_the_fastest_is_taken_for_each_kind_of_work():
    def slow(weight, bias):
        def product(x):
            time.sleep(0.002)
            return x @ weight.dequantized().T + bias
        return product

    def fast(weight, bias):
        return lambda x: x @ weight.dequantized().T + bias

    made = []

    def noted(make):
        def note(weight, bias):
            made.append((make.__name__, len(bias)))
            return make(weight, bias)
        return note

    runtimes = Fastest([
        Runtime('first', product=noted(slow), image_product=noted(fast)),
        Runtime('second', product=noted(fast)), Runtime('third', image_product=noted(slow))])
    weight, bias = Weight(np.ones((5000, 4), np.float32)), np.zeros(5000, np.float32)
    x = np.ones((3, 4), np.float32)
    assert (runtimes.product(weight, bias)(x) == 4).all()
    assert (runtimes.image_product(weight, bias)(x) == 4).all()
    runtimes.image_product(weight, bias)  # is not timed again
    assert made == [('slow', 2048), ('fast', 2048), ('fast', 5000),
                    ('fast', 512), ('slow', 512), ('fast', 5000), ('fast', 5000)]
    facts = runtimes.facts
    assert facts['runtime of the word products'].startswith('second (first: ')
    assert facts['runtime of the image products'].startswith('first (first: ')
    made.clear()
    again = Fastest(
        [Runtime('first', product=noted(slow)), Runtime('second', product=noted(fast))],
        runtimes.timings)
    assert (again.product(weight, bias)(x) == 4).all() and made == [('fast', 5000)]
    assert again.facts['runtime of the word products'] == facts['runtime of the word products']


def test_what_it_runs_in_is_said(photograph):
    lazy = LazyModel(name='simple', reserve_memory_mb=0, runtime='opencv')
    words = lazy.model.caption(photograph).text
    assert len(words.split()) > 4
    assert lazy.facts['runtime of the encoder'].startswith('OpenCV')
    assert 'NumPy' in lazy.facts['runtime of the image products']


@needs_onnx_runtime
def test_onnx_runtime_says_the_same(photograph):
    captions = [
        LazyModel(name='simple', reserve_memory_mb=0, runtime=runtime).model.caption(photograph)
        for runtime in ('opencv', 'onnxruntime', 'auto')]
    assert len({caption.text for caption in captions}) == 1
    assert captions[1].log_probability == pytest.approx(captions[0].log_probability, abs=0.01)


@pytest.mark.skipif(HAS_ONNX_RUNTIME, reason='onnxruntime is here')
def test_a_runtime_that_is_not_installed_is_asked_for():
    with Captioner(CaptionerSettings(
            model='simple', runtime='onnxruntime', reserve_memory_mb=0)) as captioner:
        with pytest.raises(CaptionerError, match='pip install onnxruntime'):
            captioner.configure()


@pytest.mark.parametrize('kind, words', [
    ('segfault', 'SIGSEGV'), ('missing', 'LD_PRELOAD=/lib/libgomp.so.1')])
def test_a_runtime_that_does_not_import_is_done_without(
        kind, words, monkeypatch, tmp_path, photograph):
    (tmp_path / 'onnxruntime.py').write_text(BROKEN[kind])
    monkeypatch.setenv('PYTHONPATH', str(tmp_path))
    logged = []
    settings = CaptionerSettings(model='simple', reserve_memory_mb=0)
    with Captioner(settings, log=lambda severity, text: logged.append(text)) as captioner:
        captioner.configure()
        assert captioner.model_in_use == 'simple' and captioner.restarts == 0
        assert captioner.facts['runtime of the encoder'].startswith('OpenCV')
        assert words in ' '.join(logged)
        assert captioner.caption(photograph).text


def test_tunables_of_others_stay(monkeypatch):
    monkeypatch.delenv('GLIBC_TUNABLES', raising=False)
    assert worker_environment(0)['GLIBC_TUNABLES'] == 'glibc.malloc.hugetlb=1'
    monkeypatch.setenv('GLIBC_TUNABLES', 'glibc.malloc.check=1')
    assert worker_environment(0)['GLIBC_TUNABLES'] == \
        'glibc.malloc.check=1:glibc.malloc.hugetlb=1'
    monkeypatch.setenv('GLIBC_TUNABLES', 'glibc.malloc.hugetlb=0')
    assert worker_environment(0)['GLIBC_TUNABLES'] == 'glibc.malloc.hugetlb=0'


@pytest.mark.skipif(not HAS_LARGE_PAGES, reason='no large pages on demand')
def test_weights_are_in_large_pages():
    with Captioner(CaptionerSettings(model='simple', reserve_memory_mb=0)) as captioner:
        captioner.configure()
        lines = Path(f'/proc/{captioner.worker_pid}/smaps').read_text().splitlines()
    held = sum(int(line.split()[1]) for line in lines if line.startswith('AnonHugePages'))
    assert held > 8 * 1024
