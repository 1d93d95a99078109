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
A vision-language model of random weights that a real llama-server loads: 1 MB, made when needed.

Of SmolVLM's form (a llama text model with an idefics3 projector), with a vocabulary of little
more than the 256 bytes. What it says is noise, the same each time.
"""

from pathlib import Path

from gguf_files import gguf_bytes
import numpy as np

TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{message['role'] | capitalize}}:"
    "{% if message['content'] is string %}{{message['content']}}{% else %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}{% endif %}"
    "<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}")
SPECIAL = [
    '<|im_start|>', '<|im_end|>', '<end_of_utterance>', '<fake_token_around_image>',
    '<global-img>', '<image>', *(f'<row_{r}_col_{c}>' for r in range(1, 7) for c in range(1, 7))]
WIDTH, HIDDEN, LAYERS, HEADS, KV_HEADS = 64, 128, 2, 4, 2
IMAGE, PATCH, SCALE = 512, 16, 4


def _byte_tokens() -> list[str]:
    """Return GPT-2's letters for the 256 bytes, in the order of the bytes."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


class _Weights:
    """Random matrices, and vectors of one value, by the names of llama.cpp."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self.tensors: dict[str, np.ndarray] = {}

    def matrix(self, name: str, *shape: int, dtype=np.float16) -> None:
        values = self._random.standard_normal(shape) / np.sqrt(shape[-1])
        self.tensors[f'{name}.weight'] = values.astype(dtype)

    def vector(self, name: str, size: int, value: float = 0.0) -> None:
        self.tensors[name] = np.full(size, value, np.float32)


def text_model(seed: int = 1, width: int = WIDTH) -> bytes:
    """Return the GGUF file of the text model."""
    tokens = [*_byte_tokens(), 2 * chr(266)]  # two line ends, which the projector wants
    count = len(tokens)
    weights = _Weights(seed)
    weights.matrix('token_embd', count + len(SPECIAL), width)
    weights.vector('output_norm.weight', width, 1.0)
    kv = width // HEADS * KV_HEADS
    for layer in range(LAYERS):
        block = f'blk.{layer}.'
        weights.vector(f'{block}attn_norm.weight', width, 1.0)
        weights.vector(f'{block}ffn_norm.weight', width, 1.0)
        for name, rows, columns in (
                ('attn_q', width, width), ('attn_k', kv, width), ('attn_v', kv, width),
                ('attn_output', width, width), ('ffn_gate', HIDDEN, width),
                ('ffn_up', HIDDEN, width), ('ffn_down', width, HIDDEN)):
            weights.matrix(block + name, rows, columns)
    return gguf_bytes({
        'general.architecture': 'llama', 'general.name': 'random',
        'llama.context_length': 8192, 'llama.embedding_length': width,
        'llama.block_count': LAYERS, 'llama.feed_forward_length': HIDDEN,
        'llama.attention.head_count': HEADS, 'llama.attention.head_count_kv': KV_HEADS,
        'llama.attention.layer_norm_rms_epsilon': 1e-5,
        'llama.rope.dimension_count': width // HEADS, 'llama.rope.freq_base': 100000.0,
        'llama.vocab_size': count + len(SPECIAL),
        'tokenizer.ggml.model': 'gpt2', 'tokenizer.ggml.pre': 'smollm',
        'tokenizer.ggml.tokens': tokens + SPECIAL,
        'tokenizer.ggml.token_type': [1] * count + [3] * len(SPECIAL),
        'tokenizer.ggml.merges': [f'{chr(266)} {chr(266)}'],
        'tokenizer.ggml.bos_token_id': count, 'tokenizer.ggml.eos_token_id': count + 2,
        'tokenizer.ggml.padding_token_id': count + 1, 'tokenizer.ggml.add_bos_token': False,
        'tokenizer.chat_template': TEMPLATE}, weights.tensors)


def projector(seed: int = 2, width: int = WIDTH) -> bytes:
    """Return the GGUF file of the vision encoder and its projector to a width."""
    weights = _Weights(seed)
    weights.matrix('v.patch_embd', WIDTH, 3, PATCH, PATCH, dtype=np.float32)
    weights.vector('v.patch_embd.bias', WIDTH)
    weights.matrix('v.position_embd', (IMAGE // PATCH) ** 2, WIDTH, dtype=np.float32)
    for layer in range(LAYERS):
        block = f'v.blk.{layer}.'
        for name in ('ln1', 'ln2'):
            weights.vector(f'{block}{name}.weight', WIDTH, 1.0)
            weights.vector(f'{block}{name}.bias', WIDTH)
        for name, rows, columns in (
                ('attn_q', WIDTH, WIDTH), ('attn_k', WIDTH, WIDTH), ('attn_v', WIDTH, WIDTH),
                ('attn_out', WIDTH, WIDTH), ('ffn_up', HIDDEN, WIDTH),
                ('ffn_down', WIDTH, HIDDEN)):
            weights.matrix(block + name, rows, columns)
            weights.vector(f'{block}{name}.bias', rows)
    weights.vector('v.post_ln.weight', WIDTH, 1.0)
    weights.vector('v.post_ln.bias', WIDTH)
    weights.matrix('mm.model.fc', width, WIDTH * SCALE * SCALE)
    return gguf_bytes({
        'general.architecture': 'clip', 'general.type': 'mmproj',
        'clip.has_vision_encoder': True, 'clip.projector_type': 'idefics3',
        'clip.vision.projection_dim': width, 'clip.vision.image_size': IMAGE,
        'clip.vision.patch_size': PATCH, 'clip.vision.embedding_length': WIDTH,
        'clip.vision.feed_forward_length': HIDDEN, 'clip.vision.block_count': LAYERS,
        'clip.vision.attention.head_count': HEADS,
        'clip.vision.attention.layer_norm_epsilon': 1e-6,
        'clip.vision.image_mean': [0.5] * 3, 'clip.vision.image_std': [0.5] * 3,
        'clip.vision.projector.scale_factor': SCALE,
        'clip.vision.preproc_image_size': IMAGE,  # one tile a picture, not SmolVLM's 17
        'clip.use_gelu': True}, weights.tensors)


def write_tiny_vlm(folder: Path) -> tuple[str, str]:
    """Write the model and its projector; return their paths."""
    paths = folder / 'tiny.gguf', folder / 'tiny-mmproj.gguf'
    for path, data in zip(paths, (text_model(), projector())):
        path.write_bytes(data)
    return str(paths[0]), str(paths[1])
