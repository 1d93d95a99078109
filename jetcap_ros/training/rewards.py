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

"""How good drawn captions are: CIDEr-D, BLEU-4 and METEOR in one number."""

from collections import Counter
from collections.abc import Mapping, Sequence
import multiprocessing
from typing import Any
import weakref

from .bleu import sentence_bleu4
from .cider import CiderD
from .meteor import sentence_meteor

Caption = list[int]
SMALL = 0.002  # of all captions say a small word twice: a, the, of


class Rewards:
    """
    Rewards captions by their agreement with those people wrote of the picture.

    :param references: the captions of each picture.
    :param repeat_weight: taken for each word that is said again and is no small one.
    :param invented_weight: taken for each word that nobody said of the picture, if it is one of
        `kin`, whose words count as said once one of their kin is: a couch, couches.
    :param processes: that share the work, beside a GPU that has the rest of it; 0: none, it is
        done here.
    """

    def __init__(
            self, references: Sequence[Sequence[Caption]], bleu_weight: float = 0.0,
            meteor_weight: float = 0.0, repeat_weight: float = 0.0, invented_weight: float = 0.0,
            kin: Mapping[int, Sequence[int]] | None = None, processes: int = 0) -> None:
        self._references, self._scorer = references, CiderD(references)
        self._bleu_weight, self._meteor_weight = bleu_weight, meteor_weight
        self._repeat_weight, self._invented_weight = repeat_weight, invented_weight
        self._kin = kin or {}
        twice = Counter(w for group in references for c in group for w in _said_again(c))
        enough = SMALL * sum(map(len, references))
        self._small = {word for word, count in twice.items() if count >= enough}
        self._pool = None
        if processes:
            self._pool = multiprocessing.get_context('spawn').Pool(
                processes, _begin, (
                    references, bleu_weight, meteor_weight, repeat_weight, invented_weight, kin))
            weakref.finalize(self, self._pool.terminate)

    def __call__(self, pictures: Sequence[int], captions: Sequence[Caption]) -> list[float]:
        """Return the reward of each caption, of the picture at the same place."""
        pairs = list(zip(pictures, captions))
        if self._pool is None:
            return [self.one(*pair) for pair in pairs]
        return self._pool.starmap(_reward, pairs, chunksize=16)

    def one(self, picture: int, caption: Caption) -> float:
        """Return the reward of one caption."""
        references = self._references[picture]
        reward = self._scorer.score(picture, caption)
        if self._bleu_weight:
            reward += self._bleu_weight * sentence_bleu4(caption, references)
        if self._meteor_weight:
            reward += self._meteor_weight * sentence_meteor(caption, references)
        if self._repeat_weight:
            again = [word for word in _said_again(caption) if word not in self._small]
            reward -= self._repeat_weight * len(again)
        if self._invented_weight:
            said = {k for r in references for word in r for k in self._kin.get(word, ())}
            invented = (set(caption) & self._kin.keys()) - said
            reward -= self._invented_weight * len(invented)
        return reward


def _said_again(caption: Caption) -> list[int]:
    """Return the words that the caption says more than once."""
    return [word for word, count in Counter(caption).items() if count > 1]


_of_this_process: list[Rewards] = []  # of the pool: one


def _begin(*arguments: Any) -> None:
    _of_this_process.append(Rewards(*arguments))


def _reward(picture: int, caption: Caption) -> float:
    return _of_this_process[0].one(picture, caption)
