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

"""Write packed checkpoints: safetensors with int8 weights, nothing executable."""

import json
import os

import numpy as np

from .checkpoint import Checkpoint, PACKED_FORMAT, PACKED_VERSION
from .errors import CheckpointError
from .safetensors_file import SafetensorsError, write_safetensors
from .weight_reader import WeightReader


def pack(checkpoint: Checkpoint, out: str, quantize: str = 'int8') -> int:
    """
    Write the packed form of a checkpoint and return its size in bytes.

    :param quantize: 'int8', or 'none' to keep float32.
    :raises CheckpointError: if its weights are damaged or its words too long.
    """
    tensors: dict[str, np.ndarray] = {}
    with WeightReader(checkpoint) as reader:
        for name in checkpoint.parameter_shapes():
            weight = reader.read(name, quantize)
            tensors[name] = np.ascontiguousarray(weight.values)
            if weight.scale is not None:
                tensors[name + '.scale'] = weight.scale
    metadata = {
        'format': PACKED_FORMAT, 'version': PACKED_VERSION, 'quantize': quantize,
        'encoder': checkpoint.architecture, 'words': json.dumps(checkpoint.vocabulary.words),
        'score_calibration': json.dumps(checkpoint.score_calibration),
        'search': json.dumps(checkpoint.search),
        'image_size': json.dumps(checkpoint.image_size)}
    try:
        write_safetensors(out, tensors, metadata)
    except SafetensorsError as error:
        raise CheckpointError(f'{checkpoint.path}: cannot be packed: {error}') from error
    return os.path.getsize(out)
