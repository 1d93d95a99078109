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

"""How well a model captions the validation pictures, while it is trained."""

import numpy as np
import torch
from torch.nn import functional

from .batches import PictureFeed
from .bleu import corpus_bleu4
from .decoding import cut, decode, teacher_forcing
from .task import Task
from ..models.generation import WORD_GAIN
from ..models.mobilenet import MobileNetCaptioningModel

BATCH = 64


def validate(
        model: MobileNetCaptioningModel, task: Task, feed: PictureFeed) -> dict[str, float]:
    """
    Return cross-entropy, CIDEr-D and BLEU-4 (x 100, greedy, own tokens) of validation.

    CIDEr-D is the mean over the sources of the pictures, each with its own weights of words.
    """
    model.decoder.eval()
    if model.words is not None:
        model.words.eval()
    loss, words = 0.0, 0
    hypotheses: list[list[int]] = []
    with torch.no_grad(), torch.autocast(
            task.device, torch.bfloat16, enabled=task.config.bfloat16):
        for first in range(0, len(task.val.files), BATCH):
            part = slice(first, first + BATCH)
            cells = feed.validation(part)
            group = task.val.captions[part]
            k = max(map(len, group))
            captions = task.pad([c + [[]] * (k - len(c)) for c in group])
            logits, targets = teacher_forcing(
                model.decoder, cells, torch.from_numpy(captions).to(cells.device), task.ignored)
            loss += functional.cross_entropy(logits.float(), targets, reduction='sum').item()
            words += len(targets)
            hypotheses += _greedy(model, task, cells)
    scores = [
        100 * float(np.mean([
            scorer.score(row, hypotheses[i]) for row, i in enumerate(members)]))
        for members, scorer in task.val_sets]
    return {
        'val_loss': loss / max(1, words), 'val_cider': float(np.mean(scores)),
        'val_bleu4': 100 * corpus_bleu4(hypotheses, task.val.references(with_end=False))}


def _greedy(
        model: MobileNetCaptioningModel, task: Task, cells: torch.Tensor) -> list[list[int]]:
    vocabulary, gains = task.vocabulary, None
    if model.words is not None:
        gains = WORD_GAIN * torch.relu(model.words(cells.float()))
        gains[:, vocabulary.end] = 0
    drawn, _ = decode(
        model.decoder, cells, 1, vocabulary.start, vocabulary.end, task.forbidden,
        task.config.max_words, greedy=True, gains=gains)
    return [cut(row, vocabulary.end) for row in drawn[:, 0].tolist()]
