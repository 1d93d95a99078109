"""Write packed checkpoints: safetensors with int8 weights, nothing executable."""

import json
import os
from typing import Dict

import numpy as np

from .checkpoint import (
    PACKED_FORMAT, PACKED_VERSION, Checkpoint, CheckpointError, WeightReader)
from .safetensors_file import SafetensorsError, write_safetensors


def pack(checkpoint: Checkpoint, out: str, quantize: str = 'int8') -> int:
    """
    Write the packed form of a checkpoint and return its size in bytes.

    :param quantize: 'int8', or 'none' to keep float32.
    :raises CheckpointError: if its weights are damaged or its words too long.
    """
    tensors: Dict[str, np.ndarray] = {}
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
        'search': json.dumps(checkpoint.search)}
    try:
        write_safetensors(out, tensors, metadata)
    except SafetensorsError as error:
        raise CheckpointError(f'{checkpoint.path}: cannot be packed: {error}') from error
    return os.path.getsize(out)
