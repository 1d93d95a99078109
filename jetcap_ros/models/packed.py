"""Write packed checkpoints: safetensors with int8 weights, nothing executable."""

import json
import os
from typing import Dict

import numpy as np

from .checkpoint import PACKED_FORMAT, PACKED_VERSION, Checkpoint, WeightReader
from .safetensors_file import write_safetensors


def pack(checkpoint: Checkpoint, out: str, quantize: str = 'int8') -> int:
    """
    Write the packed form of a checkpoint and return its size in bytes.

    :param quantize: 'int8', or 'none' to keep float32.
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
    write_safetensors(out, tensors, metadata)
    return os.path.getsize(out)
