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
Caption recorded bags.

Reads rosbag2 folders and files (sqlite3 and mcap, compressed ones too) without ROS and writes to
a folder: captions.jsonl, one JSON object a caption, the same bytes from every run, and
report.html. Several bags, or a folder of bags, are captioned on all cores, each into a folder of
its name. What was interrupted goes on with --resume.

The exit code is 0 only if every due frame of every bag was captioned, as expected; 1 if one was
skipped or lost, a bag is damaged or could not be read, or captions differ from those expected.
"""

import argparse
import contextlib
import math
import os
from pathlib import Path
import shutil
import sqlite3
import sys
from typing import Any

from .caption import add_engine_arguments, engine_settings, server_settings

# On a machine that is busy with other bags a caption takes its time.
CAPTION_TIMEOUT_S = 120.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        'bags', metavar='BAG', nargs='+', type=Path,
        help='a bag (folder, .db3 or .mcap file) or a folder of bags')
    parser.add_argument(
        '--out', metavar='DIR', type=Path, required=True, help='where the results go')
    parser.add_argument(
        '--resume', action='store_true', help='go on with the replay that DIR holds')
    parser.add_argument(
        '--topic', action='append', default=[], metavar='T',
        help='an image topic; may be given repeatedly (default: all)')
    rate = parser.add_mutually_exclusive_group()
    rate.add_argument(
        '--every', type=float, default=0.5, metavar='SECONDS',
        help='at least this long between two captions of a topic (default: 0.5, as the node)')
    rate.add_argument(
        '--every-frame', dest='every', action='store_const', const=0.0, help='caption all frames')
    parser.add_argument(
        '--skip-still', action='store_true',
        help='leave out frames that hardly differ from the last captioned one of their topic')
    parser.add_argument(
        '--write-bag', metavar='DIR', type=Path,
        help='also write the captions as a bag, at the times of their frames')
    parser.add_argument(
        '--expect', metavar='FILE', type=Path,
        help='compare with an earlier captions.jsonl, or with the --out of several bags')
    parser.add_argument(
        '--threshold', type=float, default=1.0, metavar='X',
        help='how similar each caption must be to the one expected: the share of words in common'
        ' in the same order (default: 1, the same words)')
    parser.add_argument(
        '--jobs', type=int, default=0, metavar='N',
        help='bags at once (default: as many as cores and memory allow; with a server one)')
    parser.add_argument(
        '--cluster', metavar='ADDRESS',
        help='run on the Dask cluster with this scheduler (tcp://HOST:8786)')
    add_engine_arguments(parser)
    # Another model's captions in the place of the one's asked for would not be repeatable.
    parser.set_defaults(fallback='none')


def run(args: argparse.Namespace) -> int:
    """Caption the bags, then compare and copy their captions if that is asked for."""
    from jetcap_ros.engine.captioner import CaptionerError
    from jetcap_ros.errors import UserError
    try:
        from jetcap_ros.replay.archive import find_bags
        from jetcap_ros.replay.console import Interruption
        from jetcap_ros.replay.errors import ReplayError
    except ModuleNotFoundError as error:
        raise UserError(f"needs {error.name}: pip install 'jetcap_ros[replay]'") from error
    if not (math.isfinite(args.every) and args.every >= 0):
        raise UserError(f'--every {args.every}: expected 0 or more seconds')
    if not 0 <= args.threshold <= 1:
        raise UserError(f'--threshold {args.threshold}: expected 0 to 1')
    try:
        bags, problems = find_bags(args.bags)
        for problem in problems:
            _tell(problem)
        alone = len(bags) == 1 and list(bags.values()) == args.bags
        places = {name: '' if alone else name for name in bags}
        _check_places(args, places)
        with Interruption() as interruption:
            replay = _replay_one if alone else _replay_many
            results = replay(args, bags, interruption)
            if interruption.event.is_set():
                _tell('stopped; the same command with --resume goes on')
                return 130
    except ReplayError as error:
        raise UserError(str(error)) from error
    except CaptionerError as error:
        raise UserError(
            f'{error}. What was captioned is in {args.out}, --resume goes on') from error
    except OSError as error:
        raise UserError(
            f'{error.filename or args.out}: {error.strerror}. What was captioned is in {args.out},'
            ' --resume goes on') from error
    good = not problems and all(result.whole for result in results.values())
    for name, result in results.items():
        if result.complete:
            good &= _finish(args, places[name])
    return 0 if good else 1


def _check_places(args: argparse.Namespace, places: dict[str, str]) -> None:
    """Refuse now what would only fail after hours, and what would be overwritten."""
    from jetcap_ros.errors import UserError
    from jetcap_ros.outputs import require_folder
    out = args.out.resolve()
    if args.write_bag and args.write_bag.resolve() in (out, out / 'thumbnails', *out.parents):
        raise UserError(f'--write-bag {args.write_bag}: --out {args.out} is there')
    for place in places.values():
        if (args.out / place / 'captions.jsonl').exists() and not args.resume:
            raise UserError(
                f'{args.out / place} holds a replay: go on with --resume, or choose another --out')
        if args.write_bag and (args.write_bag / place).exists():
            raise UserError(f'--write-bag {args.write_bag / place} exists already')
        if args.expect and not _expected_file(args, place).is_file():
            raise UserError(f'--expect: there is no {_expected_file(args, place)}')
    require_folder(args.out)
    if args.write_bag:
        require_folder(args.write_bag.parent, '--write-bag: in')


def _expected_file(args: argparse.Namespace, place: str) -> Path:
    expect: Path = args.expect
    return expect / place / 'captions.jsonl' if expect.is_dir() else expect


def _settings(args: argparse.Namespace) -> Any:
    from jetcap_ros.engine.settings import SHIPPED_CHECKPOINT
    from jetcap_ros.errors import UserError
    from jetcap_ros.images.still import STILL_THRESHOLD
    from jetcap_ros.models.checkpoint import sha256
    from jetcap_ros.replay.runner import ReplaySettings
    engine = engine_settings(args)
    checkpoint = os.path.abspath(os.path.expanduser(engine.checkpoint)) if args.checkpoint else ''
    others = engine.server_url or engine.server_command
    try:
        # What a server of another's has loaded is its own affair.
        digest = '' if others else sha256(checkpoint or SHIPPED_CHECKPOINT)
    except OSError as error:
        raise UserError(f'--checkpoint {checkpoint}: {error.strerror}') from error
    return ReplaySettings(tuple(args.topic), args.every, {
        'model': engine.model, 'fallback': engine.fallback, 'checkpoint': checkpoint,
        # Every process, and whoever goes on tomorrow, shall use the very same.
        'checkpoint_sha256': digest, 'quantize': engine.quantize, 'device': engine.device,
        'runtime': engine.runtime, 'beam_size': engine.beam_size,
        'max_length': engine.max_length,
        **(_of_server(args) if engine.model == 'server' else {}),
        'inference_timeout_s': args.timeout or CAPTION_TIMEOUT_S},
        STILL_THRESHOLD if args.skip_still else 0.0)


def _of_server(args: argparse.Namespace) -> dict[str, Any]:
    settings = server_settings(args)
    # A process on another machine has another working directory.
    projector = args.projector and os.path.abspath(os.path.expanduser(args.projector))
    return {**settings, 'projector': projector}


def _replay_one(
        args: argparse.Namespace, bags: dict[str, Path], interruption: Any) -> dict[str, Any]:
    from jetcap_ros.replay.console import BagProgress
    from jetcap_ros.replay.fleet import make_captioner
    from jetcap_ros.replay.runner import replay_bag
    (name, path), = bags.items()
    settings = _settings(args)
    with contextlib.ExitStack() as stack:
        progress = stack.enter_context(BagProgress(name, interruption.event))

        def get_captioner() -> Any:
            interruption.immediate = True  # loading takes seconds, and there is nothing to lose
            captioner = stack.enter_context(make_captioner(
                settings, args.threads, lambda severity, text: progress.notice(text)))
            interruption.immediate = False
            return captioner

        try:
            result = replay_bag(path, args.out, settings, get_captioner, progress)
        except KeyboardInterrupt:
            _tell(f'stopped; what was captioned is in {args.out}, --resume goes on')
            raise
    for problem in [*result.notes, *result.problems]:
        _tell(problem)
    print(
        f'{result.captions} captions, {result.changes} changes, {result.skipped} frames skipped,'
        f' {result.still} still, {result.lost} lost: {args.out / "captions.jsonl"}'
        f' {args.out / "report.html"}')
    return {name: result}


def _replay_many(
        args: argparse.Namespace, bags: dict[str, Path], interruption: Any) -> dict[str, Any]:
    from jetcap_ros.replay import fleet
    from tqdm import tqdm
    settings = _settings(args)
    # A server works with all cores at one picture, whoever asks.
    most = 1 if settings.captioner['model'] == 'server' else len(bags)
    processes = fleet.process_count(settings, min(len(bags), args.jobs or most))
    threads = args.threads or (1 if args.cluster else max(1, fleet.cores() // processes))
    jobs = [
        fleet.Job(name, bag.absolute(), (args.out / name).absolute(), settings, threads)
        for name, bag in bags.items()]
    sizes = {name: _size(bag) for name, bag in bags.items()}
    results = {}
    with fleet.Cluster(args.cluster) if args.cluster else fleet.Pool(processes) as pool, tqdm(
            total=sum(sizes.values()), unit='B', unit_scale=True) as bar:
        bar.set_description(f'{len(bags)} bags, {pool.description}')
        for job, result in pool.run(jobs, interruption.event):
            results[job.name] = result
            bar.update(sizes[job.name])
            for problem in [*result.notes, *result.problems]:
                bar.write(f'jetcap replay: {job.name}: {problem}', file=sys.stderr)
    fleet.write_index(args.out, results)
    captions, skipped, lost = (
        sum(getattr(result, name) for result in results.values())
        for name in ('captions', 'skipped', 'lost'))
    print(
        f'{len(results)} bags, {captions} captions, {skipped} frames skipped, {lost} lost:'
        f' {args.out / "index.html"}')
    return results


def _size(bag: Path) -> int:
    """Return the bytes of a bag on disk, 0 of what cannot be read."""
    size = 0
    with contextlib.suppress(OSError):
        for file in bag.iterdir() if bag.is_dir() else [bag]:
            size += file.stat().st_size
    return size


def _finish(args: argparse.Namespace, place: str) -> bool:
    """Write the bag of captions and compare; return whether they are as expected."""
    from jetcap_ros.errors import UserError
    from jetcap_ros.replay.caption_bag import write_caption_bag
    from jetcap_ros.replay.captions import read_records
    from jetcap_ros.replay.compare import compare
    from jetcap_ros.replay.errors import ReplayError
    captions = args.out / place / 'captions.jsonl'
    if args.write_bag:
        try:
            write_caption_bag(args.write_bag / place, read_records(captions))
        except (OSError, sqlite3.Error) as error:
            shutil.rmtree(args.write_bag / place, ignore_errors=True)  # so that it can be repeated
            raise UserError(f'--write-bag {args.write_bag / place}: {error}') from error
    if not args.expect:
        return True
    try:
        comparison = compare(
            read_records(_expected_file(args, place)), read_records(captions), args.threshold)
    except ReplayError as error:
        raise UserError(str(error)) from error
    print(f'{place}: {comparison}' if place else comparison)
    return not comparison.differences


def _tell(text: str) -> None:
    print(f'jetcap replay: {text}', file=sys.stderr)
