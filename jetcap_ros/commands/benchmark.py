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
Measure memory and time, and try out what happens when memory is short.

Runs the node, its worker and the flow they replace on this machine, and prints tables; progress
goes to stderr. Needs torch, torchvision and ROS. Other programs that keep the cores busy falsify
what is measured. The exit code is 0 only if all was measured and no target missed.
"""

import argparse
from pathlib import Path
from typing import Any

from .caption import add_server_arguments, server_settings

PARTS = ('memory', 'time', 'growth', 'endurance', 'idle', 'day')
# A bare node has about 85 MB, a bare import of torch 300 that cannot be dropped.
SWEEP_MB = (60, 80, 100, 120, 140, 160, 180, 200, 225, 250, 275, 300, 350, 400, 450, 500, 550, 600,
            700, 800, 900, 1000, 1100, 1200, 1300, 1400, 1500)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        'parts', nargs='*', metavar='PART',
        help=f'what to measure: {", ".join(PARTS)} (default: memory and time)')
    parser.add_argument(
        '--memory-sweep', action='store_true',
        help='run node and worker under memory limits instead, in a real cgroup (as root)')
    parser.add_argument(
        '--limits', type=int, nargs='+', metavar='MB', default=SWEEP_MB,
        help='limits of the sweep (default: 60 to 1500)')
    parser.add_argument(
        '--checkpoint', metavar='FILE', default='',
        help='a packed file for the node (default: the one that is shipped); with --projector, the '
             "server's GGUF file")
    parser.add_argument(
        '--model', choices=('server',), help='measure memory and time with a server too')
    parser.add_argument(
        '--runtime', choices=('auto', 'opencv', 'onnxruntime'), default='auto',
        help='what the simple model runs in (default: %(default)s); time compares all')
    parser.add_argument(
        '--quick', action='store_true', help='few repetitions: to try it, not to quote it')
    parser.add_argument(
        '--minutes', type=float, default=1.0,
        help='of captioning a camera of 720p at 30 Hz, or of each day (default: 1)')
    parser.add_argument('--json', metavar='FILE', help='write all figures')
    parser.add_argument('--chart', metavar='FILE.png', help='draw them (matplotlib)')
    add_server_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Measure, print, and return 1 if a target was missed or the node died in the sweep."""
    import importlib.util
    import math
    import os
    import signal
    import sys
    import tempfile

    from jetcap_ros.errors import UserError
    from jetcap_ros.outputs import require_file
    unknown = set(args.parts) - set(PARTS)
    if unknown:
        raise UserError(f'{unknown.pop()!r} is none of {", ".join(PARTS)}')
    if min(args.limits) < 20 or not 0 < args.minutes < math.inf:
        raise UserError('--limits are at least 20 MB, --minutes more than 0')
    if args.model and (
            args.memory_sweep or not {'memory', 'time'} & set(args.parts or PARTS)):
        raise UserError('--model server is measured with memory and time, and not with the others')
    if args.checkpoint and not os.path.isfile(args.checkpoint):
        raise UserError(f'{args.checkpoint}: no such file')
    if not importlib.util.find_spec('rclpy'):
        raise UserError('the node is measured too: source a ROS 2 installation first')
    if args.chart and not importlib.util.find_spec('matplotlib'):
        raise UserError('--chart needs matplotlib: pip install matplotlib')
    needed = [] if args.memory_sweep else ['torch', 'torchvision']
    missing = [name for name in needed if not importlib.util.find_spec(name)]
    if missing:
        raise UserError(f'the flow to compare with needs it: pip install {" ".join(missing)}')
    for option, path in (('--json', args.json), ('--chart', args.chart)):
        if path:
            require_file(path, option)
    checkpoint = os.path.abspath(args.checkpoint) if args.checkpoint else ''
    server = _server(args, checkpoint) if args.model else {}
    # The nodes are in sessions of their own: whoever ends us must not leave them behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if args.memory_sweep:
        return _sweep(args, checkpoint)
    with tempfile.TemporaryDirectory(prefix='jetcap-benchmark-') as folder:
        return _measure(args, checkpoint, Path(folder), server)


def _measure(
        args: argparse.Namespace, checkpoint: str, folder: Path, server: dict[str, Any]) -> int:
    import sys

    from jetcap_ros.benchmark import day, endurance, growth, idle, latency, memory, report, targets
    from jetcap_ros.benchmark.plan import make_plan
    from jetcap_ros.engine.settings import SHIPPED_CHECKPOINT
    from tqdm import tqdm
    own = checkpoint if checkpoint and not args.projector else SHIPPED_CHECKPOINT
    plan = make_plan(folder, own, args.runtime, args.quick, args.minutes, server)
    measurements = {
        'memory': memory, 'time': latency, 'growth': growth,
        'endurance': endurance, 'idle': idle, 'day': day}
    result = {'machine': report.machine(), 'quick': args.quick}
    for part in tqdm(args.parts or ['memory', 'time'], file=sys.stderr, desc='measuring'):
        result[part] = measurements[part].measure(plan)
    result['targets'] = targets.compare(result.get('memory'), result.get('time'))
    print('\n'.join(f'{name}: {value}' for name, value in result['machine'].items()), end='\n\n')
    for part, module in measurements.items():
        for table in module.tables(result[part]) if part in result else []:
            print(table.markdown())
    for table in targets.tables(result['targets']) if result['targets'] else []:
        print(table.markdown())
    if args.json:
        report.write_json(result, args.json)
    if args.chart and 'memory' in result:
        report.draw_memory(result['memory'], args.chart)
    return 0 if all(target['ok'] for target in result['targets']) else 1


def _server(args: argparse.Namespace, checkpoint: str) -> dict[str, Any]:
    """Return the parameters of a node with the server; no other model may stand in for it."""
    return {
        'model': 'server', 'fallback': 'none', 'checkpoint': checkpoint if args.projector else '',
        **server_settings(args)}


def _sweep(args: argparse.Namespace, checkpoint: str) -> int:
    from jetcap_ros.benchmark import report, sweep
    from jetcap_ros.benchmark.cgroup import CgroupUnavailable
    from jetcap_ros.errors import UserError
    try:
        points = sweep.measure(sorted(args.limits), checkpoint)
    except CgroupUnavailable as error:
        raise UserError(f'the sweep needs a real memory cgroup: {error}') from error
    for table in sweep.tables(points):
        print(table.markdown())
    if args.json:
        report.write_json({'machine': report.machine(), 'sweep': points}, args.json)
    if args.chart:
        report.draw_sweep(points, args.chart)
    return 1 if any(point['outcome'] == 'NODE DIED' for point in points) else 0
