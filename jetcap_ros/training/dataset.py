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

"""From captions to the words a decoder learns."""

from collections import Counter
from collections.abc import Iterable, Sequence
import re

from .caption_files import CaptionedPicture
from .config import TrainingConfig
from ..errors import UserError
from ..models.vocabulary import END, PAD, START, UNKNOWN, Vocabulary

_WORD = re.compile(r"[^\W_]+(?:['-][^\W_]+)*")
_SPACED_GENITIVE = re.compile(r"\s+'s\b")


def tokenize(caption: str) -> list[str]:
    """Return the words of a caption: lower case, no punctuation but inside of a word."""
    return _WORD.findall(_SPACED_GENITIVE.sub("'s", caption.lower()))


def build_vocabulary(
        captions: Iterable[Sequence[str]], min_count: int, known: Sequence[str] = ()) -> Vocabulary:
    """
    Return the vocabulary of tokenized captions: words that come at least `min_count` times.

    :param known: the words of a vocabulary that has to grow; they stay first, however rare.
    """
    counts = Counter(word for caption in captions for word in caption)
    words = sorted(word for word, count in counts.items() if count >= min_count)
    if not words and not known:
        raise UserError(f'no word of the training captions comes {min_count} times (min_count)')
    return Vocabulary([*dict.fromkeys([*(known or (PAD, START, END, UNKNOWN)), *words])])


def prepare_vocabulary(
        pictures: Iterable[CaptionedPicture], config: TrainingConfig,
        known: Sequence[str] = ()) -> Vocabulary:
    """Return the vocabulary of the training captions, or a known one and their other words."""
    tokens = (tokenize(c) for p in pictures if p.split == 'train' for c in p.captions)
    return build_vocabulary(
        (t for t in tokens if len(t) >= config.min_words), config.min_count, known)


def encode(caption: Sequence[str], vocabulary: Vocabulary, max_words: int) -> list[int]:
    """Return the indices of a tokenized caption between <start> and <end>."""
    unknown = vocabulary.word_map[UNKNOWN]
    words = [vocabulary.word_map.get(word, unknown) for word in caption[:max_words]]
    return [vocabulary.start, *words, vocabulary.end]
