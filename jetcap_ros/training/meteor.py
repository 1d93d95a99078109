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
METEOR with exact matches only, over token indices: a reward that minds what a caption leaves out.

Denkowski and Lavie 2014, "Meteor Universal", with the parameters for English. No stems, synonyms
or paraphrases; figures of the whole metric come from `jetcap evaluate`.
"""

from collections.abc import Sequence

ALPHA = 0.85  # recall against precision
BETA = 0.2  # how the penalty grows with the number of chunks
GAMMA = 0.6  # weight of the penalty


def sentence_meteor(words: Sequence[int], references: Sequence[Sequence[int]]) -> float:
    """Return the score of a caption against the reference it fits best, 0..1."""
    return max(_pair_score(words, reference) for reference in references)


def _pair_score(words: Sequence[int], reference: Sequence[int]) -> float:
    places: dict[int, list[int]] = {}
    for place, word in enumerate(reference):
        places.setdefault(word, []).append(place)
    matches = chunks = 0
    last = -2
    for word in words:
        free = places.get(word)
        if not free:
            last = -2
            continue
        if last + 1 in free:
            free.remove(last + 1)
            last += 1
        else:
            chunks += 1
            last = free.pop(0)
        matches += 1
    if not matches:
        return 0.0
    precision, recall = matches / len(words), matches / len(reference)
    mean = precision * recall / (ALPHA * precision + (1 - ALPHA) * recall)
    return (1 - GAMMA * (chunks / matches) ** BETA) * mean if chunks > 1 else mean
