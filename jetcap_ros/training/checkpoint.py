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

"""Write checkpoints as training makes them: a torch dict, read again with weights_only."""

from collections.abc import Mapping, Sequence
import os
from typing import Any

import torch

from ..errors import UserError
from ..images.limits import check_input_size, SIZE
from ..models.architectures import norm_epsilon, SqueezeExcitation
from ..models.checkpoint import Checkpoint, read_checkpoint
from ..models.encoder import MobileNetEncoder
from ..models.errors import CheckpointError
from ..models.mobilenet import MobileNetCaptioningModel, WordLayers
from ..models.vocabulary import Vocabulary
from ..models.weight_reader import WeightReader


def save_atomically(contents: Mapping[str, Any], path: str) -> None:
    """Write a file that is there as a whole or not at all, whenever the process is killed."""
    torch.save(dict(contents), path + '.new')
    os.replace(path + '.new', path)


def checkpoint_contents(
        model: MobileNetCaptioningModel, vocabulary: Vocabulary) -> dict[str, Any]:
    """
    Return a model as the dict of a `.pth` file.

    A folded encoder gets batch normalization again, one that does nothing but add its bias.
    """
    decoder = model.decoder
    state = {
        name: tensor.detach().cpu().contiguous().clone()
        for name, tensor in model.state_dict().items()}
    for name in ('words.usual', 'words.least'):
        if model.words is not None and not state[name].any():
            del state[name]
    if model.encoder.folded:
        for layer, norm in _normalized(model.encoder):
            bias = state.pop(layer + '.bias')
            state[norm + '.weight'] = torch.ones_like(bias)
            state[norm + '.bias'] = bias
            state[norm + '.running_mean'] = torch.zeros_like(bias)
            state[norm + '.running_var'] = torch.full_like(
                bias, 1 - norm_epsilon(model.encoder.architecture))
            state[norm + '.num_batches_tracked'] = torch.zeros((), dtype=torch.long)
    return {
        'model_state_dict': state,
        **_words_of(vocabulary),
        'encoder': model.encoder.architecture,
        'embed_dim': decoder.embedding.embedding_dim,
        'decoder_dim': decoder.init_h.out_features,
        'attention_dim': decoder.encoder_att.out_features,
        'image_size': model.image_size,
    }


def build_model(contents: Mapping[str, Any]) -> MobileNetCaptioningModel:
    """
    Return the model that `checkpoint_contents` gave, its encoder folded.

    Batch normalization keeps its statistics in training, so that it can be part of the
    convolutions: a step of the encoder takes 0.6 of the time.
    """
    encoder = MobileNetEncoder(contents['encoder'], folded=True)
    model = MobileNetCaptioningModel(
        len(contents['word_map']), contents['embed_dim'], contents['decoder_dim'],
        contents['attention_dim'], encoder,
        image_size=check_input_size(contents.get('image_size', SIZE)))
    hidden = contents['model_state_dict'].get('words.hidden.bias')
    if hidden is not None:
        model.words = WordLayers(len(contents['word_map']), encoder.out_channels, len(hidden))
    load_weights(model, contents)
    return model


def load_weights(model: MobileNetCaptioningModel, contents: Mapping[str, Any]) -> None:
    """Load the weights of a `.pth` file into a model with a folded encoder."""
    state = dict(contents['model_state_dict'])
    epsilon = norm_epsilon(model.encoder.architecture)
    for layer, norm in _normalized(model.encoder):
        gain, bias, mean, variance = (
            state.pop(f'{norm}.{name}').double()
            for name in ('weight', 'bias', 'running_mean', 'running_var'))
        state.pop(norm + '.num_batches_tracked', None)
        gain = gain / torch.sqrt(variance + epsilon)
        weight = state[layer + '.weight']
        state[layer + '.weight'] = (weight * gain[:, None, None, None]).to(weight.dtype)
        state[layer + '.bias'] = (bias - mean * gain).to(weight.dtype)
    model.load_state_dict(state)


def add_words(contents: dict[str, Any], vocabulary: Vocabulary) -> None:
    """
    Give the contents of a `.pth` file a vocabulary that begins with its own.

    What a new word means is the mean of all words, it is as unlikely as the least likely one, and
    the word detector expects it nowhere: training has to teach the rest.
    """
    state, count = contents['model_state_dict'], len(vocabulary) - len(contents['word_map'])
    for name in (
            'decoder.embedding.weight', 'decoder.fc.weight', 'decoder.fc.bias',
            'words.out.weight', 'words.out.bias', 'words.usual', 'words.least'):
        rows = state.get(name)
        if rows is None:  # without a word detector
            continue
        if name.startswith('words.out'):
            row = torch.zeros_like(rows[0])
        else:
            row = rows.mean(dim=0) if rows.ndim == 2 else rows.min()
        state[name] = torch.cat([rows, row.expand(count, *row.shape)])
    contents.update(_words_of(vocabulary))


def _words_of(vocabulary: Vocabulary) -> dict[str, Any]:
    """Return what a `.pth` file says of its vocabulary."""
    return {
        'word_map': dict(vocabulary.word_map), 'rev_word_map': dict(enumerate(vocabulary.words)),
        'vocab_size': len(vocabulary)}


def without_words(contents: dict[str, Any]) -> None:
    """Take the word detector out of the contents of a `.pth` file."""
    contents['model_state_dict'] = {
        name: tensor for name, tensor in contents['model_state_dict'].items()
        if not name.startswith('words.')}


def _normalized(encoder: MobileNetEncoder) -> list[tuple[str, str]]:
    """Return the names of the convolutions and of their batch normalization."""
    return [
        (f'encoder.{layer.name}', f'encoder.{layer.norm}')
        for block in encoder.blocks for layer in block.layers
        if not isinstance(layer, SqueezeExcitation)]


def load_checkpoint(path: str) -> dict[str, Any]:
    """
    Return what `checkpoint_contents` gave, from a `.pth` or a packed file.

    :raises UserError: if it is neither, or damaged.
    """
    try:
        if path.endswith('.safetensors'):
            return unpack(read_checkpoint(path))
        contents: dict[str, Any] = torch.load(path, map_location='cpu', weights_only=True)
        build_model(contents)
        return contents
    except CheckpointError as error:
        raise UserError(str(error)) from None
    except Exception as error:  # torch raises whatever the damage trips
        raise UserError(
            f'{path}: not a checkpoint that `jetcap train` wrote '
            f'({type(error).__name__}: {str(error).splitlines()[0]})') from None


def unpack(packed: Checkpoint) -> dict[str, Any]:
    """Return a packed file as the dict of a `.pth` file, to train it on."""
    encoder = MobileNetEncoder(packed.architecture, packed.blocks, folded=True)
    model = MobileNetCaptioningModel(
        len(packed.vocabulary), packed.embed_dim, packed.decoder_dim, packed.attention_dim,
        encoder, image_size=packed.image_size)
    if packed.words:
        model.words = WordLayers(
            len(packed.vocabulary), encoder.out_channels, *packed.words['hidden.bias'])
    with WeightReader(packed) as reader:
        model.load_state_dict({
            name: torch.from_numpy(reader.array(name))
            for name in packed.parameter_shapes()})
    return checkpoint_contents(model, packed.vocabulary)


def average_checkpoints(paths: Sequence[str], parts: Sequence[float], out: str) -> None:
    """
    Write the weighted average of checkpoints of the same model and vocabulary.

    Runs that went on from the same weights can be averaged, and the average fits new pictures
    better than they do (Wortsman et al. 2022, "Model soups"); averaged with the weights they went
    on from, they keep more of what those knew (Wortsman et al. 2022, "Robust fine-tuning").

    :param paths: `.pth` or packed files; their calibrations are not those of the average.
    :param parts: of each checkpoint in the average, together 1.
    :raises UserError: if one cannot be read, or is of another model or vocabulary.
    """
    contents = [load_checkpoint(path) for path in paths]
    vocabulary = Vocabulary.from_map(contents[0]['word_map'])
    # Folded, so that weights and batch normalization are averaged together.
    average, *others = [build_model(c) for c in contents]
    shapes = {name: tensor.shape for name, tensor in average.named_parameters()}
    for path, content, model in zip(paths[1:], contents[1:], others):
        if Vocabulary.from_map(content['word_map']).words != vocabulary.words:
            raise UserError(f'{path}: not the vocabulary of {paths[0]}')
        if {name: tensor.shape for name, tensor in model.named_parameters()} != shapes:
            raise UserError(f'{path}: not the encoder and sizes of {paths[0]}')
        if model.image_size != average.image_size:
            raise UserError(f'{path}: not the image_size of {paths[0]}')
    with torch.no_grad():
        for tensor, *tensors in zip(*(model.parameters() for model in (average, *others))):
            # As differences, so that what no run has changed stays as it is to the last bit.
            tensor += sum(part * (other - tensor) for part, other in zip(parts[1:], tensors))
    if average.words is not None:
        if not all('words.usual' in content['model_state_dict'] for content in contents):
            average.words.usual.data.zero_()
        # Counted, not learned: the last one's count.
        for content in contents:
            least = content['model_state_dict'].get('words.least')
            if least is not None:
                average.words.least.data.copy_(least)
    save_atomically(checkpoint_contents(average, vocabulary), out)
