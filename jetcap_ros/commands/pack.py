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
Turn a `.pth` checkpoint into a packed file.

A packed file is safetensors: int8 weights with per-channel scales, the vocabulary and the
architecture. Both models read it, the simple one reads nothing else, and nothing in it can be
executed. The exit code is 0 only if the file was written.
"""

import argparse
import os


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument('checkpoint', metavar='FILE.pth', help='the checkpoint to read')
    parser.add_argument(
        '--out', metavar='FILE.safetensors',
        help='the file to write (default: beside the checkpoint, with the same stem)')
    parser.add_argument(
        '--quantize', choices=('int8', 'none'), default='int8',
        help='int8 (default), or none to keep float32')


def run(args: argparse.Namespace) -> int:
    """Write the packed file and say what is in it."""
    from jetcap_ros.errors import UserError
    from jetcap_ros.models.errors import CheckpointError
    from jetcap_ros.models.checkpoint import read_checkpoint, sha256
    from jetcap_ros.models.packed import pack
    from jetcap_ros.outputs import require_file
    out = args.out or os.path.splitext(args.checkpoint)[0] + '.safetensors'
    try:
        checkpoint = read_checkpoint(args.checkpoint)
        if os.path.exists(out) and os.path.samefile(out, checkpoint.path):
            raise UserError(f'{out} is the checkpoint itself: name another file with --out')
        require_file(out)
        size = pack(checkpoint, out, args.quantize)
    except CheckpointError as error:
        raise UserError(str(error)) from error
    except OSError as error:
        raise UserError(f'{error.filename or out}: {error.strerror}') from error
    except ImportError as error:
        raise UserError(
            f'{error}; packing a .pth needs torch: pip install torch'
        ) from error
    print(
        f'{out}: {size / 1e6:.1f} MB (from {os.path.getsize(checkpoint.path) / 1e6:.1f} MB), '
        f'{checkpoint.architecture}, {len(checkpoint.vocabulary)} words, '
        f'quantize {args.quantize}\nsha256 {sha256(out)}')
    return 0
