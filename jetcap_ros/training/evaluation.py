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

"""Caption the pictures of a split with the models of the robot, and score the captions."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
import json
import math
import os
import sys
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from .calibration import calibrate, Calibration, plot_reliability
from .caption_files import CaptionedPicture, read_captions
from .checkpoint import save_atomically
from .gallery import write_gallery
from .metrics import has_java, METRICS, score, tokenize_all
from .pictures import present_pictures
from ..engine.lazy_loader import LazyModel
from ..engine.settings import CaptionerSettings
from ..errors import UserError
from ..images.picture import read_picture
from ..images.preprocessing import jpeg_within
from ..models.errors import CheckpointError
from ..models.server.errors import ServerError


SEARCH_OPTIONS = ('length_penalty', 'block_ngram', 'say_once', 'word_gain')


@dataclass
class Result:
    """A picture's caption."""

    file: str
    source: str
    caption: str
    value: float | None  # what the score is made of; None of a server that does not tell
    score: float | None
    references: list[str]
    attention: list[list[float]] | None  # (cells, cells): where the words looked, on average
    by_people: bool = True  # whether people wrote the references; else it is not scored
    metrics: dict[str, float] | None = None  # x 100


def load(args: argparse.Namespace, settings: CaptionerSettings) -> LazyModel:
    """Return the model that the arguments of `jetcap evaluate` ask for, loaded."""
    served = args.model == 'server'
    lazy = LazyModel(
        settings.checkpoint, args.model, quantize=args.quantize, device=args.device,
        runtime=args.runtime, num_threads=args.threads, reserve_memory_mb=0,
        server=settings.server_options if served else None)
    try:
        model = lazy.model
    except (CheckpointError, ImportError, MemoryError, RuntimeError) as error:
        lazy.close()
        raise UserError(str(error)) from None
    for name in () if served else SEARCH_OPTIONS:
        value = getattr(args, name)
        if value is not None:
            model.search_options[name] = value
    return lazy


def caption_pictures(
        model: Any, pictures: Sequence[CaptionedPicture], images: str,
        settings: CaptionerSettings) -> list[Result]:
    """
    Caption pictures one by one, as the robot does.

    One that cannot be read, or that a server fails at, is told on stderr and left out.

    :raises UserError: if that are all of them.
    """
    caption = _ask if settings.model == 'server' else _caption
    results = []
    for picture in tqdm(pictures, 'captions', unit='pictures', leave=False):
        try:
            image = read_picture(os.path.join(images, picture.file))
            said = caption(model, image, settings)
        except UserError as error:
            tqdm.write(f'jetcap evaluate: {error}', file=sys.stderr)
            continue
        except ServerError as error:
            tqdm.write(f'jetcap evaluate: {picture.file}: {error}', file=sys.stderr)
            continue
        results.append(Result(
            picture.file, picture.source, references=picture.captions,
            by_people=picture.by_people, **said))
    if not any(result.by_people for result in results):
        raise UserError('none of the pictures was captioned: see above')
    return results


def _caption(model: Any, image: np.ndarray, settings: CaptionerSettings) -> dict[str, Any]:
    found = model.caption(image, settings.beam_size, settings.max_length)
    return {
        'caption': found.text, 'value': found.value, 'score': found.score,
        'attention': found.attention.round(4).tolist()}


def _ask(model: Any, image: np.ndarray, settings: CaptionerSettings) -> dict[str, Any]:
    found = model.caption(
        jpeg_within(image, settings.server_image_size), settings.prompt, settings.max_length,
        settings.inference_timeout_s)
    return {
        'caption': found.text, 'value': math.log(found.score) if found.score else None,
        'score': found.score, 'attention': None}


def score_by_source(results: Sequence[Result], java: bool) -> dict[str, dict[str, float]]:
    """
    Return the scores of each source, and of all if there are several, by name.

    CIDEr weighs words by how rare they are in the set that is scored, so each set is scored for
    itself. Each result gets its own figures, from the set of its source. Only agreement with
    people counts: pictures whose captions a model wrote are left out.
    """
    results = [result for result in results if result.by_people]
    sources = list(dict.fromkeys(result.source for result in results))
    tokens = tokenize_all([[result.caption] for result in results], java)
    references = tokenize_all([result.references for result in results], java)
    sets = {source or 'all': [i for i, r in enumerate(results) if r.source == source]
            for source in sources}
    if len(sources) > 1:
        sets['all'] = list(range(len(results)))
    table = {}
    for name, members in sets.items():
        scores = score(
            [tokens[i][0] for i in members], [references[i] for i in members], java)
        table[name] = {'pictures': len(members), **scores.total}
        if name != 'all' or len(sets) == 1:
            for row, i in enumerate(members):
                results[i].metrics = {
                    metric: round(values[row], 2) for metric, values in scores.each.items()}
    return table


def format_table(table: Mapping[str, Mapping[str, float]]) -> str:
    """Return scores as text: a row each metric, a column each set of pictures."""
    names = list(table)
    lines = [f'{"":10}' + ''.join(f'{name:>12}' for name in names),
             f'{"pictures":10}' + ''.join(f'{table[name]["pictures"]:12d}' for name in names)]
    for metric in METRICS:
        if metric in table[names[0]]:
            lines.append(f'{metric:10}' + ''.join(f'{table[n][metric]:12.2f}' for n in names))
    return '\n'.join(lines)


def _wanted_pictures(args: argparse.Namespace) -> tuple[list[CaptionedPicture], int]:
    """Return the pictures of the split asked for, and how many captions could not be read."""
    found, left_out = read_captions(args.captions)
    pictures = [picture for picture in found if picture.split == args.split]
    if args.limit:
        pictures = pictures[:args.limit]
    if not any(picture.by_people for picture in pictures):
        raise UserError(
            f'{args.captions}: no picture that people captioned is in the split {args.split!r}')
    return pictures, left_out


def evaluate(args: argparse.Namespace, settings: CaptionerSettings) -> tuple[list[str], bool]:
    """Run `jetcap evaluate`; return what it says, as texts, and whether all were captioned."""
    if args.calibrate and args.checkpoint.endswith('.safetensors'):
        raise UserError('--calibrate writes into a .pth: evaluate that, then pack it again')
    pictures, left_out = _wanted_pictures(args)
    present = present_pictures(pictures, args.images)
    texts = []
    lazy = load(args, settings)
    try:
        results = caption_pictures(lazy.model, present, args.images, settings)
    finally:
        lazy.close()
    missing = len(pictures) - len(results)
    if missing:
        texts.append(f'{missing} of {len(pictures)} pictures were not captioned: see above.')
    fitted = None
    if args.calibrate:
        human = [r for r in results if r.by_people]
        fitted = calibrate(
            [r.value or 0.0 for r in human], [r.caption for r in human],
            [r.references for r in human])
        for result in results:
            result.score = float(fitted.score(result.value or 0.0))
        _store(args.checkpoint, fitted, lazy.model.search_options)
        texts.append(
            f'score = 1 / (1 + exp(-({fitted.slope:.4f} x + {fitted.intercept:.4f}))), x the value '
            f'of a caption\na caption is good from CIDEr-D {fitted.threshold:.1f} '
            f'({100 * fitted.good:.1f} % are); calibration error {fitted.expected_error:.3f}, '
            f'ranking {fitted.ranking:.3f}; stored in {args.checkpoint}')
    java = has_java()
    table = score_by_source(results, java)
    texts.append(format_table(table))
    unscored = sum(not result.by_people for result in results)
    if unscored:
        texts.append(
            f'{unscored} pictures whose captions a model wrote are captioned and not scored.')
    if not java:
        texts.append(
            'No Java here: METEOR is left out, and the words are split plainly instead of by the '
            'PTB tokenizer, so that the other scores differ a little. Install a Java runtime '
            '(default-jre-headless) for all of them.')
    if args.out:
        described = {
            name: getattr(args, name)
            for name in ('checkpoint', 'model', 'beam', 'max_length', 'split', 'quantize')}
        if args.model == 'server':
            described['server'] = {**settings.server_options, 'prompt': settings.prompt}
        else:
            described['search'] = lazy.model.search_options
        described['tokenizer'] = 'PTB' if java else 'plain'
        write_results(args.out, described, table, results, args.images, fitted)
        texts.append(f'written to {args.out}: scores.json, captions.jsonl, gallery.html'
                     + (', reliability.png' if fitted else ''))
    return texts, not missing and not left_out


def write_results(
        out: str, settings: Mapping[str, object], table: Mapping[str, Mapping[str, float]],
        results: Sequence[Result], images: str,
        calibration: Calibration | None = None) -> None:
    """Write scores, captions, gallery and, if there is a calibration, its plot."""
    os.makedirs(out, exist_ok=True)
    document: dict[str, Any] = {'settings': settings, 'scores': table}
    if calibration:
        plot_reliability(calibration, os.path.join(out, 'reliability.png'))
        document['calibration'] = asdict(calibration)
    with open(os.path.join(out, 'scores.json'), 'w', encoding='utf-8') as file:
        json.dump(document, file, indent=2)
        file.write('\n')
    with open(os.path.join(out, 'captions.jsonl'), 'w', encoding='utf-8') as file:
        for result in results:
            file.write(json.dumps(asdict(result), ensure_ascii=False) + '\n')
    write_gallery(os.path.join(out, 'gallery.html'), settings, table, results, images)


def _store(path: str, calibration: Calibration, search: Mapping[str, float]) -> None:
    contents = torch.load(path, map_location='cpu', weights_only=True)
    contents['score_calibration'] = {
        'slope': calibration.slope, 'intercept': calibration.intercept}
    contents['search'] = dict(search)
    save_atomically(contents, path)
