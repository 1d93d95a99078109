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

"""GGUF files, as small as a test wants them."""

from pathlib import Path
import struct

import numpy as np

KINDS = {bool: 7, int: 4, float: 6, str: 8}
TEXT = {
    'general.architecture': 'llama', 'llama.block_count': 30, 'llama.embedding_length': 576,
    'llama.attention.head_count': 9, 'llama.attention.head_count_kv': 3,
    'llama.feed_forward_length': 1536, 'llama.context_length': 8192,
    'tokenizer.ggml.tokens': ['a', 'b', 'c']}
PROJECTOR = {
    'general.architecture': 'clip', 'clip.has_vision_encoder': True,
    'clip.vision.image_size': 512, 'clip.vision.patch_size': 16,
    'clip.vision.embedding_length': 768, 'clip.vision.feed_forward_length': 3072,
    'clip.vision.attention.head_count': 12}


def _string(text: str) -> bytes:
    return struct.pack('<Q', len(text.encode())) + text.encode()


def _plain(value) -> bytes:
    if isinstance(value, str):
        return _string(value)
    return struct.pack({bool: '<?', int: '<I', float: '<f'}[type(value)], value)


def gguf_bytes(metadata: dict, tensors: dict | int = 1, version: int = 3) -> bytes:
    """Return a GGUF file with these keys and tensors; of a number, tensors of 32 bytes each."""
    if isinstance(tensors, int):
        tensors = {f'weight.{i}': np.zeros(8, np.float32) for i in range(tensors)}
    parts = [b'GGUF', struct.pack('<IQQ', version, len(tensors), len(metadata))]
    for key, value in metadata.items():
        parts.append(_string(key))
        if isinstance(value, list):
            # Whole numbers of a list are signed, as llama.cpp wants its token types.
            whole = type(value[0]) is int
            kind = 5 if whole else KINDS[type(value[0])]
            parts.append(struct.pack('<IIQ', 9, kind, len(value)))
            parts += [struct.pack('<i', item) if whole else _plain(item) for item in value]
        else:
            parts += [struct.pack('<I', KINDS[type(value)]), _plain(value)]
    offset = 0
    for name, values in tensors.items():
        parts += [_string(name), struct.pack(f'<I{values.ndim}Q', values.ndim, *values.shape[::-1]),
                  struct.pack('<IQ', {'float32': 0, 'float16': 1}[values.dtype.name], offset)]
        offset += _padded(values.nbytes)
    header = b''.join(parts)
    data = [values.tobytes().ljust(_padded(values.nbytes), b'\0') for values in tensors.values()]
    return b''.join([header.ljust(_padded(len(header)), b'\0'), *data])


def _padded(size: int) -> int:
    return -(-size // 32) * 32


def write_model(folder: Path) -> tuple[str, str]:
    """Write a text model and its projector; return their paths."""
    model, projector = folder / 'model.gguf', folder / 'mmproj.gguf'
    model.write_bytes(gguf_bytes(TEXT))
    projector.write_bytes(gguf_bytes(PROJECTOR))
    return str(model), str(projector)
