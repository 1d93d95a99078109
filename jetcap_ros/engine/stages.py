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
The stages of loading a model, from small to large: what each needs, and what it took.

Before a stage there must be memory for it and for the reserve, or MemoryError says what is
missing; after it, its time and memory are reported.
"""

from collections.abc import Callable
from dataclasses import dataclass
import importlib.util
import time
from typing import TypeVar

from .needs import remembered_mb
from ..memory.memory_utils import available_memory_mb, check_available_memory, process_memory

Result = TypeVar('Result')

# In the order of loading; see stages_of.
STAGES = {
    'mobilenet': (
        'quantization', 'metadata', 'torch', 'model_class', 'instance', 'weights', 'cleanup',
        'warm_up'),
    'simple': ('metadata', 'opencv', 'weights', 'cleanup', 'warm_up'),
    # What `server_start` needs is in the files of the server.
    'server': ('server_files', 'server_start', 'vision', 'warm_up')}
# A Python with NumPy, before it can check for itself: what it takes, and what it keeps.
WORKER_NEED_MB, WORKER_KEPT_MB = 40, 16
# What a stage takes, in MB. Importing torch reads some 230 MB of libraries too, OpenCV 20, but
# those pages are the file's: the kernel takes them back under pressure. ONNX Runtime, which is
# optional, takes 20 and has its network beside OpenCV's until the faster one is known.
NEED_MB = {
    'quantization': 10, 'metadata': 10, 'torch': 280, 'model_class': 10, 'instance': 10,
    'weights': 30, 'cleanup': 0, 'warm_up': 10, 'opencv': 10, 'server_files': 10,
    'server_start': 10, 'vision': 10, 'onnxruntime': 60}
# And for each MB of the checkpoint. The simple model reads graphs in float32, several times their
# size while they are read, and has OpenCV arrange the weights when they are first used.
NEED_PER_MB = {
    'mobilenet': {'weights': 2.5, 'warm_up': 1.0}, 'simple': {'weights': 4.0, 'warm_up': 2.5},
    'server': {}}
# What of that is still held after the stage: `jetcap plan` reckons with it.
KEPT_MB = {
    'metadata': 2.0, 'torch': 264.0, 'model_class': 1.0, 'instance': 0.5, 'opencv': 4.5,
    'onnxruntime': 45.0}
KEPT_PER_MB = {
    'mobilenet': {'weights': 1.6, 'warm_up': 0.8}, 'simple': {'weights': 2.2, 'warm_up': 2.0},
    'server': {}}
# The CUDA context and the libraries that come with the first tensor on the device. An assumption,
# not a measurement: where processor and GPU share their memory, too much is better than too little.
CUDA_MB = 500


@dataclass
class Stage:
    """What a stage took, and what was left after it."""

    name: str
    seconds: float
    rss_mb: float
    available_mb: float


def stages_of(model: str, runtime: str = 'auto') -> tuple[str, ...]:
    """Return the stages of loading a model; of the simple one, with those of its runtime."""
    stages = STAGES[model]
    if 'opencv' not in stages:
        return stages
    at = stages.index('opencv')
    runtimes: tuple[str, ...] = () if runtime == 'onnxruntime' else ('opencv',)
    if runtime == 'onnxruntime' or runtime == 'auto' and importlib.util.find_spec('onnxruntime'):
        runtimes += ('onnxruntime',)
    return stages[:at] + runtimes + stages[at + 1:]


def need_mb(model: str, stage: str, checkpoint_mb: float = 0, device: str = 'cpu') -> float:
    """
    Return the memory that a stage of loading a model needs, in MB.

    :param checkpoint_mb: the size of its file; 0 before its metadata are read, when nothing is
        known of the checkpoint, nor needed.
    """
    context = CUDA_MB if stage == 'weights' and device == 'cuda' else 0
    base = max(NEED_MB[stage], remembered_mb(model, stage))
    return base + NEED_PER_MB[model].get(stage, 0) * checkpoint_mb + context


def kept_mb(model: str, stage: str, checkpoint_mb: float, device: str = 'cpu') -> float:
    """Return the memory that a model still holds of what a stage of loading it took, in MB."""
    context = CUDA_MB if stage == 'weights' and device == 'cuda' else 0
    # Where a stage was seen to take more than it does here, assume that it keeps that.
    more = max(0.0, remembered_mb(model, stage) - NEED_MB[stage])
    return (
        KEPT_MB.get(stage, 0) + KEPT_PER_MB[model].get(stage, 0) * checkpoint_mb + context + more)


def run_stage(
        name: str, need: float, reserve: float, work: Callable[[], Result],
        on_begin: Callable[[str], None], on_stage: Callable[[Stage], None],
        rss_mb: Callable[[], float] = lambda: process_memory().rss_mb) -> Result:
    """
    Do the work of a stage between its memory check and its report.

    :param need: of the stage, in MB; reserve: what must stay available, in MB.
    :param rss_mb: returns the memory of the model, in MB.
    :raises MemoryError: with the memory needed and available, before the work begins.
    """
    on_begin(name)
    started = time.monotonic()
    check_available_memory(need + reserve, f'stage {name} ({need:.0f} MB and reserve)')
    result = work()
    on_stage(Stage(
        name, time.monotonic() - started, rss_mb(), available_memory_mb()))
    return result
