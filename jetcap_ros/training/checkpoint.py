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

import os
from typing import Any, Dict, Mapping, Sequence

import torch

from ..models.architectures import norm_epsilon, SqueezeExcitation
from ..models.checkpoint import Checkpoint, WeightReader
from ..models.mobilenet import MobileNetCaptioningModel
from ..models.vocabulary import Vocabulary


def save_atomically(contents: Mapping[str, Any], path: str) -> None:
    """Write a file that is there as a whole or not at all, whenever the process is killed."""
    torch.save(dict(contents), path + '.new')
    os.replace(path + '.new', path)


def checkpoint_contents(
        model: MobileNetCaptioningModel, vocabulary: Vocabulary) -> Dict[str, Any]:
    """Return a model as the dict of a `.pth` file."""
    decoder = model.decoder
    return {
        'model_state_dict': {
            name: tensor.detach().cpu().contiguous().clone()
            for name, tensor in model.state_dict().items()},
        'word_map': dict(vocabulary.word_map),
        'rev_word_map': dict(enumerate(vocabulary.words)),
        'vocab_size': len(vocabulary),
        'encoder': model.encoder.architecture,
        'embed_dim': decoder.embedding.embedding_dim,
        'decoder_dim': decoder.init_h.out_features,
        'attention_dim': decoder.encoder_att.out_features,
    }


def unpack(packed: Checkpoint) -> Dict[str, Any]:
    """
    Return a packed file as the dict of a `.pth` file, to train it on.

    Its convolutions have a bias where training has batch normalization; that becomes one which
    does nothing else.
    """
    model = MobileNetCaptioningModel(
        len(packed.vocabulary), packed.embed_dim, packed.decoder_dim, packed.attention_dim,
        packed.architecture)
    state = model.state_dict()
    norms = {
        f'encoder.{layer.name}.bias': f'encoder.{layer.norm}'
        for block in packed.blocks for layer in block.layers
        if not isinstance(layer, SqueezeExcitation)}
    with WeightReader(packed) as reader:
        for name in packed.parameter_shapes():
            value = torch.from_numpy(reader.array(name).copy())
            if name in norms:
                norm = norms[name]
                state[norm + '.weight'] = torch.ones_like(value)
                state[norm + '.running_mean'] = torch.zeros_like(value)
                state[norm + '.running_var'] = torch.full_like(
                    value, 1 - norm_epsilon(packed.architecture))
                name = norm + '.bias'
            state[name] = value
    model.load_state_dict(state)
    return checkpoint_contents(model, packed.vocabulary)


def average_checkpoints(paths: Sequence[str], parts: Sequence[float], out: str) -> None:
    """
    Write the weighted average of checkpoints of the same model and vocabulary.

    Runs that went on from the same weights can be averaged, and the average fits new pictures
    better than they do (Wortsman et al. 2022, "Model soups"); averaged with the weights they went
    on from, they keep more of what those knew (Wortsman et al. 2022, "Robust fine-tuning").

    :param parts: of each checkpoint in the average, together 1.
    """
    contents = [torch.load(path, map_location='cpu', weights_only=True) for path in paths]
    states = [c['model_state_dict'] for c in contents]
    for name, tensor in states[0].items():
        if tensor.is_floating_point():
            # As differences, so that what no run has changed stays as it is to the last bit.
            states[0][name] = tensor + sum(
                part * (state[name] - tensor) for part, state in zip(parts, states))
    save_atomically(contents[0], out)
