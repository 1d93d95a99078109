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
