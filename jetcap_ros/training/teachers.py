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

"""Trained models that a model learns from: what they hold probable says more than one word."""

from collections.abc import Sequence

import torch
from torch.nn import functional

from .checkpoint import build_model, load_checkpoint
from .decoding import teacher_forcing
from ..errors import UserError
from ..models.vocabulary import Vocabulary


class Teachers:
    """
    An ensemble whose averaged probabilities are targets.

    Hinton, Vinyals and Dean 2015, "Distilling the Knowledge in a Neural Network".

    :param paths: checkpoints of any encoder and sizes.
    :param vocabulary: of the model that learns, which must be theirs.
    """

    def __init__(self, paths: Sequence[str], vocabulary: Vocabulary, device: str) -> None:
        self.models = []
        for path in paths:
            contents = load_checkpoint(path)
            if Vocabulary.from_map(contents['word_map']).words != vocabulary.words:
                raise UserError(
                    f'{path}: a teacher of another vocabulary; train it on the same captions, '
                    'with the same min_words and min_count')
            model = build_model(contents)
            model.encoder.to(memory_format=torch.channels_last)
            self.models.append(model.to(device).eval().requires_grad_(False))

    def probabilities(
            self, images: torch.Tensor, captions: torch.Tensor,
            ignored: torch.Tensor) -> torch.Tensor:
        """Return (M, V) probabilities of the targets that `teacher_forcing` gives logits of."""
        total = torch.zeros((), device=images.device)
        with torch.no_grad():
            for model in self.models:
                logits, _ = teacher_forcing(
                    model.decoder, model.cells(images), captions, ignored)
                total = total + functional.softmax(logits.float(), dim=1)
        return total / len(self.models)
