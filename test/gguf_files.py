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

"""Small GGUF files: a header as llama.cpp's models have it, with no weights to speak of."""

from pathlib import Path
import struct

KINDS = {bool: 7, int: 4, float: 6, str: 8}
TEXT = {
    'general.architecture': 'llama', 'llama.block_count': 30, 'llama.embedding_length': 576,
    'llama.attention.head_count': 9, 'llama.attention.head_count_kv': 3,
    'llama.feed_forward_length': 1536, 'tokenizer.ggml.tokens': ['a', 'b', 'c']}
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


def gguf_bytes(metadata: dict, tensors: int = 1, version: int = 3) -> bytes:
    """Return a GGUF file with these keys, and tensors of 32 bytes each."""
    parts = [b'GGUF', struct.pack('<IQQ', version, tensors, len(metadata))]
    for key, value in metadata.items():
        parts.append(_string(key))
        if isinstance(value, list):
            kind = KINDS[type(value[0])]
            parts.append(struct.pack('<IIQ', 9, kind, len(value)))
            parts += [_plain(item) for item in value]
        else:
            parts += [struct.pack('<I', KINDS[type(value)]), _plain(value)]
    for index in range(tensors):
        parts.append(_string(f'weight.{index}') + struct.pack('<IQIQ', 1, 8, 0, 32 * index))
    return b''.join(parts) + bytes(64 * tensors)


def write_model(folder: Path) -> tuple[str, str]:
    """Write a text model and its projector; return their paths."""
    model, projector = folder / 'model.gguf', folder / 'mmproj.gguf'
    model.write_bytes(gguf_bytes(TEXT))
    projector.write_bytes(gguf_bytes(PROJECTOR))
    return str(model), str(projector)
