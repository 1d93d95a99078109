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

"""Set up a training run from the arguments of `jetcap train`."""

import argparse
import dataclasses
import os
import sys
from typing import Any

import torch

from .caption_files import CaptionedPicture, read_caption_files
from .checkpoint import add_words, build_model, checkpoint_contents, load_checkpoint
from .config import check_stages, make_stage, read_config, TrainingConfig, write_config
from .dataset import prepare_vocabulary
from .decoding import initialize
from .embeddings import read_glove
from .encoder_weights import load_encoder_weights
from .pictures import present_pictures, readable_pictures
from .run_folder import RunFolder
from .sentences import read_objects, read_sentences
from .task import Split, Task
from .teachers import Teachers
from .trainer import run_stages
from ..errors import UserError
from ..images.limits import SIZE
from ..models.mobilenet import MobileNetCaptioningModel
from ..models.vocabulary import Vocabulary


def train(args: argparse.Namespace) -> tuple[str, bool]:
    """Run `jetcap train`; return the trained checkpoint, and whether nothing was left out."""
    if args.device.startswith('cuda') and not torch.cuda.is_available():
        raise UserError('--device cuda: torch finds no CUDA device here')
    if args.threads:
        torch.set_num_threads(args.threads)
    config = _configuration(args)
    pictures, whole = _read_pictures(args)
    cache = args.cache or os.path.join(args.out, 'cache')
    os.makedirs(args.out, exist_ok=True)
    os.makedirs(cache, exist_ok=True)
    _record(config, args.out)
    torch.manual_seed(config.seed)
    initial = _read_initial(args.init, config) if args.init else None
    known = Vocabulary.from_map(initial['word_map']).words if initial else ()
    vocabulary = prepare_vocabulary(pictures, config, known)
    if initial:
        add_words(initial, vocabulary)
        print(f'{args.init}: {len(known)} words, {len(vocabulary) - len(known)} of the captions '
              'are new', file=sys.stderr)
    else:
        model = MobileNetCaptioningModel(
            len(vocabulary), config.embed_dim, config.decoder_dim, config.attention_dim,
            config.encoder, image_size=config.image_size or SIZE)
        initialize(model.decoder, read_glove(args.glove, vocabulary, config.embed_dim)
                   if args.glove else None)
        weights = load_encoder_weights(config.encoder, args.encoder_weights)
        if weights is not None:
            model.encoder.load_state_dict(weights)
        initial = checkpoint_contents(model, vocabulary)
    objects = read_objects(args.objects)
    train, val = (
        Split([p for p in pictures if p.split == name], config, vocabulary, objects)
        for name in ('train', 'val'))
    task = Task(
        config, vocabulary, train, val, args.images, cache, args.device,
        Teachers(args.teacher, vocabulary, args.device),
        read_sentences(args.text, config, vocabulary) if args.text else [])
    path = run_stages(task, build_model(initial), RunFolder(
        args.out, config, vocabulary, args.device, args.save_every))
    return path, whole


def _read_pictures(args: argparse.Namespace) -> tuple[list[CaptionedPicture], bool]:
    """Return the captioned pictures of both splits, and whether nothing was left out."""
    found, left_out = read_caption_files(args.captions)
    # Validation is against what people say.
    wanted = [p for p in found if p.split == 'train' or p.split == 'val' and p.by_people]
    pictures = readable_pictures(present_pictures(wanted, args.images), args.images)
    for split in ('train', 'val'):
        if not any(p.split == split for p in pictures):
            raise UserError(f'{", ".join(args.captions)}: no picture is in the split {split!r}')
    captions = sum(len(picture.captions) for picture in pictures)
    print(f'{len(pictures)} of {len(wanted)} pictures were read, with {captions} captions',
          file=sys.stderr)
    return pictures, not left_out and len(pictures) == len(wanted)


def _configuration(args: argparse.Namespace) -> TrainingConfig:
    config = read_config(args.config, args.set)
    if args.stages:
        known = {stage.name: stage for stage in config.stages}
        config.stages = [known.get(n) or make_stage(n) for n in args.stages.split(',')]
        check_stages(config.stages)
    return config


def _record(config: TrainingConfig, out: str) -> None:
    """
    Write the configuration into the run's folder.

    :raises UserError: if the run there was made with other settings; stages it has not begun may
        be others.
    """
    path = os.path.join(out, 'config.yaml')
    state = os.path.join(out, 'state.pth')
    if os.path.exists(path) and os.path.exists(state):
        begun = torch.load(state, map_location='cpu', weights_only=True, mmap=True)['stage'] + 1
        if _until(read_config(path), begun) != _until(config, begun):
            raise UserError(
                f'{out} holds a run with other settings (see {path}): choose another --out, or '
                'delete it')
    write_config(config, path)


def _until(config: TrainingConfig, stages: int) -> TrainingConfig:
    return dataclasses.replace(config, stages=config.stages[:stages])


def _read_initial(path: str, config: TrainingConfig) -> dict[str, Any]:
    """Return a checkpoint to start from; the sizes of the configuration become its sizes."""
    contents = load_checkpoint(path)
    for name in ('encoder', 'embed_dim', 'decoder_dim', 'attention_dim'):
        setattr(config, name, contents[name])
    if config.image_size:
        contents['image_size'] = config.image_size
    return contents
