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
Caption pictures.

Prints one line a picture: its name, a tab, the caption. The exit code is 0 only if every picture
was captioned; one that cannot be read is told, and the next follows.
"""

import argparse
import dataclasses
import json
from typing import Any, TYPE_CHECKING

if TYPE_CHECKING:
    from jetcap_ros.engine.settings import CaptionerSettings


def add_engine_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments that choose and bound the model, as the node's parameters do."""
    parser.add_argument(
        '--model', choices=('server', 'mobilenet', 'simple'), default='mobilenet',
        help='mobilenet (torch, default), simple (OpenCV and NumPy, a fraction of the memory) or '
             "server (a vision-language model's, see below)")
    parser.add_argument(
        '--fallback', choices=('mobilenet', 'simple', 'none'), default='simple',
        help='what takes over where the model cannot run (default: %(default)s)')
    parser.add_argument(
        '--checkpoint', metavar='FILE', default='', help='default: the one that is shipped')
    parser.add_argument(
        '--beam', type=int, default=5, help='beam size; 1 is greedy (default: %(default)s)')
    parser.add_argument(
        '--max-length', type=int, default=20, help='in words (default: %(default)s)')
    parser.add_argument(
        '--quantize', choices=('int8', 'none'), default='int8',
        help='weights of the full model (default: %(default)s)')
    parser.add_argument(
        '--device', choices=('cpu', 'cuda', 'auto'), default='cpu',
        help='where the full model runs (default: %(default)s)')
    parser.add_argument(
        '--runtime', choices=('auto', 'opencv', 'onnxruntime'), default='auto',
        help='what the simple model runs in (default: the fastest here of what is installed)')
    parser.add_argument(
        '--threads', type=int, default=0, metavar='N', help='0: all cores (default)')
    add_server_arguments(parser)


def add_server_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `--model server`, as the node's parameters have them."""
    group = parser.add_argument_group(
        '--model server', 'One that runs (--server-url), a command that starts one, or '
        'llama-server with --checkpoint MODEL.gguf and --projector.')
    group.add_argument(
        '--server-url', metavar='URL', default='', help='http://HOST:PORT or unix:PATH')
    group.add_argument('--server-command', metavar='WORDS', default='', help='run without a shell')
    group.add_argument(
        '--server-binary', metavar='FILE', default='', help='llama-server (default: on PATH)')
    group.add_argument(
        '--projector', metavar='FILE', default='', help='the mmproj GGUF of the checkpoint')
    group.add_argument(
        '--server-model', metavar='NAME', default='', help='where the server has several')
    group.add_argument(
        '--server-image-size', type=int, default=384, metavar='N',
        help='longer side of the picture it is sent, in pixels (default: %(default)s)')
    group.add_argument(
        '--prompt', metavar='TEXT', default='', help='default: ask for one plain sentence')
    group.add_argument(
        '--timeout', type=float, metavar='S',
        help='of a caption, in seconds (default: 10, of a server 120)')


def server_settings(args: argparse.Namespace) -> dict[str, Any]:
    """Return the fields of CaptionerSettings that the arguments of a server give."""
    from jetcap_ros.engine.settings import DEFAULT_PROMPT, MAX_PROMPT, SERVER_IMAGE_SIZES
    from jetcap_ros.errors import UserError
    low, high = SERVER_IMAGE_SIZES
    if not low <= args.server_image_size <= high:
        raise UserError(f'--server-image-size {args.server_image_size}: expected {low} to {high}')
    if len(args.prompt) > MAX_PROMPT:
        raise UserError(f'--prompt: expected at most {MAX_PROMPT} characters')
    timeout = args.timeout or (120.0 if args.model == 'server' else 10.0)
    if timeout <= 0:
        raise UserError(f'--timeout {timeout:g}: expected more than 0')
    return {
        'server_url': args.server_url, 'server_command': args.server_command,
        'server_binary': args.server_binary, 'projector': args.projector,
        'server_model': args.server_model, 'server_image_size': args.server_image_size,
        'prompt': args.prompt.strip() or DEFAULT_PROMPT, 'inference_timeout_s': timeout}


def engine_settings(args: argparse.Namespace) -> 'CaptionerSettings':
    """Return the CaptionerSettings of parsed arguments."""
    from jetcap_ros.engine.settings import CaptionerSettings, MAX_BEAM_SIZE, MAX_LENGTH
    from jetcap_ros.errors import UserError
    if not 1 <= args.beam <= MAX_BEAM_SIZE:
        raise UserError(f'--beam {args.beam}: expected 1 to {MAX_BEAM_SIZE}')
    if not 1 <= args.max_length <= MAX_LENGTH:
        raise UserError(f'--max-length {args.max_length}: expected 1 to {MAX_LENGTH}')
    return CaptionerSettings(
        model=args.model, fallback=args.fallback, checkpoint=args.checkpoint,
        beam_size=args.beam, max_length=args.max_length, quantize=args.quantize,
        device=args.device, runtime=args.runtime, num_threads=max(0, args.threads),
        **server_settings(args))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument('files', metavar='FILE', nargs='+', help='a picture OpenCV can read')
    parser.add_argument('--json', action='store_true', help='print a JSON object a picture')
    add_engine_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Print the caption of each picture; 1 if one of them could not be read."""
    import sys

    from jetcap_ros.engine.captioner import Captioner, CaptionerError
    from jetcap_ros.errors import UserError
    from jetcap_ros.images.picture import read_picture

    def log(severity: str, text: str) -> None:
        print(f'jetcap caption: {severity}: {text}', file=sys.stderr)

    failed = 0
    with Captioner(engine_settings(args), log=log) as captioner:
        try:
            captioner.configure()
        except CaptionerError as error:
            raise UserError(str(error)) from error
        for path in args.files:
            try:
                picture = read_picture(path)
            except UserError as error:
                log('error', str(error))
                failed += 1
                continue
            try:
                caption = captioner.caption(picture)
            except CaptionerError as error:
                raise UserError(str(error)) from error
            if args.json:
                values = dataclasses.asdict(caption)
                if caption.attention is not None:
                    values['attention'] = caption.attention.tolist()
                print(json.dumps({'file': path, **values}), flush=True)
            else:
                print(f'{path}\t{caption.text}', flush=True)
    if failed:
        log('error', f'{failed} of {len(args.files)} pictures could not be read')
    return 1 if failed else 0
