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

"""What can be asked of the search, and its bounds; known without loading anything."""

# The state of the search is small; what a caller asks for is bounded all the same.
MAX_BEAM_SIZE = 20
MAX_LENGTH = 100
MAX_LENGTH_PENALTY = 10
MAX_WORD_GAIN = 10


def check_bounds(beam_size: int, max_length: int) -> None:
    """Raise ValueError for a search that would be absurdly large."""
    if not 1 <= beam_size <= MAX_BEAM_SIZE:
        raise ValueError(f'beam_size is {beam_size}, expected 1 to {MAX_BEAM_SIZE}')
    if not 1 <= max_length <= MAX_LENGTH:
        raise ValueError(f'max_length is {max_length}, expected 1 to {MAX_LENGTH}')


def check_options(length_penalty: float, block_ngram: float, word_gain: float = 0) -> None:
    """Raise ValueError for options that `beam_search` cannot keep to."""
    # Below 0, short captions would win over the search's bound on how good a longer one can get.
    if not 0 <= length_penalty <= MAX_LENGTH_PENALTY:
        raise ValueError(
            f'length_penalty is {length_penalty}, expected 0 to {MAX_LENGTH_PENALTY}')
    if not (0 <= block_ngram <= MAX_LENGTH and block_ngram == int(block_ngram)):
        raise ValueError(f'block_ngram is {block_ngram}, expected 0 to {MAX_LENGTH}')
    if not 0 <= word_gain <= MAX_WORD_GAIN:
        raise ValueError(f'word_gain is {word_gain}, expected 0 to {MAX_WORD_GAIN}')
