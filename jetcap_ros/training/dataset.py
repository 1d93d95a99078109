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
Captioned pictures, from the formats they come in.

- JSON lines: `{"file": ..., "split": "train" | "val" | "test", "captions": [...]}`, with an
  optional `source` (the data set it comes from).
- Flickr8k: `captions.txt` (CSV: image,caption) or `Flickr8k.token.txt` (image#0, a tab, caption).
- COCO: `captions_*.json` with `images` and `annotations`.

The last two know no splits: every tenth picture, by a hash of its name, is for validation.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
import csv
from dataclasses import dataclass
import hashlib
import json
import os
import re

from ..errors import UserError
from ..models.vocabulary import END, PAD, START, UNKNOWN, Vocabulary

SPLITS = ('train', 'val', 'test')
_WORD = re.compile(r"[^\W_]+(?:['-][^\W_]+)*")
_SPACED_GENITIVE = re.compile(r"\s+'s\b")


@dataclass
class CaptionedPicture:
    """One picture and what people said of it."""

    file: str  # relative to the folder of pictures
    split: str
    captions: list[str]
    source: str = ''


def tokenize(caption: str) -> list[str]:
    """Return the words of a caption: lower case, no punctuation but inside of a word."""
    return _WORD.findall(_SPACED_GENITIVE.sub("'s", caption.lower()))


def read_captions(path: str) -> list[CaptionedPicture]:
    """
    Read a caption file; its format is recognized by its contents.

    :raises UserError: if it is missing, empty or of no known format; names the line.
    """
    try:
        with open(path, encoding='utf-8-sig', newline='') as file:
            text = file.read()
    except OSError as error:
        raise UserError(f'{path}: {error.strerror}') from None
    except UnicodeDecodeError as error:
        raise UserError(f'{path}: not a text file in UTF-8 ({error.reason})') from None
    if not text.strip():
        raise UserError(f'{path}: the caption file is empty')
    if not text.lstrip().startswith('{'):
        pictures = _read_flickr(path, text)
    else:
        try:
            document = json.loads(text)  # one document: COCO, or JSON lines of a single line
        except ValueError:
            document = None
        if document is None or 'annotations' not in document:
            pictures = _read_json_lines(path, text)
        else:
            pictures = _read_coco(path, document)
    pictures = [picture for picture in pictures if picture.captions]
    if not pictures:
        raise UserError(f'{path}: no picture has a caption')
    return pictures


def _read_json_lines(path: str, text: str) -> list[CaptionedPicture]:
    pictures = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            captions = row['captions']
            if not isinstance(captions, list) or not all(isinstance(c, str) for c in captions):
                raise ValueError('captions is not a list of texts')
            if row['split'] not in SPLITS:
                raise ValueError(f'split is {row["split"]!r}, expected one of {SPLITS}')
            pictures.append(CaptionedPicture(
                str(row['file']), row['split'], captions, str(row.get('source', ''))))
        except (ValueError, TypeError) as error:
            raise UserError(f'{path}:{number}: {error}') from None
        except KeyError as error:
            raise UserError(
                f'{path}:{number}: no {error} (expected file, split and captions)') from None
    return pictures


def _read_flickr(path: str, text: str) -> list[CaptionedPicture]:
    captions: dict[str, list[str]] = {}
    lines = text.splitlines()
    tabs = '\t' in lines[0]
    rows = csv.reader(lines, delimiter='\t', quoting=csv.QUOTE_NONE) if tabs else csv.reader(lines)
    for row in rows:
        if not row or [cell.strip().lower() for cell in row] == ['image', 'caption']:
            continue
        if len(row) < 2:
            raise UserError(
                f'{path}:{rows.line_num}: expected a picture and a caption, separated by a '
                f'{"tab" if tabs else "comma"}; known formats are JSON lines, Flickr8k '
                'captions.txt and COCO json')
        # Some copies of the CSV leave a comma in a caption without quotes.
        name = row[0].partition('#')[0].strip()
        caption = ','.join(row[1:]).strip()
        captions.setdefault(name, [])
        if caption:
            captions[name].append(caption)
    return [CaptionedPicture(name, _hashed_split(name), c) for name, c in captions.items()]


def _read_coco(path: str, document: dict) -> list[CaptionedPicture]:
    try:
        names = {image['id']: image['file_name'] for image in document['images']}
        captions: dict[str, list[str]] = {name: [] for name in names.values()}
        for annotation in document['annotations']:
            captions[names[annotation['image_id']]].append(annotation['caption'])
    except (KeyError, TypeError) as error:
        raise UserError(
            f'{path}: not a COCO caption file ({type(error).__name__}: {error})') from None
    return [CaptionedPicture(name, _hashed_split(name), c) for name, c in captions.items()]


def _hashed_split(name: str) -> str:
    digest = hashlib.sha1(os.path.basename(name).encode('utf-8')).hexdigest()
    return 'val' if int(digest, 16) % 10 == 0 else 'train'


def check_images(pictures: Iterable[CaptionedPicture], folder: str) -> None:
    """Raise UserError if a picture is not in the folder; names the first ones."""
    if not os.path.isdir(folder):
        raise UserError(f'{folder}: no such folder of pictures')
    present = {os.path.join(root, name) for root, _, names in os.walk(folder) for name in names}
    missing = [p.file for p in pictures if os.path.join(folder, p.file) not in present]
    if missing:
        raise UserError(
            f'{len(missing)} of the captioned pictures are not in {folder}, the first: '
            f'{", ".join(missing[:3])}. Fetch them, or take them out of the caption file')


def build_vocabulary(
        captions: Iterable[Sequence[str]], min_count: int) -> Vocabulary:
    """Return the vocabulary of tokenized captions: words that come at least `min_count` times."""
    counts = Counter(word for caption in captions for word in caption)
    words = sorted(word for word, count in counts.items() if count >= min_count)
    if not words:
        raise UserError(f'no word of the training captions comes {min_count} times (min_count)')
    return Vocabulary([PAD, START, END, UNKNOWN] + words)


def encode(caption: Sequence[str], vocabulary: Vocabulary, max_words: int) -> list[int]:
    """Return the indices of a tokenized caption between <start> and <end>."""
    unknown = vocabulary.word_map[UNKNOWN]
    words = [vocabulary.word_map.get(word, unknown) for word in caption[:max_words]]
    return [vocabulary.start, *words, vocabulary.end]
