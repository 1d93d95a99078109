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

"""BLEU, METEOR, ROUGE-L and CIDEr as the COCO caption evaluation computes them (pycocoevalcap)."""

from collections.abc import Sequence
import contextlib
from dataclasses import dataclass
import io
import shutil
import subprocess

from .dataset import tokenize
from ..errors import UserError

METRICS = ('BLEU-1', 'BLEU-2', 'BLEU-3', 'BLEU-4', 'METEOR', 'ROUGE-L', 'CIDEr')


@dataclass
class Scores:
    """Scores x 100."""

    total: dict[str, float]
    each: dict[str, list[float]]  # by metric, one a picture


def has_java() -> bool:
    """Return whether Java runs here."""
    if shutil.which('java') is None:
        return False
    return subprocess.run(['java', '-version'], capture_output=True).returncode == 0


def tokenize_all(captions: Sequence[Sequence[str]], java: bool) -> list[list[str]]:
    """Return captions as tokens separated by blanks: PTB tokens with Java, else plain words."""
    if not java:
        return [[' '.join(tokenize(caption)) for caption in group] for group in captions]
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer
    tokens = PTBTokenizer().tokenize({
        i: [{'caption': caption} for caption in group] for i, group in enumerate(captions)})
    return [tokens[i] for i in range(len(captions))]


def score(
        captions: Sequence[str], references: Sequence[Sequence[str]], java: bool) -> Scores:
    """
    Score tokenized captions against the tokenized references of their pictures.

    :param java: without it METEOR is left out.
    :raises UserError: if pycocoevalcap is not installed.
    """
    try:
        from pycocoevalcap.bleu.bleu import Bleu
        from pycocoevalcap.cider.cider import Cider
        from pycocoevalcap.meteor.meteor import Meteor
        from pycocoevalcap.rouge.rouge import Rouge
    except ImportError as error:
        raise UserError(f'{error}: pip install pycocoevalcap') from None
    results = {i: [caption] for i, caption in enumerate(captions)}
    truth = {i: list(group) for i, group in enumerate(references)}
    total, each = {}, {}
    with contextlib.redirect_stdout(io.StringIO()):  # the scorers print
        figures, lists = Bleu(4).compute_score(truth, results, verbose=0)
        for n in range(4):
            total[METRICS[n]], each[METRICS[n]] = figures[n], lists[n]
        scorers = {'METEOR': Meteor} if java else {}
        for name, scorer in {**scorers, 'ROUGE-L': Rouge, 'CIDEr': Cider}.items():
            total[name], each[name] = scorer().compute_score(truth, results)
    return Scores(
        {name: 100 * float(value) for name, value in total.items()},
        {name: [100 * float(value) for value in values] for name, values in each.items()})
