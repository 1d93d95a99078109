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
Read what checkpoints say of themselves; no weights.

Two formats, one view. A `.pth` file is a torch dict as training writes it; a packed file is
safetensors, written by `jetcap pack`. Either gives the same parameters under the same names:
those of the encoder with batch normalization folded in, those of the decoder as they are.
This needs no framework; reading the weights of a `.pth` (`WeightReader`) needs torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
import json
import math
import os
from typing import Any

from .architectures import Block, describe_encoder, parameter_shapes, recognize_encoder
from .errors import CheckpointError, MAX_PARAMETERS, reading
from .safetensors_file import SafetensorsFile
from .search_options import check_options
from .vocabulary import Vocabulary
from ..images.limits import check_input_size, SIZE

PACKED_FORMAT = 'jetcap_ros'
PACKED_VERSION = '1'
WORD_PARAMETERS = (
    'mean', 'deviation', 'hidden.weight', 'hidden.bias', 'out.weight', 'out.bias', 'usual',
    'least')
FEW_VALUES = 64
LIKELY = 512  # words that an image may call for
DECODER_LAYERS = ('decode_step', 'init_h', 'fc', 'encoder_att', 'decoder_att', 'full_att')


@dataclass
class Checkpoint:
    """What a checkpoint says of itself; no weights."""

    path: str
    packed: bool
    architecture: str  # of the encoder
    blocks: list[Block]
    vocabulary: Vocabulary
    shapes: dict[str, tuple[int, ...]]  # of the decoder's parameters
    quantize: str = 'none'  # how the weights are stored: 'int8' or 'none'
    score_calibration: dict[str, float] = field(default_factory=dict)
    search: dict[str, float] = field(default_factory=dict)  # options of the beam search
    words: dict[str, tuple[int, ...]] = field(default_factory=dict)  # shapes of the word detector
    image_size: int = SIZE  # pixels, of both sides of what the encoder sees

    @property
    def embed_dim(self) -> int:
        """Return the size of a word's embedding."""
        return self.shapes['embedding.weight'][1]

    @property
    def decoder_dim(self) -> int:
        """Return the size of the decoder's state."""
        return self.shapes['init_h.weight'][0]

    @property
    def attention_dim(self) -> int:
        """Return the size of the attention's hidden layer."""
        return self.shapes['encoder_att.weight'][0]

    @property
    def few_words(self) -> bool:
        """Say whether the word detector can tell which words an image may call for."""
        return 'usual' in self.words and len(self.vocabulary) > 2 * LIKELY

    @property
    def encoder_dim(self) -> int:
        """Return the number of channels the encoder gives."""
        return self.blocks[-1].layers[-1].out_channels

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each parameter `WeightReader.read` knows, in the order of use."""
        shapes = parameter_shapes(self.blocks, folded=True)
        return {
            **{f'encoder.{name}': shape for name, shape in shapes.items()},
            **{f'decoder.{name}': shape for name, shape in self.shapes.items()},
            **{f'words.{name}': shape for name, shape in self.words.items()}}


def is_quantized(shape: Sequence[int]) -> bool:
    """
    Say whether int8 mode quantizes a parameter of this shape.

    Convolutions with few values a channel, the depthwise ones above all, stay float32: they are a
    hundredth of the weights, and lose most by it.
    """
    return len(shape) == 2 or len(shape) == 4 and math.prod(shape[1:]) >= FEW_VALUES


def sha256(path: str) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    import hashlib
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        for chunk in iter(lambda: file.read(1 << 20), b''):
            digest.update(chunk)
    return digest.hexdigest()


def read_checkpoint(path: str, expected_sha256: str = '') -> Checkpoint:
    """
    Read what a checkpoint says of itself: architecture, sizes, vocabulary.

    :raises CheckpointError: if it is missing, damaged, foreign, does not fit together or has
        another SHA-256 than expected. Nothing in it is executed.
    """
    path = os.path.expanduser(path)
    with reading(path):
        if not os.path.exists(path):
            raise CheckpointError('no such file')
        if not os.path.isfile(path):  # nor a FIFO, which would keep us waiting
            raise CheckpointError('not a file')
        if expected_sha256:
            actual = sha256(path)
            if actual != expected_sha256.strip().lower():
                raise CheckpointError(
                    f'SHA-256 is {actual}, expected {expected_sha256}; not loaded')
        with open(path, 'rb') as file:
            start = file.read(9)
        if start[:4] == b'PK\x03\x04':
            from .pth import read_pth_metadata
            return _from_pth(path, *read_pth_metadata(path))
        if start[8:9] == b'{':
            return _from_packed(path)
        raise CheckpointError(
            'neither a packed file (safetensors) nor a zip file as torch.save writes since 1.6')


def _from_pth(
        path: str, contents: Mapping[str, Any], shapes: dict[str, tuple[int, ...]]) -> Checkpoint:
    encoder, decoder, words = {}, {}, {}
    for name, shape in shapes.items():
        part, _, rest = name.partition('.')
        if part == 'encoder':
            encoder[rest[9:] if rest.startswith('features.') else rest] = shape
        elif part == 'decoder':
            decoder[rest] = shape
        elif part == 'words':
            words[rest] = shape
    if not encoder or not decoder:
        raise CheckpointError('model_state_dict has no encoder.* or no decoder.* parameters')
    vocabulary = Vocabulary.from_map(contents.get('word_map') or {})
    stated = contents.get('vocab_size', len(vocabulary))
    if type(stated) is not int or stated != len(vocabulary):
        raise CheckpointError(
            f'vocab_size is not the number of words in word_map, {len(vocabulary)}')
    reverse = contents.get('rev_word_map')
    if reverse is not None and (
            not isinstance(reverse, Mapping) or len(reverse) != len(vocabulary)
            or any(reverse.get(index, reverse.get(str(index))) != word
                   for index, word in enumerate(vocabulary.words))):
        raise CheckpointError('rev_word_map is not the reverse of word_map')
    architecture = recognize_encoder(encoder)
    blocks = describe_encoder(architecture, encoder)
    for name, shape in parameter_shapes(blocks).items():
        if encoder.get(name) != shape:
            raise CheckpointError(f'encoder.{name} has shape {encoder.get(name)}, not {shape}')
    return _checked(Checkpoint(
        path, False, architecture, blocks, vocabulary, decoder,
        score_calibration=_calibration(contents.get('score_calibration')),
        search=_search(contents.get('search')), words=words,
        image_size=check_input_size(contents.get('image_size', SIZE))))


def _from_packed(path: str) -> Checkpoint:
    file = SafetensorsFile(path)
    metadata, tensors = file.metadata, file.tensors
    if metadata.get('format') != PACKED_FORMAT:
        raise CheckpointError(
            'a safetensors file, but not one that `jetcap pack` wrote (no format in its metadata)')
    if metadata.get('version') != PACKED_VERSION:
        raise CheckpointError(
            f'packed format {metadata.get("version")}, this package reads {PACKED_VERSION}')
    vocabulary = Vocabulary(json.loads(metadata['words']))
    encoder, decoder, words = (
        {name[len(part):]: shape for name, (_, shape) in tensors.items()
         if name.startswith(part) and not name.endswith('.scale')}
        for part in ('encoder.', 'decoder.', 'words.'))
    blocks = describe_encoder(metadata['encoder'], encoder)
    quantize = metadata['quantize']
    if quantize not in ('int8', 'none'):
        raise CheckpointError(f'unknown quantization {quantize!r}')
    checkpoint = _checked(Checkpoint(
        path, True, metadata['encoder'], blocks, vocabulary, decoder, quantize,
        _calibration(json.loads(metadata.get('score_calibration', '{}'))),
        _search(json.loads(metadata.get('search', '{}'))), words,
        check_input_size(json.loads(metadata.get('image_size', str(SIZE))))))
    expected: dict[str, tuple[str, tuple[int, ...]]] = {}
    for name, shape in checkpoint.parameter_shapes().items():
        expected[name] = 'float32', shape
        if quantize == 'int8' and is_quantized(shape):
            expected[name] = 'int8', shape
            expected[name + '.scale'] = 'float32', shape[:1]
    for name in sorted({*expected, *tensors}):
        if expected.get(name) != tensors.get(name):
            raise CheckpointError(
                f'{name} is {_described(tensors.get(name))}, expected '
                f'{_described(expected.get(name))}')
    return checkpoint


def _described(tensor: tuple[str, tuple[int, ...]] | None) -> str:
    return f'{tensor[0]} of shape {tensor[1]}' if tensor else 'missing'


def _calibration(values: Any) -> dict[str, float]:
    numbers = _numbers('score_calibration', values)
    if numbers and not {'slope', 'intercept'} <= set(numbers):
        raise CheckpointError('score_calibration has no slope or no intercept')
    return numbers


def _search(values: Any) -> dict[str, float]:
    numbers = _numbers('search', values)
    check_options(
        numbers.get('length_penalty', 0), numbers.get('block_ngram', 0),
        numbers.get('word_gain', 0))
    return numbers


def _numbers(name: str, values: Any) -> dict[str, float]:
    if values is None:
        return {}
    if not isinstance(values, Mapping) or not all(
            isinstance(k, str) and isinstance(v, (int, float)) and math.isfinite(v)
            for k, v in values.items()):
        raise CheckpointError(f'{name} is not a map of names to numbers')
    return {name: float(value) for name, value in values.items()}


def _checked(checkpoint: Checkpoint) -> Checkpoint:
    """Return the checkpoint if its decoder's shapes fit together, its words and its encoder."""
    shapes = checkpoint.shapes
    expected = ['embedding.weight', 'decode_step.weight_ih', 'decode_step.weight_hh',
                'decode_step.bias_ih', 'decode_step.bias_hh']
    expected += [f'{n}.{kind}' for n in DECODER_LAYERS[1:] for kind in ('weight', 'bias')]
    for name in expected:
        if name not in shapes:
            raise CheckpointError(f'decoder.{name} is missing')
    extra = sorted(set(shapes) - set(expected))
    if extra:
        raise CheckpointError(f'decoder.{extra[0]} is unknown: the model is another one')
    # In one order, so that the same weights make the same file.
    shapes = checkpoint.shapes = {name: shapes[name] for name in expected}
    for name in ('embedding.weight', 'init_h.weight', 'encoder_att.weight'):
        if len(shapes[name]) != 2:
            raise CheckpointError(f'decoder.{name} has shape {shapes[name]}, not two sizes')
        if not min(shapes[name]):
            raise CheckpointError(f'decoder.{name} is empty')
    vocabulary_size, c = shapes['embedding.weight'][0], checkpoint.encoder_dim
    e, h, a = checkpoint.embed_dim, checkpoint.decoder_dim, checkpoint.attention_dim
    if vocabulary_size != len(checkpoint.vocabulary):
        raise CheckpointError(
            f'the vocabulary has {len(checkpoint.vocabulary)} words, but the weights are for '
            f'{vocabulary_size}: they do not belong together')
    v = vocabulary_size
    for name, shape in {
            'decode_step.weight_ih': (3 * h, e + c), 'decode_step.weight_hh': (3 * h, h),
            'decode_step.bias_ih': (3 * h,), 'decode_step.bias_hh': (3 * h,),
            'init_h.weight': (h, c), 'init_h.bias': (h,), 'fc.weight': (v, h), 'fc.bias': (v,),
            'encoder_att.weight': (a, c), 'encoder_att.bias': (a,),
            'decoder_att.weight': (a, h), 'decoder_att.bias': (a,),
            'full_att.weight': (1, a), 'full_att.bias': (1,)}.items():
        if shapes[name] != shape:
            raise CheckpointError(f'decoder.{name} has shape {shapes[name]}, expected {shape}')
    if checkpoint.words:
        _check_words(checkpoint)
    total = sum(math.prod(shape) for shape in checkpoint.parameter_shapes().values())
    if total > MAX_PARAMETERS:
        raise CheckpointError(f'{total} parameters; at most {MAX_PARAMETERS} are read')
    return checkpoint


def _check_words(checkpoint: Checkpoint) -> None:
    words, c = checkpoint.words, checkpoint.encoder_dim
    hidden = (words.get('hidden.bias') or (0,))[0]
    expected = dict(zip(WORD_PARAMETERS, (
        (c,), (c,), (hidden, c), (hidden,), (len(checkpoint.vocabulary), hidden),
        *[(len(checkpoint.vocabulary),)] * 3)))
    for name in {'usual', 'least'} - words.keys():  # of a detector of before they were known
        del expected[name]
    for name in sorted({*expected, *words}):
        if words.get(name) != expected.get(name) or not hidden:
            raise CheckpointError(
                f'words.{name} has shape {words.get(name)}, expected {expected.get(name)}')
    checkpoint.words = expected
