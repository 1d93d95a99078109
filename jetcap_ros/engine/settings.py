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

"""What can be set of the engine: models, checkpoints, limits."""

from dataclasses import dataclass
import os
from pathlib import Path
from typing import Any

from ..models.runtimes import RUNTIMES
from ..models.search_options import MAX_BEAM_SIZE, MAX_LENGTH

__all__ = [
    'CaptionerSettings', 'DEFAULT_PROMPT', 'DEVICES', 'FALLBACKS', 'MAX_BEAM_SIZE', 'MAX_LENGTH',
    'MAX_PROMPT', 'MODELS', 'QUANTIZE', 'RUNTIMES', 'SERVER_IMAGE_SIZES',
    'SHIPPED_CHECKPOINT']

SHIPPED_CHECKPOINT = str(
    Path(__file__).parent.parent / 'checkpoints' / 'captions.safetensors')

MODELS = ('server', 'mobilenet', 'simple')  # each may stand in for those before it
FALLBACKS = ('mobilenet', 'simple', 'none')
QUANTIZE = ('int8', 'none')
DEVICES = ('cpu', 'cuda', 'auto')
DEFAULT_PROMPT = 'Describe this picture in one plain sentence.'
MAX_PROMPT = 2000  # characters
SERVER_IMAGE_SIZES = (32, 2048)  # pixels


# A worker is loaded with these, so that another value means another worker.
OF_THE_WORKER = (
    'model', 'checkpoint', 'checkpoint_sha256', 'quantize', 'device', 'runtime', 'num_threads')


@dataclass
class CaptionerSettings:
    """The parameters of the node that concern the model, under the same names."""

    model: str = 'mobilenet'
    fallback: str = 'simple'
    checkpoint: str = ''
    checkpoint_sha256: str = ''
    quantize: str = 'int8'
    device: str = 'cpu'
    runtime: str = 'auto'
    min_available_memory_mb: float = 800
    reserve_memory_mb: float = 150
    configure_timeout_s: float = 120.0
    inference_timeout_s: float = 10.0
    num_threads: int = 0
    beam_size: int = 5
    max_length: int = 20
    recover: bool = True
    sleep_after_s: float = 0.0
    server_url: str = ''
    server_command: str = ''
    server_binary: str = ''
    server_model: str = ''
    projector: str = ''
    prompt: str = DEFAULT_PROMPT
    server_image_size: int = 384

    @property
    def server_options(self) -> dict[str, Any]:
        """Return the fields of ServerOptions."""
        projector = self.projector and os.path.abspath(os.path.expanduser(self.projector))
        return {
            'url': self.server_url, 'command': self.server_command, 'binary': self.server_binary,
            'model': self.server_model, 'projector': projector,
            'image_size': self.server_image_size,
            # A little sooner than the node, so that it is told what the server was at.
            'start_timeout_s': 0.9 * self.configure_timeout_s}

    def stand_ins(self, lost: str) -> tuple[str, ...]:
        """
        Return the models that may take over where one is lost, in order; none may be allowed to.

        Below the simple model there is nothing, so it is started again at once.
        """
        if lost == 'simple':
            return ('simple',)
        if self.fallback == 'none':
            return ()
        first = max(MODELS.index(self.fallback), MODELS.index(lost) + 1)
        return MODELS[first:]

    def checkpoint_for(self, model: str) -> str:
        """
        Return the path of the file that a model loads.

        A model that stands in reads packed files only: the one beside a .pth, else the shipped.
        What has a projector is the server's, and no other model reads it.
        """
        path = os.path.abspath(os.path.expanduser(self.checkpoint or SHIPPED_CHECKPOINT))
        if model != 'server' and self.projector and path.endswith('.gguf'):
            return SHIPPED_CHECKPOINT
        if model == self.model:
            return path
        if path.endswith(('.pth', '.pt')):
            path = os.path.splitext(path)[0] + '.safetensors'
            return path if os.path.isfile(path) else SHIPPED_CHECKPOINT
        return SHIPPED_CHECKPOINT if path.endswith('.gguf') else path

    def sha256_for(self, model: str) -> str:
        """Return the SHA-256 that the file of a model must have, '' if it may have any."""
        path = os.path.abspath(os.path.expanduser(self.checkpoint or SHIPPED_CHECKPOINT))
        return self.checkpoint_sha256 if self.checkpoint_for(model) == path else ''
