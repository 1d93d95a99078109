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
Time one model on one checkpoint, without node and worker, in a process of its own.

Prints a JSON line: ms of the encoder, of greedy decoding and of beam search, and the words.
"""

import argparse
from collections.abc import Callable
import json
import statistics
import time
from typing import Any, TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def timed(
        work: Callable[[], object], repeats: int,
        clock: Callable[[], float] = time.perf_counter) -> dict[str, float]:
    """Return the median and the least milliseconds of a call, after two that warm up."""
    work()
    work()
    times = []
    for _ in range(repeats):
        started = clock()
        work()
        times.append((clock() - started) * 1e3)
    return {'p50': statistics.median(times), 'min': min(times)}


def main() -> None:
    """Load, time, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('model', choices=('eager', 'mobilenet', 'simple'))
    parser.add_argument('checkpoint', help='.pth for eager, packed for the others')
    parser.add_argument('--quantize', default='int8')
    parser.add_argument('--runtime', default='auto')
    parser.add_argument('--length', type=int, default=20)
    parser.add_argument('--beams', type=int, nargs='*', default=[3])
    parser.add_argument('--repeats', type=int, default=30)
    parser.add_argument('--threads', type=int, default=0)
    parser.add_argument('--processor', action='store_true', help='its time, not that of the wall')
    args = parser.parse_args()
    args.clock = time.process_time if args.processor else time.perf_counter
    import numpy as np

    from .processes import peak_rss_mb
    picture = np.random.default_rng(0).integers(0, 255, (224, 224, 3), dtype=np.uint8)
    time_model = _time_eager if args.model == 'eager' else _time_shipped
    result = {**time_model(args, picture), 'peak_rss_mb': peak_rss_mb()}
    print(json.dumps(result))


def _time_eager(args: argparse.Namespace, picture: 'np.ndarray') -> dict[str, Any]:
    import torch

    from .plain_model import load_plain_model
    from ..images.preprocessing import normalize
    if args.threads:
        torch.set_num_threads(args.threads)
    model, checkpoint = load_plain_model(args.checkpoint)
    word_map = checkpoint['word_map']
    image = torch.from_numpy(normalize(picture))

    def generate() -> list[int]:
        return model.generate(
            torch.from_numpy(normalize(picture)), word_map['<start>'], word_map['<end>'],
            args.length)

    with torch.no_grad():
        encoder = timed(lambda: model.encoder(image), args.repeats, args.clock)
    return {
        'encoder': encoder, 'indices': generate(),
        'greedy': timed(generate, args.repeats, args.clock)}


def _time_shipped(args: argparse.Namespace, picture: 'np.ndarray') -> dict[str, Any]:
    from ..engine.lazy_loader import LazyModel
    lazy = LazyModel(
        args.checkpoint, args.model, quantize=args.quantize, runtime=args.runtime,
        num_threads=args.threads, reserve_memory_mb=0)
    model = lazy.model
    vocabulary = model.vocabulary
    image = model.as_input(picture)

    def generate(beam_size: int = 1) -> Any:
        return model.search(
            model.as_input(picture), vocabulary.start, vocabulary.end, args.length, beam_size)

    simple = {}
    if args.model == 'mobilenet':
        import torch
        tensor = torch.from_numpy(image)
        with torch.inference_mode():
            encoder = timed(lambda: model.cells(tensor), args.repeats, args.clock)
    else:
        encoder = timed(lambda: model.cells(image), args.repeats, args.clock)
        cells = model.cells(image)
        simple = {
            'image': timed(lambda: model.decoder.start(cells), args.repeats, args.clock),
            'text': model.caption(picture).text,
            'libraries': _libraries(lazy.facts)}
    return {
        **simple, 'encoder': encoder,
        'caption': timed(
            lambda: model.caption(picture, max_length=args.length), args.repeats, args.clock),
        'indices': [int(index) for index in generate().indices],
        'greedy': timed(generate, args.repeats, args.clock),
        **{f'beam {beams}': timed(lambda: generate(beams), args.repeats, args.clock)
           for beams in args.beams}}


def _libraries(facts: dict[str, str]) -> str:
    """Return what the simple model runs in: each library with its version, once."""
    names = [fact.split(' (')[0] for fact in facts.values()]
    import numpy
    return ', '.join(dict.fromkeys([*names, f'NumPy {numpy.__version__}']))


if __name__ == '__main__':
    main()
