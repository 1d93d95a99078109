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
Time the simple model on libraries: `python -m jetcap_ros.benchmark.libraries PYTHON ...`.

Each Python is that of an environment with other versions of OpenCV, NumPy or ONNX Runtime; they
run this package's sources in turns.
"""

import argparse
import json
import os
from pathlib import Path
import sys
from typing import Any

from .processes import run_child
from .report import Table

SOURCES = Path(__file__).parents[2]
INSTALLED = """
import importlib.util, json
print(json.dumps([
    runtime for runtime, module in (('opencv', 'cv2'), ('onnxruntime', 'onnxruntime'))
    if importlib.util.find_spec(module)]))
"""
STEPS = ('encoder', 'image', 'caption')


def measure(
        pythons: list[str], checkpoint: str, rounds: int, repeats: int, threads: int = 0,
        processor: bool = False) -> list[dict[str, Any]]:
    """
    Return what the simple model takes in each Python in each of its runtimes.

    Milliseconds are the least of the rounds' medians: what else a machine does only adds to them.

    :param processor: of the processor's time, which a busy machine falsifies less.
    """
    from ..engine.worker_process import worker_environment
    environment = {**worker_environment(threads), 'PYTHONPATH': str(SOURCES)}
    runs: dict[tuple[str, str], list[dict[str, Any]]] = {
        (python, runtime): [] for python in pythons
        for runtime in run_child(['-c', INSTALLED], python=python)}
    for _ in range(rounds):
        for (python, runtime), results in runs.items():
            results.append(run_child(
                ['-m', 'jetcap_ros.benchmark.decoding', 'simple', checkpoint, '--beams',
                 '--runtime', runtime, '--repeats', str(repeats), '--threads', str(threads),
                 *(['--processor'] if processor else [])],
                environment=environment, python=python))
    first = next(iter(runs.values()))[0]
    return [
        {'python': python, 'runtime': runtime, 'libraries': results[0]['libraries'],
         'same_words': results[0]['text'] == first['text'],
         'worker_mb': _worker_mb(python, runtime, checkpoint, threads, environment),
         **{step: min(result[step]['p50'] for result in results) for step in STEPS}}
        for (python, runtime), results in runs.items()]


def _worker_mb(
        python: str, runtime: str, checkpoint: str, threads: int,
        environment: dict[str, str]) -> float:
    """Return what a worker holds; pages that its node has too count half."""
    settings = {
        'model': 'simple', 'runtime': runtime, 'checkpoint': checkpoint, 'num_threads': threads}
    engine: dict[str, float] = run_child(
        ['-m', 'jetcap_ros.benchmark.engine', json.dumps(settings), '--captions', '20',
         '--pause', '0'], environment=environment, python=python)
    return engine['worker_mb']


def tables(runs: list[dict[str, Any]]) -> list[Table]:
    """Return the figures as a table, whose first row is what the others are compared with."""
    rows = [
        [run['libraries'], run['encoder'], run['image'], run['caption'],
         run['caption'] / runs[0]['caption'], run['worker_mb'],
         'yes' if run['same_words'] else 'no'] for run in runs]
    return [Table(
        'The simple model, by libraries (ms)',
        ['libraries', 'encoder', 'once an image', 'caption', 'against the first', 'worker (MB)',
         'same words'], rows)]


def main() -> None:
    """Measure and print the table."""
    from ..engine.settings import SHIPPED_CHECKPOINT
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('pythons', nargs='*', metavar='PYTHON', default=[sys.executable])
    parser.add_argument('--checkpoint', default=SHIPPED_CHECKPOINT)
    parser.add_argument('--rounds', type=int, default=3, help='default: %(default)s')
    parser.add_argument('--repeats', type=int, default=40, help='default: %(default)s')
    parser.add_argument('--threads', type=int, default=0, help='0: all cores (default)')
    parser.add_argument(
        '--processor', action='store_true',
        help="measure the processor's time: for a busy machine, with --threads 1")
    args = parser.parse_args()
    runs = measure(
        args.pythons, os.path.abspath(args.checkpoint), args.rounds, args.repeats, args.threads,
        args.processor)
    for table in tables(runs):
        print(table.markdown())


if __name__ == '__main__':
    main()
