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
Score the captions of a checkpoint against those of people.

BLEU-1 to 4, METEOR, ROUGE-L and CIDEr x 100, by pycocoevalcap, for each source of the pictures
(METEOR and the PTB tokenizer need Java). With --out: the scores as JSON, the captions as JSON
lines and a page with the best, the worst and random pictures. A picture that cannot be read, or
that a server fails at, is told and left out: the exit code is 0 only if all were captioned.
"""

import argparse
import math

from .caption import add_server_arguments, server_settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `jetcap evaluate`."""
    parser.add_argument('checkpoint', metavar='CHECKPOINT',
                        help='.pth or packed file; with --model server its GGUF file, or - with '
                             '--server-url or --server-command')
    parser.add_argument('captions', metavar='CAPTIONS', help='file of captions, as for train')
    parser.add_argument('images', metavar='IMAGES', help='folder of pictures')
    parser.add_argument('--model', choices=('server', 'mobilenet', 'simple'),
                        default='mobilenet')
    parser.add_argument('--beam', type=int, default=5, help='beam size (default: 5)')
    parser.add_argument('--max-length', type=int, default=20, help='in words (default: 20)')
    parser.add_argument('--split', choices=('train', 'val', 'test'), default='val')
    parser.add_argument('--limit', type=int, default=0, metavar='N',
                        help='only the first N pictures')
    parser.add_argument('--quantize', choices=('int8', 'none'), default='int8')
    parser.add_argument('--length-penalty', type=float,
                        help="exponent of the length, instead of the checkpoint's")
    parser.add_argument('--block-ngram', type=int,
                        help="no run of so many words twice, instead of the checkpoint's")
    parser.add_argument('--say-once', type=int, choices=(0, 1),
                        help="1: no word but small ones comes twice, instead of the checkpoint's")
    parser.add_argument('--word-gain', type=float,
                        help="part of the word detector in the search, instead of the checkpoint's")
    parser.add_argument('--calibrate', action='store_true',
                        help='fit the score to these pictures, and store it with the options of '
                             'the search in CHECKPOINT (.pth)')
    parser.add_argument('--device', choices=('cpu', 'cuda', 'auto'), default='cpu')
    parser.add_argument('--runtime', choices=('auto', 'opencv', 'onnxruntime'), default='auto',
                        help='what the simple model runs in')
    parser.add_argument('--threads', type=int, default=0, help='of the processor (0: all)')
    parser.add_argument('--out', metavar='DIR', help='folder for results')
    add_server_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Evaluate and print a table."""
    from ..errors import UserError
    from ..engine.settings import CaptionerSettings, MAX_BEAM_SIZE, MAX_LENGTH
    from ..outputs import require_file, require_folder
    for name, value, most in (
            ('--beam', args.beam, MAX_BEAM_SIZE), ('--max-length', args.max_length, MAX_LENGTH)):
        if not 1 <= value <= most:
            raise UserError(f'{name} {value}: expected 1 to {most}')
    for name, number in (
            ('--length-penalty', args.length_penalty), ('--word-gain', args.word_gain)):
        if number is not None and not math.isfinite(number):
            raise UserError(f'{name} {number}: expected a number')
    of_search = {
        '--length-penalty': args.length_penalty, '--block-ngram': args.block_ngram,
        '--say-once': args.say_once, '--word-gain': args.word_gain,
        '--calibrate': args.calibrate or None}
    for name, chosen in of_search.items():
        if args.model == 'server' and chosen is not None:
            raise UserError(f'{name}: a server has a search of its own, which cannot be set')
    named = args.model != 'server' or args.checkpoint != '-'
    settings = CaptionerSettings(
        model=args.model, checkpoint=args.checkpoint if named else '',
        beam_size=args.beam, max_length=args.max_length, **server_settings(args))
    if args.out:
        require_folder(args.out)
    if args.calibrate:
        require_file(args.checkpoint, '--calibrate: CHECKPOINT')
    from ..training.evaluation import evaluate
    texts, whole = evaluate(args, settings)
    print('\n\n'.join(texts))
    return 0 if whole else 1
