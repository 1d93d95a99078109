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

"""What a run learns from: the pictures of each split, sentences, teachers, and on which device."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
import functools

import numpy as np
import torch

from .caption_files import CaptionedPicture
from .cider import CiderD
from .config import TrainingConfig
from .dataset import encode, tokenize
from .teachers import Teachers
from ..models.few_words import LEAST_SHARE
from ..models.repetition import SMALL
from ..models.vocabulary import PAD, UNKNOWN, Vocabulary

RAREST = 1e-4  # part of the captions that a word is in at least, for its log-odds
OBJECT_SHARE = 0.6  # a certain object counts as if this part of the captions named it
# What is seen in so many pictures is a thing. A caption that names a thing which is not there is
# false, so it is to be said only from this part on of where it usually is in pictures that have it.
THING_PICTURES, THING_PART = 20, 0.7

Caption = list[int]


class Split:
    """The pictures of one split, their captions as indices."""

    def __init__(
            self, pictures: Sequence[CaptionedPicture], config: TrainingConfig,
            vocabulary: Vocabulary, objects: Mapping[str, Mapping[str, float]]) -> None:
        self.files = [picture.file for picture in pictures]
        self.sources = [picture.source for picture in pictures]
        self.captions: list[list[Caption]] = []
        for picture in pictures:
            tokens = [tokenize(caption) for caption in picture.captions]
            kept = [words for words in tokens if len(words) >= config.min_words]
            self.captions.append([
                encode(words, vocabulary, config.max_words) for words in kept or tokens])
        word_map = vocabulary.word_map
        self._objects = [
            {word_map[word]: certain for word, certain in objects.get(name, {}).items()
             if word in word_map} for name in self.files]
        self._vocabulary_size = len(vocabulary)

    def shares(self, pictures: np.ndarray) -> np.ndarray:
        """Return (N, V): the part of the captions of each of these pictures that holds a word."""
        shares = np.zeros((len(pictures), self._vocabulary_size), np.float32)
        for row, picture in enumerate(pictures):
            captions = self.captions[picture]
            for caption in captions:
                shares[row, sorted({*caption})] += 1 / len(captions)
            for word, certain in self._objects[picture].items():
                shares[row, word] = max(shares[row, word], OBJECT_SHARE * certain)
        return shares

    def things(self) -> np.ndarray:
        """Return (V,) bool: what objects of several pictures are called."""
        words = np.array([word for objects in self._objects for word in objects], int)
        return np.bincount(words, minlength=self._vocabulary_size) >= THING_PICTURES

    def references(self, with_end: bool) -> list[list[Caption]]:
        """Return the captions without <start>, and without <end> unless it is wanted."""
        return [
            [caption[1:] if with_end else caption[1:-1] for caption in captions]
            for captions in self.captions]

    def order(self, weights: Mapping[str, float], random: np.random.Generator) -> np.ndarray:
        """Return the pictures of an epoch, each as often as its source's weight says."""
        wanted = self.wanted(weights)
        times = np.floor(wanted).astype(int)
        left = epoch_size(wanted) - times.sum()
        if left > 0:
            rest = wanted - times
            times[random.choice(len(rest), left, replace=False, p=rest / rest.sum())] += 1
        return random.permutation(np.repeat(np.arange(len(times)), times))

    def count(self, weights: Mapping[str, float]) -> int:
        """Return how many pictures `order` gives."""
        return epoch_size(self.wanted(weights))

    def wanted(self, weights: Mapping[str, float]) -> np.ndarray:
        """Return (N,): how often each picture comes in an epoch, as its source's weight says."""
        return np.array([weights.get(source, 1.0) for source in self.sources])


def epoch_size(weights: np.ndarray) -> int:
    """Return the number of pictures of an epoch, from how often each of them is wanted."""
    return int(round(float(weights.sum())))


@dataclass
class Task:
    """
    What a run learns from.

    :param images: folder of the pictures; cache: of what is computed from them once.
    :param sentences: without pictures, as indices, for the stage `text`.
    """

    config: TrainingConfig
    vocabulary: Vocabulary
    train: Split
    val: Split
    images: str
    cache: str
    device: str
    teachers: Teachers
    sentences: list[Caption] = field(default_factory=list)

    def __post_init__(self) -> None:
        word_map = self.vocabulary.word_map
        self.ignored = torch.tensor([word_map[PAD], word_map[UNKNOWN]], device=self.device)
        self.forbidden = torch.tensor(self.vocabulary.special, device=self.device)
        # A mirrored picture's left is its right.
        self.mirrored = np.arange(len(self.vocabulary))
        if 'left' in word_map and 'right' in word_map:
            left, right = word_map['left'], word_map['right']
            self.mirrored[[left, right]] = right, left
        references = self.val.references(with_end=False)
        self.val_sets: list[tuple[np.ndarray, CiderD]] = []  # pictures of each source
        for source in dict.fromkeys(self.val.sources):
            members = np.array([i for i, s in enumerate(self.val.sources) if s == source])
            self.val_sets.append((members, CiderD([references[i] for i in members])))

    @functools.cached_property
    def usual(self) -> torch.Tensor:
        """Return (V,) log-odds of each word in a training picture of which nothing is known."""
        total, _ = self._totals
        wanted = self.train.wanted(self.config.source_weights)
        shares = torch.from_numpy((total / wanted.sum()).astype(np.float32))
        return torch.logit(shares, RAREST).to(self.device)

    @functools.cached_property
    def least(self) -> torch.Tensor:
        """Return (V,): in which part of an image's captions each word has to be to be said."""
        total, pictures = self._totals
        least = np.full(len(total), LEAST_SHARE, np.float32)
        things = self.train.things() & (pictures > 0)
        things[[i for word, i in self.vocabulary.word_map.items() if word in SMALL]] = False
        least[things] = THING_PART * total[things] / pictures[things]
        return torch.from_numpy(least).to(self.device)

    @functools.cached_property
    def _totals(self) -> tuple[np.ndarray, np.ndarray]:
        """Return (V,): the sum of each word's parts in the pictures, and how many have it."""
        wanted, step = self.train.wanted(self.config.source_weights), 256
        total, pictures = np.zeros((2, len(self.vocabulary)))
        for first in range(0, len(wanted), step):
            part = slice(first, first + step)
            shares = self.train.shares(np.arange(len(wanted))[part])
            total += wanted[part] @ shares
            pictures += wanted[part] @ (shares > 0)
        return total, pictures

    def pad(self, captions: Sequence[Sequence[Caption]]) -> np.ndarray:
        """Return (N, K, T) indices of K captions for each of N pictures, filled with <pad>."""
        length = max(len(caption) for group in captions for caption in group)
        pad = self.vocabulary.word_map[PAD]
        return np.array([
            [list(caption) + [pad] * (length - len(caption)) for caption in group]
            for group in captions])
