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

"""Small checkpoints with random weights, and the plain loop they must caption like."""

import functools

import numpy as np
import torch
from torch import nn

torch.set_num_threads(1)  # more wait for each other on a busy machine


def torchvision_network(name):
    """Return what makes a network; to import it takes seconds, which not all tests need."""
    from torchvision import models
    return getattr(models, name)


def efficientnet(settings, wide, width_mult):
    """Return torchvision's MobileNetV2 in the sizes and with the kernels of an EfficientNet."""
    network = torchvision_network('mobilenet_v2')(
        width_mult=width_mult, norm_layer=functools.partial(nn.BatchNorm2d, eps=1e-3),
        inverted_residual_setting=settings)
    for block in (block for part in wide for block in network.features[part]):
        small = block.conv[1][0]
        block.conv[1][0] = nn.Conv2d(
            small.in_channels, small.out_channels, 5, small.stride, 2, groups=small.groups,
            bias=False)
    return network


efficientnet_lite0 = functools.partial(
    efficientnet, [
        [1, 16, 1, 1], [6, 24, 2, 2], [6, 40, 2, 2], [6, 80, 3, 2], [6, 112, 3, 1],
        [6, 192, 4, 2], [6, 320, 1, 1]], (slice(4, 6), slice(9, 16)))
efficientnet_lite2 = functools.partial(
    efficientnet, [
        [1, 16, 1, 1], [6, 24, 3, 2], [6, 48, 3, 2], [6, 88, 4, 2], [6, 120, 4, 1],
        [6, 208, 5, 2], [6, 352, 1, 1]], (slice(5, 8), slice(12, 21)))
EFFICIENTNETS = {
    'efficientnet_lite0': efficientnet_lite0, 'efficientnet_lite2': efficientnet_lite2}
LAYERS = {
    'embedding': nn.Embedding, 'decode_step': nn.GRUCell, 'init_h': nn.Linear, 'fc': nn.Linear,
    'encoder_att': nn.Linear, 'decoder_att': nn.Linear, 'full_att': nn.Linear}


@functools.lru_cache(maxsize=None)
def features(architecture, width=1.0, pruned=False, seed=0):
    """Return torchvision's encoder with random weights that give values around 1."""
    torch.manual_seed(seed)
    make = EFFICIENTNETS.get(architecture) or torchvision_network(architecture)
    network = make(width_mult=width).features
    if pruned:
        prune(network)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the mean of all batches
            nn.init.uniform_(module.weight, 0.7, 1.3)
            nn.init.uniform_(module.bias, -0.3, 0.3)
    with torch.no_grad():
        network.train()(torch.randn(2, 3, 224, 224))
    return network.eval()


def prune(network):
    """Take random channels away inside the blocks, so that odd numbers are left."""
    for block in network.modules():
        path = getattr(block, 'conv', None) or getattr(block, 'block', None)
        if not isinstance(path, nn.Sequential):
            continue
        layers = [(path.get_submodule(name.rpartition('.')[0]), name.rpartition('.')[2], module)
                  for name, module in path.named_modules()
                  if isinstance(module, (nn.Conv2d, nn.BatchNorm2d))]
        hidden = layers[-2][2].in_channels
        if layers[0][2].groups != 1:  # no expansion: its channels are the block's input
            continue
        left = hidden - 1 - int(torch.randint(max(1, hidden // 4), ()))
        for parent, name, module in layers[:-1]:
            if isinstance(module, nn.BatchNorm2d):
                setattr(parent, name, nn.BatchNorm2d(left, module.eps))
                continue
            sizes = [left if size == hidden else size
                     for size in (module.in_channels, module.out_channels)]
            if module is layers[0][2]:
                sizes = [module.in_channels, left]
            elif module is layers[-2][2]:
                sizes = [left, module.out_channels]
            setattr(parent, name, nn.Conv2d(
                *sizes, module.kernel_size, module.stride, module.padding,
                groups=left if module.groups > 1 else 1, bias=module.bias is not None))


def vocabulary(count=40):
    """Return a {word: index} map whose special tokens do not come first."""
    words = [f'w{i}' for i in range(count - 4)]
    words[3:3] = ['<pad>', '<start>', '<unk>', '<end>']
    return {word: index for index, word in enumerate(words)}


def decoder_state(encoder_dim, words=40, embed=13, decoder=35, attention=17, seed=0):
    """Return the parameters of a decoder, named as in a checkpoint."""
    torch.manual_seed(seed)
    sizes = {
        'embedding': (words, embed), 'decode_step': (embed + encoder_dim, decoder),
        'init_h': (encoder_dim, decoder), 'fc': (decoder, words),
        'encoder_att': (encoder_dim, attention), 'decoder_att': (decoder, attention),
        'full_att': (attention, 1)}
    state = {
        f'{name}.{key}': 2.5 * tensor for name, layer in LAYERS.items()
        for key, tensor in layer(*sizes[name]).state_dict().items()}
    state['fc.bias'] += 0.4 * torch.randn(words)
    return state


def checkpoint(
        architecture='mobilenet_v3_small', width=0.5, pruned=False, seed=0, prefix='encoder.',
        half=False, **sizes):
    """Return what training saves: the dict of a `.pth` file."""
    network = features(architecture, width, pruned)
    state = {prefix + name: tensor for name, tensor in network.state_dict().items()}
    channels = network[-1][0].out_channels
    state.update(
        (f'decoder.{name}', tensor)
        for name, tensor in decoder_state(channels, seed=seed, **sizes).items())
    if half:
        state = {name: t.half() if t.is_floating_point() else t for name, t in state.items()}
    word_map = vocabulary(sizes.get('words', 40))
    return {
        'model_state_dict': state, 'word_map': word_map,
        'rev_word_map': {index: word for word, index in word_map.items()},
        'vocab_size': len(word_map)}


def picture(seed=0, size=(224, 224)):
    """Return an RGB picture of coloured patches."""
    small = np.random.default_rng(seed).integers(0, 256, (7, 7, 3), np.uint8)
    rows = np.arange(size[0]) * 7 // size[0]
    columns = np.arange(size[1]) * 7 // size[1]
    return np.ascontiguousarray(small[rows][:, columns])


def plain_tokens(network, state, image, start, end, length=20):
    """
    Caption as a plain program would: one step after the other, greedily.

    :param network: the encoder, a torch module.
    :param state: the decoder's parameters.
    :param image: (224, 224, 3) uint8.
    """
    def linear(name, x):
        return nn.functional.linear(x, state[f'{name}.weight'], state[f'{name}.bias'])

    embed = state['embedding.weight'].shape[1]
    gru = nn.GRUCell(state['decode_step.weight_ih'].shape[1], len(state['init_h.bias']))
    gru.load_state_dict({
        name.partition('.')[2]: tensor for name, tensor in state.items()
        if name.startswith('decode_step.')})
    assert embed + state['init_h.weight'].shape[1] == gru.input_size
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    with torch.no_grad():
        cells = network((pixels - mean) / std).flatten(2)[0].T
        hidden = linear('init_h', cells.mean(dim=0))
        word, words = start, []
        while len(words) < length and word != end:
            scores = linear('full_att', torch.relu(
                linear('encoder_att', cells) + linear('decoder_att', hidden)))
            context = (torch.softmax(scores, dim=0) * cells).sum(dim=0)
            inputs = torch.cat([state['embedding.weight'][word], context])
            hidden = gru(inputs[None], hidden[None])[0]
            word = int(linear('fc', hidden).argmax())
            words.append(word)
    return words
