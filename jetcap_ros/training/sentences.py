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

"""What training reads beside captioned pictures: sentences, and the objects a detector saw."""

from collections.abc import Iterable
import json

from .config import TrainingConfig
from .dataset import encode, tokenize
from ..errors import UserError
from ..models.vocabulary import UNKNOWN, Vocabulary


def read_sentences(
        path: str, config: TrainingConfig, vocabulary: Vocabulary) -> list[list[int]]:
    """
    Return the sentences of a text file, one a line, as indices.

    Those with a word that is not in the vocabulary, too short or too long ones are left out.

    :raises UserError: if the file cannot be read or none is left.
    """
    unknown = vocabulary.word_map[UNKNOWN]
    try:
        with open(path, encoding='utf-8') as file:
            tokens = [tokenize(line) for line in file]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f'{path}: cannot be read as text ({error})') from None
    sentences = [
        encode(words, vocabulary, config.max_words) for words in tokens
        if config.min_words <= len(words) <= config.max_words]
    sentences = [words for words in sentences if unknown not in words]
    if not sentences:
        raise UserError(f'{path}: no sentence is made of the words of the captions')
    print(f'{path}: {len(sentences)} of {len(tokens)} sentences hold only words of the captions')
    return sentences


def read_objects(paths: Iterable[str]) -> dict[str, dict[str, float]]:
    """
    Return the objects of each picture, of the last file that names it.

    The files are such as `jetcap_ros.training.objects` writes.

    :raises UserError: names the line that is none.
    """
    objects = {}
    for path in paths:
        objects.update(_objects_of(path))
    return objects


def _objects_of(path: str) -> dict[str, dict[str, float]]:
    objects = {}
    try:
        with open(path, encoding='utf-8') as file:
            for number, line in enumerate(file, start=1):
                try:
                    row = json.loads(line)
                    objects[str(row['file'])] = {
                        str(word): float(certain) for word, certain in row['objects'].items()}
                except (ValueError, KeyError, TypeError, AttributeError) as error:
                    raise UserError(f'{path}:{number}: no objects of a picture ({error})') from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f'{path}: cannot be read ({error})') from None
    return objects
