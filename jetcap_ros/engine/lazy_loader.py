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
Load the captioning models late, stage by stage (`stages.py` says what each needs).

Importing this file imports no framework.
"""

from collections.abc import Callable
import importlib.util
import os
from types import ModuleType
from typing import Any, TYPE_CHECKING, TypeVar
import warnings

from .settings import DEVICES, MODELS, QUANTIZE, RUNTIMES, SHIPPED_CHECKPOINT
from .stages import NEED_MB, need_mb, run_stage, Stage
from ..memory.file_pages import release_file_pages
from ..memory.memory_utils import MB, pre_cleanup, process_memory, safe_import_wrapper

if TYPE_CHECKING:
    from ..models.checkpoint import Checkpoint
    from ..models.mobilenet import MobileNetCaptioningModel
    from ..models.runtimes.fastest import Fastest, Timings
    from ..models.runtimes.runtime import Runtime
    from ..models.server.model import ServerCaptioningModel
    from ..models.simple import SimpleCaptioningModel

Result = TypeVar('Result')
# The first word is searched for with one beam, the next ones with all, and then it goes on so.
WARM_UP_WORDS = 3


def lazy_load_quantization() -> Callable[..., Any]:
    """Return `apply_dynamic_quantization`; torch is imported when it is called."""
    from ..models.quantization import apply_dynamic_quantization
    return apply_dynamic_quantization


def lazy_load_model_class(
        reserve_memory_mb: float = 0) -> type['MobileNetCaptioningModel']:
    """
    Import torch if there is memory for it, and return `MobileNetCaptioningModel`.

    :raises MemoryError: with the memory needed and available.
    :raises ImportError: if torch is missing or broken.
    """
    safe_import_wrapper('torch', NEED_MB['torch'] + reserve_memory_mb)
    safe_import_wrapper(
        'jetcap_ros.models.mobilenet', NEED_MB['model_class'] + reserve_memory_mb)
    from ..models.mobilenet import MobileNetCaptioningModel
    return MobileNetCaptioningModel


class LazyModel:
    """
    A captioning model that is loaded when `model` is first asked for.

    :param name: 'mobilenet' (torch), 'simple' (no framework) or 'server'.
    :param checkpoint: path of a packed file, or of a `.pth` for 'mobilenet'; empty: the shipped
        one. Of a server of our own, its GGUF file.
    :param runtime: one of RUNTIMES, for 'simple'.
    :param num_threads: 0 for all cores.
    :param server: the fields of ServerOptions, for 'server'.
    :param timings: of the runtimes, as `timings` of the last model like it said.
    :param awaited: a picture waits for its caption, and warms the model up as well as another.
    :param on_begin: called with the name of each stage that begins.
    :param on_stage: called with a Stage for each stage that ends.
    """

    def __init__(
            self, checkpoint: str = '', name: str = 'mobilenet', checkpoint_sha256: str = '',
            quantize: str = 'int8', device: str = 'cpu', runtime: str = 'auto',
            num_threads: int = 0, reserve_memory_mb: float = 150,
            server: dict[str, Any] | None = None, timings: 'Timings | None' = None,
            awaited: bool = False,
            on_begin: Callable[[str], None] = lambda name: None,
            on_stage: Callable[[Stage], None] = lambda stage: None) -> None:
        for value, choices in (
                (name, MODELS), (quantize, QUANTIZE), (device, DEVICES), (runtime, RUNTIMES)):
            if value not in choices:
                raise ValueError(f'{value!r} is none of {", ".join(choices)}')
        self._checkpoint_path = checkpoint or SHIPPED_CHECKPOINT
        self._name = name
        self._sha256 = checkpoint_sha256
        self._quantize = quantize
        self._device = device
        self._runtime = runtime
        self._num_threads = num_threads
        self._reserve = reserve_memory_mb
        self._on_begin = on_begin
        self._on_stage = on_stage
        self._server_options = server or {}
        self._server: ServerCaptioningModel | None = None
        self._model: Any = None
        self.checkpoint: Checkpoint | None = None
        self.facts: dict[str, str] = {}  # what the simple model runs in, and why
        self.timings = timings or {}
        self._awaited = awaited

    @property
    def model(self) -> Any:
        """Return the model; the first time, load it."""
        if self._model is None:
            self._model = {
                'server': self._load_server, 'mobilenet': self._load_mobilenet,
                'simple': self._load_simple}[self._name]()
        return self._model

    @property
    def rss_mb(self) -> float:
        """Return the resident memory of the model, that of a server of its own included; in MB."""
        return process_memory().rss_mb + (self._server.rss_mb if self._server else 0)

    def close(self) -> None:
        """End what does not end with this process by itself."""
        if self._server:
            self._server.close()

    def need_mb(self, stage: str) -> float:
        """Return the memory that a stage needs, as far as the checkpoint is known; in MB."""
        if self._server and stage == 'server_start':
            return self._server.need_mb
        size = os.path.getsize(self.checkpoint.path) / MB if self.checkpoint else 0
        return need_mb(self._name, stage, size, self._device)

    def _run(self, stage: str, work: Callable[[], Result]) -> Result:
        return run_stage(
            stage, self.need_mb(stage), self._reserve, work, self._on_begin, self._on_stage,
            lambda: self.rss_mb)

    def _read_metadata(self) -> 'Checkpoint':
        from ..models.checkpoint import read_checkpoint
        return read_checkpoint(self._checkpoint_path, self._sha256)

    def _warm_up(self, model: Any) -> None:
        if self._awaited:
            return
        import numpy as np
        model.caption(
            np.full((model.image_size, model.image_size, 3), 128, np.uint8),
            max_length=WARM_UP_WORDS)

    def _load_server(self) -> 'ServerCaptioningModel':
        from ..models.server.model import ServerCaptioningModel, ServerOptions
        server = self._server = ServerCaptioningModel(
            ServerOptions(**self._server_options), self._checkpoint_path, self._sha256,
            self._num_threads)
        self._run('server_files', server.read_files)
        self._run('server_start', server.start)
        self._run('vision', server.look)
        self._run('warm_up', server.warm_up)
        return server

    def _load_simple(self) -> 'SimpleCaptioningModel':
        checkpoint = self.checkpoint = self._run('metadata', self._read_metadata)
        runtimes = self._load_runtimes()
        from ..models.simple import SimpleCaptioningModel
        model = self._run('weights', lambda: SimpleCaptioningModel(checkpoint, runtimes))
        self.facts, self.timings = runtimes.facts, runtimes.timings
        self._run('cleanup', pre_cleanup)
        self._run('warm_up', lambda: self._warm_up(model))
        return model

    def _load_runtimes(self) -> 'Fastest':
        """Import what the simple model is to run in; 'auto': what is installed, and fits."""
        from ..models.runtimes.blas import numpy_runtime
        from ..models.runtimes.fastest import Fastest
        runtimes = [numpy_runtime()]
        if self._runtime != 'onnxruntime':
            runtimes.append(self._run('opencv', self._import_opencv))
        if self._runtime == 'auto' and importlib.util.find_spec('onnxruntime'):
            try:
                runtimes.append(self._run('onnxruntime', self._import_onnx_runtime))
            except (ImportError, MemoryError) as error:
                warnings.warn(f'the simple model does without ONNX Runtime: {error}')
        elif self._runtime == 'onnxruntime':
            runtimes.append(self._run('onnxruntime', self._import_onnx_runtime))
        if not self._awaited:  # else they are given up after the caption
            release_file_pages()
        return Fastest(runtimes, self.timings)

    def _import_opencv(self) -> 'Runtime':
        safe_import_wrapper('cv2', NEED_MB['opencv'])
        from ..models.runtimes.opencv import opencv_runtime
        return opencv_runtime(self._num_threads)

    def _import_onnx_runtime(self) -> 'Runtime':
        safe_import_wrapper('onnxruntime', NEED_MB['onnxruntime'])
        from ..models.runtimes.onnx import onnx_runtime
        return onnx_runtime(self._num_threads)

    def _load_mobilenet(self) -> 'MobileNetCaptioningModel':
        self._run('quantization', lazy_load_quantization)
        checkpoint = self.checkpoint = self._run('metadata', self._read_metadata)
        torch = self._run('torch', self._import_torch)
        self._run('model_class', lambda: lazy_load_model_class(self._reserve))
        model = self._run('instance', lambda: self._build_instance(checkpoint))
        self._run('weights', lambda: model.place_weights(
            checkpoint, self._quantize, self._device))
        self._run('cleanup', pre_cleanup)
        with torch.inference_mode():
            self._run('warm_up', lambda: self._warm_up(model))
        return model

    def _import_torch(self) -> ModuleType:
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

    def _build_instance(self, checkpoint: 'Checkpoint') -> 'MobileNetCaptioningModel':
        """Build the network on the meta device: its shape, without memory."""
        from ..models.encoder import MobileNetEncoder
        from ..models.mobilenet import MobileNetCaptioningModel
        encoder = MobileNetEncoder(
            checkpoint.architecture, checkpoint.blocks, folded=True, device='meta')
        return MobileNetCaptioningModel(
            len(checkpoint.vocabulary), encoder=encoder, decoder=(),  # placed with its weights
            vocabulary=checkpoint.vocabulary, calibration=checkpoint.score_calibration,
            search_options=checkpoint.search, image_size=checkpoint.image_size).eval()
