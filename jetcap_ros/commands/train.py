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
Train a captioner on captioned pictures.

CAPTIONS is a JSON lines file (file, split, captions), Flickr8k's captions.txt or a COCO json;
IMAGES is the folder its file names are relative to. Stages, in the order of the configuration:
`text` (the decoder learns from sentences alone), `frozen` (the encoder stays as it is),
`fine-tune` (its late blocks learn too), `self-critical` (the decoder learns to score high in
CIDEr-D), `words` (the word detector). Ended at any time, a run goes on where it was when the same
command is given again.

A picture that is missing or cannot be read is told and left out, as are captions without a word;
where most are, nothing is trained. The exit code is 0 only if nothing was left out.
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `jetcap train`."""
    parser.add_argument('captions', metavar='CAPTIONS', nargs='+',
                        help="files of captions; of a picture, the last file's are taken")
    parser.add_argument('images', metavar='IMAGES', help='folder of pictures')
    parser.add_argument('--out', required=True, metavar='DIR',
                        help='folder for checkpoints, log.csv and curves.png')
    parser.add_argument('--config', metavar='FILE', help='YAML file of settings')
    parser.add_argument('--stages', metavar='NAMES',
                        help='comma-separated: only these stages, default settings for new ones')
    parser.add_argument('--set', action='append', default=[], metavar='NAME=VALUE',
                        help='a setting (encoder=mobilenet_v2) or one of a stage '
                             '(frozen.epochs=5); may be repeated')
    parser.add_argument('--encoder-weights', metavar='FILE',
                        help="torchvision's weights of the encoder; without it torchvision "
                             "downloads them; 'none': random ones")
    parser.add_argument('--init', metavar='FILE',
                        help='start from this checkpoint (.pth, or packed), with its vocabulary '
                             'and the words of the captions that it does not know')
    parser.add_argument('--teacher', action='append', default=[], metavar='FILE',
                        help='a trained checkpoint that stages with `distillation` learn from; '
                             'may be repeated')
    parser.add_argument('--text', metavar='FILE',
                        help='sentences without pictures, one a line, for the stage `text`')
    parser.add_argument('--objects', action='append', default=[], metavar='FILE',
                        help='objects that a detector saw in the pictures (python -m '
                             'jetcap_ros.training.objects), more words for the word detector; '
                             'may be repeated: of a picture, the last file that names it counts')
    parser.add_argument('--glove', metavar='FILE', help='word vectors to start from, as text')
    parser.add_argument('--cache', metavar='DIR',
                        help='folder for features of frozen blocks (default: OUT/cache; may be '
                             'deleted afterwards)')
    parser.add_argument('--device', default='cpu', help='cpu or cuda (default: cpu)')
    parser.add_argument('--threads', type=int, default=0, help='of the processor (0: all)')
    parser.add_argument('--save-every', type=float, default=60.0, metavar='SECONDS',
                        help='how much is lost at most when killed (default: 60)')


def run(args: argparse.Namespace) -> int:
    """Train, and print the path of the trained checkpoint."""
    from ..errors import UserError
    from ..outputs import require_folder
    if not args.save_every >= 0:  # nan is not
        raise UserError(f'--save-every {args.save_every}: expected 0 or more seconds')
    require_folder(args.out)
    if args.cache:
        require_folder(args.cache, '--cache')
    from ..training.run import train
    path, whole = train(args)
    print(path)
    return 0 if whole else 1
