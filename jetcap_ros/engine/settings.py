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

from ..models.search import MAX_BEAM_SIZE, MAX_LENGTH

__all__ = [
    'CaptionerSettings', 'DEVICES', 'MAX_BEAM_SIZE', 'MAX_LENGTH', 'MODELS', 'QUANTIZE',
    'SHIPPED_CHECKPOINT']

SHIPPED_CHECKPOINT = str(
    Path(__file__).parent.parent / 'checkpoints' / 'mobilenet_v2_captions.safetensors')

MODELS = ('mobilenet', 'simple')
QUANTIZE = ('int8', 'none')
DEVICES = ('cpu', 'cuda', 'auto')


@dataclass
class CaptionerSettings:
    """The parameters of the node that concern the model, under the same names."""

    model: str = 'mobilenet'
    fallback: str = 'simple'
    checkpoint: str = ''
    checkpoint_sha256: str = ''
    quantize: str = 'int8'
    device: str = 'cpu'
    min_available_memory_mb: float = 800
    reserve_memory_mb: float = 150
    configure_timeout_s: float = 120.0
    inference_timeout_s: float = 10.0
    num_threads: int = 0
    beam_size: int = 3
    max_length: int = 20
    recover: bool = True

    @property
    def stand_in(self) -> str:
        """
        Return the model that takes over where the one asked for is lost, '' if none may.

        Below the simple model there is nothing, so it is started again at once.
        """
        if self.model == 'simple':
            return 'simple'
        return self.fallback if self.fallback not in ('none', self.model) else ''

    def checkpoint_for(self, model: str) -> str:
        """
        Return the path of the file that a model loads.

        A model that stands in reads packed files only: the one beside a .pth, else the shipped.
        """
        path = os.path.abspath(os.path.expanduser(self.checkpoint or SHIPPED_CHECKPOINT))
        if model == self.model or not path.endswith(('.pth', '.pt')):
            return path
        beside = os.path.splitext(path)[0] + '.safetensors'
        return beside if os.path.isfile(beside) else SHIPPED_CHECKPOINT
