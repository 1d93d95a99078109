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

"""The words a model knows, and the special tokens among them."""

from collections.abc import Iterable, Mapping, Sequence

PAD, START, END, UNKNOWN = '<pad>', '<start>', '<end>', '<unk>'


class Vocabulary:
    """
    Maps words to the indices a model was trained with, and back.

    :param words: the words in the order of their indices.
    :raises ValueError: if <start> or <end> is missing or a word comes twice.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.words: list[str] = list(words)
        if not all(isinstance(word, str) for word in self.words):
            raise ValueError('the vocabulary holds something that is not a word')
        self.word_map = {word: index for index, word in enumerate(self.words)}
        if len(self.word_map) != len(self.words):
            raise ValueError('a word stands in the vocabulary more than once')
        for token in (START, END):
            if token not in self.word_map:
                raise ValueError(f'the vocabulary has no {token} token')
        self.start = self.word_map[START]
        self.end = self.word_map[END]
        # Never part of a sentence.
        self.special = [
            self.word_map[token] for token in (PAD, START, UNKNOWN) if token in self.word_map]

    @classmethod
    def from_map(cls, word_map: Mapping[str, int]) -> 'Vocabulary':
        """Return the vocabulary of a {word: index} map whose indices are 0..n-1."""
        if not isinstance(word_map, Mapping) or not word_map:
            raise ValueError('the checkpoint has no word_map')
        indices = list(word_map.values())
        if not all(type(index) is int for index in indices):
            raise ValueError('the indices of word_map are not whole numbers')
        if sorted(indices) != list(range(len(indices))):
            raise ValueError(f'the indices of word_map are not 0..{len(indices) - 1}, each once')
        return cls(sorted(word_map, key=word_map.__getitem__))

    def __len__(self) -> int:
        return len(self.words)

    def sentence(self, indices: Iterable[int]) -> str:
        """
        Return the sentence of these indices up to <end>, without special tokens.

        It holds only what can be printed, whatever a checkpoint calls a word.
        """
        words = []
        for index in indices:
            if index == self.end:
                break
            if index not in self.special:
                words.append(self.words[index])
        return ''.join(c for c in ' '.join(words) if c.isprintable())
