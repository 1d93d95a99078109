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
The process the model lives in; `worker_process.py` starts it.

It is told what to load, reports each stage, then captions the frames it is sent. It ends with the
process that started it, and offers itself to the kernel first when memory runs out. Somebody may
wait for its first caption, so nothing is imported or looked at before that can come later.
"""

import atexit
import ctypes
from dataclasses import asdict
import gc
import importlib
import os
import select
import signal
import socket
import sys
import time
from types import ModuleType
from typing import Any, NoReturn, TextIO
import warnings

import numpy as np

from . import protocol
from .lazy_loader import LazyModel
from ..memory.file_pages import release_file_pages
from ..memory.memory_utils import available_memory_mb
from ..models.beside import Beside
from ..models.server.errors import ServerError

PR_SET_PDEATHSIG = 1
# Enough to go before the node and the rest of the robot; 1000 would be first of all processes.
OOM_SCORE_ADJ = 600
# Who is not asked for so long after it is ready has time to tidy up.
UNASKED_S = 0.5
# Tells compilers what torch's operators return, and takes nearly half the time of importing torch.
FOR_COMPILERS = 'torch._meta_registrations'


def _end_with_parent(parent: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it went before we asked
        os._exit(0)


def _offer_to_oom_killer() -> None:
    try:
        with open('/proc/self/oom_score_adj', 'r+', encoding='ascii') as file:
            score = max(OOM_SCORE_ADJ, int(file.read()))
            file.seek(0)
            file.write(str(score))
    except OSError:
        pass  # no such file in some sandboxes: the order of killing is then the kernel's


def _leave(code: int) -> NoReturn:
    """End, a server of our own first; to be told so again must not interrupt that."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(code)


def _load(node: socket.socket, settings: dict[str, Any]) -> LazyModel:
    """Load the model and report; whatever goes wrong is reported too, then the worker ends."""
    stage = 'start'

    def begin(name: str) -> None:
        nonlocal stage
        stage = name
        if name == 'weights':
            gc.freeze()  # what was imported stays: no collection need look at it
        protocol.send(node, 'begin', stage=name)

    try:
        model = LazyModel(
            on_begin=begin, on_stage=lambda report: protocol.send(node, 'stage', **asdict(report)),
            **settings)
        atexit.register(model.close)
        model.model
    except BrokenPipeError:
        raise
    except Exception as error:
        protocol.send(
            node, 'error', error=type(error).__name__, stage=stage, text=str(error)[:2000])
        _leave(1)
    return model


class _Later(ModuleType):
    """Stands for a module until somebody wants something of it."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith('__'):  # which whoever imports it looks at
            raise AttributeError(name)
        sys.modules.pop(self.__name__)
        return getattr(importlib.import_module(self.__name__), name)


def _digest(path: str) -> str:
    """Return the SHA-256 of a file, '' if it cannot be read: the stage that reads it says so."""
    from ..models.checkpoint import sha256
    try:
        return sha256(path)
    except OSError:
        return ''


def _facts(model: LazyModel, digest: Beside[str] | None) -> dict[str, Any]:
    """Return what diagnostics should say of the model."""
    if model.model.name == 'server':
        facts: dict[str, Any] = model.model.facts()
        return facts
    checkpoint = model.checkpoint
    if checkpoint is None or digest is None:
        return {}
    facts = {
        'checkpoint': checkpoint.path, 'checkpoint SHA-256': digest.result(),
        'encoder': checkpoint.architecture, 'vocabulary': len(checkpoint.vocabulary),
        **model.facts}
    if 'torch' in sys.modules:
        facts['torch'] = sys.modules['torch'].__version__
    return facts


def _caption(
        node: socket.socket, model: LazyModel, message: dict[str, Any],
        pixels: memoryview) -> None:
    """Caption a frame: a JPEG for a server, pixels for the other models."""
    started = time.perf_counter()
    answer: dict[str, Any]
    if model.model.name == 'server':
        said = model.model.caption(
            bytes(pixels), message['prompt'], message['max_length'], message['timeout_s'])
        answer = {'text': said.text, 'score': said.score, 'attention': None}
        kind = None if said.score is None else 'token_probability'
    else:
        size = model.model.image_size
        frame = np.frombuffer(pixels, np.uint8).reshape(size, size, 3)
        caption = model.model.caption(frame, message['beam_size'], message['max_length'])
        answer = {
            'text': caption.text, 'score': caption.score,
            'attention': np.round(caption.attention, 4).tolist()}
        kind = 'calibrated' if model.model.calibration else 'token_probability'
    protocol.send(
        node, 'caption', **answer, score_kind=kind, seconds=time.perf_counter() - started,
        rss_mb=model.rss_mb, available_mb=available_memory_mb())


def _answer(node: socket.socket, model: LazyModel) -> None:
    """Wait for a request and answer it; EOFError if the node has gone."""
    message, pixels = protocol.receive(node)
    try:
        _caption(node, model, message, pixels)
    except ServerError as error:  # whatever it is, another model answers better now
        protocol.send(node, 'failed', text=str(error))
    except (ValueError, KeyError, TypeError) as error:  # this request, not the model
        protocol.send(
            node, 'error', error=type(error).__name__, stage='caption', text=str(error)[:2000])


def main() -> None:
    """Load one model, then caption until the node has gone."""
    file_descriptor, parent = map(int, sys.argv[1:3])
    _end_with_parent(parent)
    _offer_to_oom_killer()
    node = socket.socket(fileno=file_descriptor)

    def report_warning(
            message: Warning | str, category: type[Warning], filename: str, lineno: int,
            file: TextIO | None = None, line: str | None = None) -> None:
        protocol.send(node, 'warning', text=f'{category.__name__}: {message}'[:2000])

    warnings.showwarning = report_warning
    sys.modules[FOR_COMPILERS] = _Later(FOR_COMPILERS)  # nothing is compiled here
    try:
        message, _ = protocol.receive(node)
        digest = None
        if message['settings'].get('name') == 'server':
            # It has a process to end, or a server to tell, and is given time for it.
            signal.signal(signal.SIGTERM, lambda *_: _leave(0))
        else:
            path = message['settings']['checkpoint']
            digest = Beside(lambda: _digest(path))
        model = _load(node, message['settings'])
        protocol.send(
            node, 'ready', rss_mb=model.rss_mb, facts=_facts(model, digest),
            timings=model.timings,
            image_size=model.checkpoint.image_size if model.checkpoint else None)
        if select.select([node], [], [], UNASKED_S)[0]:
            _answer(node, model)
        release_file_pages()
        while True:
            _answer(node, model)
    except (EOFError, BrokenPipeError):
        pass
