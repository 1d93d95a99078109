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

"""Word vectors from a GloVe text file (Pennington, Socher and Manning 2014)."""

import torch

from ..errors import UserError
from ..models.vocabulary import Vocabulary


def read_glove(path: str, vocabulary: Vocabulary, embed_dim: int) -> torch.Tensor:
    """
    Return (V, embed_dim) embeddings; words that the file lacks get small random ones.

    :raises UserError: if the file is missing or its vectors have another size.
    """
    embedding = torch.empty(len(vocabulary), embed_dim).uniform_(-0.1, 0.1)
    found = 0
    try:
        with open(path, encoding='utf-8') as file:
            for number, line in enumerate(file, start=1):
                word, *values = line.rstrip().split(' ')
                if number == 1 and len(values) == 1:
                    continue  # word2vec's text form says its sizes first
                if len(values) != embed_dim:
                    raise UserError(
                        f'{path}:{number}: a vector of {len(values)} numbers, but embed_dim is '
                        f'{embed_dim}: pass --set embed_dim={len(values)}')
                index = vocabulary.word_map.get(word)
                if index is not None:
                    embedding[index] = torch.tensor([float(value) for value in values])
                    found += 1
    except OSError as error:
        raise UserError(f'{path}: {error.strerror}') from None
    except ValueError as error:
        raise UserError(f'{path}:{number}: {error}') from None
    if not found:
        raise UserError(f'{path}: has none of the words of the captions')
    return embedding
