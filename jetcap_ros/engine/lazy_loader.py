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

"""
Load the captioning models late, in stages from small to large, each behind a memory check.

Importing this file imports no framework. Before a stage there must be memory for it and for the
reserve, or MemoryError says what is missing; after it, its time and memory are reported.
"""

from dataclasses import dataclass
import functools
import os
from pathlib import Path
import time
from typing import Any, Callable, Optional
import warnings

from ..memory.file_pages import release_file_pages
from ..memory.memory_utils import (
    available_memory_mb, check_available_memory, MB, pre_cleanup, process_memory,
    safe_import_wrapper)

SHIPPED_CHECKPOINT = str(
    Path(__file__).parent.parent / 'checkpoints' / 'mobilenet_v2_captions.safetensors')

# What a stage takes, in MB. Importing torch reads some 230 MB of libraries too, OpenCV 20, but
# those pages are the file's: the kernel takes them back under pressure.
NEED_MB = {
    'quantization': 10, 'metadata': 10, 'torch': 280, 'model_class': 10, 'instance': 10,
    'weights': 30, 'cleanup': 0, 'warm_up': 10, 'opencv': 10}
# And for each MB of the checkpoint. The simple model reads graphs in float32, several times their
# size while they are read, and has OpenCV arrange the weights when they are first used.
NEED_PER_MB = {
    'mobilenet': {'weights': 2.5, 'warm_up': 1.0}, 'simple': {'weights': 4.0, 'warm_up': 2.5}}
# The CUDA context and the libraries that come with the first tensor on the device. An assumption,
# not a measurement: where processor and GPU share their memory, too much is better than too little.
CUDA_MB = 500

MODELS = ('mobilenet', 'simple')
QUANTIZE = ('int8', 'none')
DEVICES = ('cpu', 'cuda', 'auto')


@dataclass
class Stage:
    """What a stage took, and what was left after it."""

    name: str
    seconds: float
    rss_mb: float
    available_mb: float


def lazy_load_quantization() -> Callable:
    """Return `apply_dynamic_quantization`; torch is imported when it is called."""
    from ..models.quantization import apply_dynamic_quantization
    return apply_dynamic_quantization


def lazy_load_model_class(reserve_memory_mb: float = 0) -> type:
    """
    Import torch if there is memory for it, and return `MobileNetCaptioningModel`.

    :raises MemoryError: with the memory needed and available.
    :raises ImportError: if torch is missing or broken.
    """
    safe_import_wrapper('torch', NEED_MB['torch'] + reserve_memory_mb)
    return safe_import_wrapper(
        'jetcap_ros.models.mobilenet', NEED_MB['model_class'] + reserve_memory_mb
    ).MobileNetCaptioningModel


class LazyModel:
    """
    A captioning model that is loaded when `model` is first asked for.

    :param name: 'mobilenet' (torch) or 'simple' (OpenCV and NumPy).
    :param checkpoint: path of a packed file, or of a `.pth` for 'mobilenet'; empty: the shipped
        one.
    :param num_threads: 0 for all cores.
    :param on_begin: called with the name of each stage that begins.
    :param on_stage: called with a Stage for each stage that ends.
    """

    def __init__(
            self, checkpoint: str = '', name: str = 'mobilenet', checkpoint_sha256: str = '',
            quantize: str = 'int8', device: str = 'cpu', num_threads: int = 0,
            reserve_memory_mb: float = 150, on_begin: Optional[Callable] = None,
            on_stage: Optional[Callable] = None) -> None:
        for value, choices in ((name, MODELS), (quantize, QUANTIZE), (device, DEVICES)):
            if value not in choices:
                raise ValueError(f'{value!r} is none of {", ".join(choices)}')
        self._checkpoint_path = checkpoint or SHIPPED_CHECKPOINT
        self._name = name
        self._sha256 = checkpoint_sha256
        self._quantize = quantize
        self._device = device
        self._num_threads = num_threads
        self._reserve = reserve_memory_mb
        self._on_begin = on_begin
        self._on_stage = on_stage
        self._model = None
        self.checkpoint = None

    @property
    def model(self) -> Any:
        """Return the model; the first time, load it."""
        if self._model is None:
            self._model = self._load_simple() if self._name == 'simple' else self._load_mobilenet()
        return self._model

    def _run(self, stage: str, work: Callable) -> Any:
        """Do the work of a stage between its memory check and its report."""
        if self._on_begin:
            self._on_begin(stage)
        started = time.monotonic()
        need = self._need_mb(stage)
        check_available_memory(need + self._reserve, f'stage {stage} ({need:.0f} MB and reserve)')
        result = work()
        if self._on_stage:
            self._on_stage(Stage(
                stage, time.monotonic() - started, process_memory().rss_mb,
                available_memory_mb()))
        return result

    def _need_mb(self, stage: str) -> float:
        per_mb = NEED_PER_MB[self._name].get(stage, 0)
        # Before its metadata are read, nothing is known of the checkpoint, nor needed.
        size = os.path.getsize(self.checkpoint.path) / MB if self.checkpoint else 0
        context = CUDA_MB if stage == 'weights' and self._device == 'cuda' else 0
        return NEED_MB[stage] + per_mb * size + context

    def _read_metadata(self):
        from ..models.checkpoint import read_checkpoint
        return read_checkpoint(self._checkpoint_path, self._sha256)

    def _warm_up(self, model):
        import numpy as np
        return model.caption(np.full((224, 224, 3), 128, np.uint8))

    def _load_simple(self):
        self.checkpoint = self._run('metadata', self._read_metadata)

        def import_model():
            import cv2
            cv2.setNumThreads(self._num_threads or -1)
            from ..models.simple import SimpleCaptioningModel
            release_file_pages()
            return SimpleCaptioningModel

        model_class = self._run('opencv', import_model)
        model = self._run('weights', lambda: model_class(self.checkpoint))
        self._run('cleanup', pre_cleanup)
        self._run('warm_up', lambda: self._warm_up(model))
        return model

    def _load_mobilenet(self):
        self._run('quantization', lazy_load_quantization)
        self.checkpoint = self._run('metadata', self._read_metadata)
        torch = self._run('torch', self._import_torch)
        self._run('model_class', lambda: lazy_load_model_class(self._reserve))
        model = self._run('instance', self._build_instance)
        self._run('weights', lambda: self._place_weights(model))
        self._run('cleanup', pre_cleanup)
        with torch.inference_mode():
            self._run('warm_up', lambda: self._warm_up(model))
        return model

    def _import_torch(self):
        torch = safe_import_wrapper('torch', NEED_MB['torch'])
        # Torch's threads spin where they meet: beside a busy robot one core less is far faster
        # than one too many.
        cores = len(os.sched_getaffinity(0))
        torch.set_num_threads(self._num_threads or max(1, cores - 1))
        if self._device == 'auto':
            self._device = 'cuda' if torch.cuda.is_available() else 'cpu'
        if self._device == 'cuda' and not torch.cuda.is_available():
            raise RuntimeError('device is cuda, but this torch sees none: use cpu or auto')
        release_file_pages()
        return torch

    def _build_instance(self):
        """Build the network on the meta device: its shape, without memory."""
        from ..models.encoder import MobileNetEncoder
        from ..models.mobilenet import MobileNetCaptioningModel
        checkpoint = self.checkpoint
        encoder = MobileNetEncoder(
            checkpoint.architecture, checkpoint.blocks, folded=True, device='meta')
        return MobileNetCaptioningModel(
            len(checkpoint.vocabulary), encoder=encoder, decoder=(),  # placed with its weights
            vocabulary=checkpoint.vocabulary, calibration=checkpoint.score_calibration,
            search_options=checkpoint.search).eval()

    def _place_weights(self, model) -> None:
        """Put the weights into the network, tensor by tensor."""
        import torch

        from ..models.checkpoint import WeightReader
        from ..models.decoder import Decoder
        from ..models.torch_products import has_int8_engine, torch_product
        from ..models.word_detector import WordDetector
        checkpoint, device, quantize = self.checkpoint, self._device, self._quantize
        dtype = torch.float32 if device == 'cpu' else torch.float16
        if quantize == 'int8' and device == 'cpu' and not has_int8_engine():
            warnings.warn('this torch has no quantized engine: quantize is none')
            quantize = 'none'
        with WeightReader(checkpoint) as reader:
            for name, _ in list(model.encoder.named_parameters()):
                # Convolutions run in floating point. In int8 mode their values are those of
                # int8, so that all models of a checkpoint are one network.
                values = torch.tensor(
                    reader.read(f'encoder.{name}', quantize).dequantized()).to(device, dtype)
                if values.ndim == 4:
                    values = values.contiguous(memory_format=torch.channels_last)
                module, _, kind = name.rpartition('.')
                setattr(
                    model.encoder.get_submodule(module), kind,
                    torch.nn.Parameter(values, requires_grad=False))
            model.decoder = Decoder(
                lambda name: reader.read(f'decoder.{name}', quantize), checkpoint.embed_dim,
                checkpoint.decoder_dim, checkpoint.attention_dim,
                functools.partial(torch_product, device=device))
            if checkpoint.words:
                model.word_detector = WordDetector(
                    lambda name: reader.read(f'words.{name}', quantize),
                    functools.partial(torch_product, device=device))
