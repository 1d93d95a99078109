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

"""One line of plain text out of whatever a language model says."""

import re
import unicodedata

_THOUGHTS = re.compile(r'<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)', re.DOTALL | re.IGNORECASE)
# Markup, and a chat model's own marks: <|im_end|>, <end_of_utterance>.
_TAGS = re.compile(r'<\|[^<>|]{0,40}\|>|</?[a-zA-Z_][^<>]{0,80}>')
_FENCES = re.compile(r'^\s*(?:```|~~~)\w*\s*$', re.MULTILINE)
_LINKS = re.compile(r'!?\[([^\[\]]*)\]\([^()]*\)')
_LINE_MARKS = re.compile(r'^\s*(?:#{1,6}\s+|>\s?|[-*+•]\s+|\d{1,2}[.)]\s+)', re.MULTILINE)
_EMPHASIS = re.compile(r'\*+|`+|~~|(?<!\w)_+|_+(?!\w)')
_GREETING = re.compile(
    r'(?:sure(?: thing)?|certainly|of course|okay|absolutely)\s*[!,.:]\s+|'
    r'here(?:[\'’]s| is| are)\s[^.!?:]{0,80}:\s*|'
    r'(?:(?:image|picture|photo)?\s*(?:caption|description|answer|response|assistant))\s*:\s*',
    re.IGNORECASE)
_SENTENCE_END = re.compile(
    r'(?:(?<=[.!?…])|(?<=[.!?…]["\')\]”’]))\s+(?=["\'(“‘]?[A-Z0-9])')
_QUOTES = {'"': '"', "'": "'", '“': '”', '‘': '’', '«': '»'}
MAX_TEXT = 8192  # characters that are looked at


def plain_line(text: str, max_words: int, cut: bool = False) -> str:
    """
    Return a model's answer as one line: no markup, no greeting, its first sentences.

    :param max_words: as many whole sentences as fit; the first is kept, and cut only if it is
        twice as long.
    :param cut: the answer was ended at the bound of its tokens; a sentence that was ends with an
        ellipsis.
    """
    text = _THOUGHTS.sub(' ', text[:MAX_TEXT])
    for pattern, with_what in (
            (_TAGS, ' '), (_FENCES, ' '), (_LINKS, r'\1'), (_LINE_MARKS, ''), (_EMPHASIS, '')):
        text = pattern.sub(with_what, text)
    # No control characters, and none that turn the direction of a terminal's line.
    text = ''.join(' ' if unicodedata.category(c)[0] in 'CZ' else c for c in text)
    line = ' '.join(text.split())
    while (greeting := _GREETING.match(line)) and greeting.end() < len(line):
        line = line[greeting.end():]
    line = _without_quotes(line)
    line = _first_sentences(line, max_words)
    return line + '…' if cut and line and not _is_whole(line) else line


def _without_quotes(line: str) -> str:
    if len(line) > 2 and _QUOTES.get(line[0]) == line[-1] and line[0] not in line[1:-1]:
        return line[1:-1].strip()
    return line


def _first_sentences(line: str, max_words: int) -> str:
    sentences = _SENTENCE_END.split(line)
    chosen = sentences[0].split()
    for sentence in sentences[1:]:
        words = sentence.split()
        # The last may have been cut by the bound of tokens.
        if len(chosen) + len(words) > max_words or not _is_whole(sentence):
            break
        chosen += words
    if len(chosen) > 2 * max_words:
        return ' '.join(chosen[:2 * max_words]) + '…'
    return ' '.join(chosen)


def _is_whole(sentence: str) -> bool:
    return sentence.rstrip('"\')]”’').endswith(('.', '!', '?', '…'))
