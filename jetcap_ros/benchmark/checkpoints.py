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

"""Checkpoints with random weights, of any size, for measurements that no training decides."""

import json
from pathlib import Path


def make_checkpoint(
        folder: Path, vocab_size: int = 4000, quantize: str = 'int8',
        encoder: str = 'mobilenet_v3_small', seed: int = 0,
        detector: bool = False) -> tuple[Path, Path]:
    """
    Write a `.pth` with random weights and its packed form, and return their paths.

    Its captions never end by themselves, so each has exactly as many words as asked for.

    :param detector: with a word detector, as shipped checkpoints have one.
    """
    import torch

    from ..models.checkpoint import read_checkpoint
    from ..models.mobilenet import MobileNetCaptioningModel, WordLayers
    from ..models.packed import pack
    torch.manual_seed(seed)
    model = MobileNetCaptioningModel(vocab_size, encoder=encoder)
    words = ['<pad>', '<start>', '<end>', '<unk>'] + [f'w{i}' for i in range(4, vocab_size)]
    with torch.no_grad():
        model.decoder.fc.weight.mul_(8)  # logits that differ, as a trained model's do
        model.decoder.fc.bias[:4] = -1e4
        if detector:
            model.words = WordLayers(vocab_size, model.encoder.out_channels, 512)
            model.words.usual.normal_()
    plain = folder / f'{encoder}_{vocab_size}.pth'
    torch.save({
        'model_state_dict': model.state_dict(), 'vocab_size': vocab_size,
        'word_map': {word: index for index, word in enumerate(words)},
        'rev_word_map': dict(enumerate(words))}, plain)
    packed = folder / f'{encoder}_{vocab_size}_{quantize}.safetensors'
    pack(read_checkpoint(str(plain)), str(packed), quantize)
    return plain, packed


def main(folder: str, options: str) -> None:
    """Make one in a process of its own, so that torch stays out of the one that measures."""
    plain, packed = make_checkpoint(Path(folder), **json.loads(options))
    print(json.dumps({'plain': str(plain), 'packed': str(packed)}))


if __name__ == '__main__':
    import sys
    main(*sys.argv[1:])
