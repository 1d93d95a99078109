"""Write packed checkpoints: safetensors with int8 weights, nothing executable."""

import json
import os
from typing import Dict

import numpy as np

from .checkpoint import PACKED_FORMAT, PACKED_VERSION, Checkpoint, WeightReader


def pack(checkpoint: Checkpoint, out: str, quantize: str = 'int8') -> int:
    """
    Write the packed form of a checkpoint and return its size in bytes.

    :param quantize: 'int8', or 'none' to keep float32.
    """
    from safetensors.numpy import save_file
    tensors: Dict[str, np.ndarray] = {}
    with WeightReader(checkpoint) as reader:
        for name in checkpoint.parameter_names():
            weight = reader.read(name, quantize)
            tensors[name] = np.ascontiguousarray(weight.values)
            if weight.scale is not None:
                tensors[name + '.scale'] = weight.scale
    metadata = {
        'format': PACKED_FORMAT, 'version': PACKED_VERSION, 'quantize': quantize,
        'encoder': checkpoint.architecture, 'words': json.dumps(checkpoint.vocabulary.words),
        'score_calibration': json.dumps(checkpoint.score_calibration),
        'search': json.dumps(checkpoint.search)}
    # A reader never sees half a file.
    partial = f'{out}.partial'
    try:
        save_file(tensors, partial, metadata)
        os.replace(partial, out)
    finally:
        if os.path.exists(partial):
            os.remove(partial)
    return os.path.getsize(out)
