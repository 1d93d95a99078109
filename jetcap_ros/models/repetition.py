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

"""Which words a caption does not say again: a couch and a couch, bookshelves and a bookshelf."""

from collections.abc import Mapping, Sequence

PEOPLE = frozenset(
    'man men woman women boy boys girl girls child children person people'.split())
DOGS = frozenset({'dog', 'dogs'})
# Words that name nothing.
SMALL = frozenset(
    'a an the of in on at to with and or by from for into near next while is are his her their '
    'its it that who as two three other another one up down off over front side'.split())
# What sentences say twice as a rule, and whom: a man and another man.
AGAIN = PEOPLE | DOGS | SMALL
# Two words for one thing.
SAME = [('bike', 'bicycle'), ('bikes', 'bicycles'), ('tv', 'television'), ('couch', 'sofa')]


def relatives(words: Sequence[str]) -> Mapping[int, list[int]]:
    """
    Return, for the index of a word, those of the words that do not come once it is said.

    That is the word itself, its plural and its singular, and another word for the same thing; words
    of AGAIN have none.
    """
    places = {word: index for index, word in enumerate(words) if word not in AGAIN}
    pairs = [pair for pair in SAME if places.keys() >= {*pair}]
    for word in places:
        plurals = {word + 's', word + 'es'}
        if word.endswith('y'):
            plurals.add(word[:-1] + 'ies')
        elif word.endswith(('f', 'fe')):
            plurals.add(word.rstrip('fe') + 'ves')
        pairs += [(word, plural) for plural in plurals & places.keys()]
    found = {index: [index] for index in places.values()}
    for one, other in pairs:
        found[places[one]].append(places[other])
        found[places[other]].append(places[one])
    return found
