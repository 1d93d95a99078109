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
Average the weights of checkpoints that went on from the same ones.

Such an average fits new pictures better than its parts. `jetcap evaluate --calibrate` gives it a
score again, `jetcap pack` packs it. The exit code is 0 only if the file was written.
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `jetcap average`."""
    parser.add_argument('checkpoints', nargs='+', metavar='CHECKPOINT', help='.pth or packed file')
    parser.add_argument('--parts', metavar='PARTS',
                        help='comma-separated: the part of each, together 1 (default: the same)')
    parser.add_argument('--out', required=True, metavar='FILE.pth', help='the file to write')


def run(args: argparse.Namespace) -> int:
    """Write the average and say of what it is."""
    from ..errors import UserError
    from ..outputs import require_file
    from ..training.checkpoint import average_checkpoints
    count = len(args.checkpoints)
    try:
        parts = [float(part) for part in args.parts.split(',')] if args.parts else [
            1 / count] * count
    except ValueError as error:
        raise UserError(f'--parts {args.parts}: {error}') from None
    if len(parts) != count:
        raise UserError(f'--parts {args.parts}: {len(parts)} parts of {count} checkpoints')
    if not abs(sum(parts) - 1) < 1e-6:
        raise UserError(f'--parts {args.parts}: together {sum(parts):.6g}, expected 1')
    if not args.out.endswith('.pth'):
        raise UserError(f'--out {args.out}: expected a name that ends in .pth')
    require_file(args.out)
    average_checkpoints(args.checkpoints, parts, args.out)
    print(f'{args.out}: ' + ' + '.join(
        f'{part:.4g} {path}' for part, path in zip(parts, args.checkpoints)))
    return 0
