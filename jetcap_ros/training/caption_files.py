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

- JSON lines or a JSON list: `{"file": ..., "split": "train" | "val" | "test", "captions": [...]}`
  with an optional `source` (the data set it comes from) and `caption_author` ("machine" where a
  model wrote the captions: they are learned from and never scored by).
- Tables of a picture and a caption a line, with commas (Flickr8k's `captions.txt`), tabs
  (`Flickr8k.token.txt`: image#0, a tab, caption) or bars (Flickr30k's `results.csv`); a column of
  numbers between the two is passed over.
- COCO: `captions_*.json` with `images` and `annotations`.

Where no split is told, every tenth picture, by a hash of its name, is for validation. Of several
files, a later one's captions of a picture stand in place of an earlier one's.
"""

from collections.abc import Iterable, Iterator
import csv
from dataclasses import dataclass
import hashlib
import io
import json
import os
import re
import sys
from typing import Any, NamedTuple

from ..errors import UserError

SPLITS = ('train', 'val', 'test')

_FORMATS = 'known formats are JSON lines, tables of a picture and a caption a line, and COCO json'
_PICTURE_COLUMNS = ('image', 'image_name', 'file', 'file_name', 'filename', 'path')
_CAPTION_COLUMNS = ('caption', 'comment', 'text', 'sentence')
# A stray quote takes the lines behind it for its caption, up to the next one.
_TAKEN_LINE = re.compile(r'\n[^,\n]+\.(jpe?g|png|webp|bmp|gif|tiff?)(#\d+)?,', re.IGNORECASE)


@dataclass
class CaptionedPicture:
    """One picture and what people said of it."""

    file: str  # relative to the folder of pictures
    split: str
    captions: list[str]
    source: str = ''
    by_people: bool = True  # who wrote the captions: people, or a model


class _Entry(NamedTuple):
    """What a file says of one picture, in one place."""

    place: str  # for people
    file: Any
    captions: Any
    split: Any = None
    source: str = ''
    by_people: bool = True


def read_captions(path: str) -> tuple[list[CaptionedPicture], int]:
    """
    Read a caption file, recognized by its contents; how much was read is said on standard error.

    :return: the pictures, and how many captions were left out, as null or without a word.
    :raises UserError: if it is missing, empty or of no known format, or if most of it is left
        out; names the line.
    """
    text = _read_text(path)
    pictures: dict[tuple[str, str, str], CaptionedPicture] = {}
    found = read = 0
    for entry in _entries(path, text):
        if not isinstance(entry.file, str) or not entry.file:
            raise UserError(f'{entry.place}: {entry.file!r} is no name of a picture')
        if not isinstance(entry.captions, list):
            raise UserError(f'{entry.place}: captions is not a list of texts')
        file = os.path.normpath(entry.file)
        split = _hashed_split(file) if entry.split is None else entry.split
        if split not in SPLITS:
            raise UserError(f'{entry.place}: split is {split!r}, expected one of {SPLITS}')
        for caption in entry.captions:
            if not isinstance(caption, str | None):
                raise UserError(f'{entry.place}: the caption {caption!r} is not a text')
        captions = [caption for caption in entry.captions if caption and re.search(r'\w', caption)]
        found, read = found + len(entry.captions), read + len(captions)
        if captions:
            picture = CaptionedPicture(file, split, [], entry.source, entry.by_people)
            pictures.setdefault((file, split, entry.source), picture).captions += captions
    if not pictures:
        raise UserError(f'{path}: no picture has a caption')
    if 2 * read < found:
        raise UserError(f'{path}: only {read} of {found} captions have a word; {_FORMATS}')
    left_out = f', {found - read} captions without a word left out' if read < found else ''
    print(f'{path}: {len(pictures)} pictures, {read} captions{left_out}', file=sys.stderr)
    return list(pictures.values()), found - read


def read_caption_files(paths: Iterable[str]) -> tuple[list[CaptionedPicture], int]:
    """Read several files; a picture has the captions of the last of them that names it."""
    pictures: dict[tuple[str, str], list[CaptionedPicture]] = {}
    left_out = 0
    for path in paths:
        of_this: dict[tuple[str, str], list[CaptionedPicture]] = {}
        read, without_word = read_captions(path)
        for picture in read:
            of_this.setdefault((picture.file, picture.split), []).append(picture)
        pictures.update(of_this)
        left_out += without_word
    return [picture for group in pictures.values() for picture in group], left_out


def _read_text(path: str) -> str:
    try:
        with open(path, 'rb') as file:
            content = file.read()
        text = content.decode('utf-8-sig')
    except OSError as error:
        raise UserError(f'{path}: {error.strerror}') from None
    except UnicodeDecodeError as error:
        line = content.count(b'\n', 0, error.start) + 1
        raise UserError(f'{path}:{line}: not a text file in UTF-8 ({error.reason})') from None
    if not text.strip():
        raise UserError(f'{path}: the caption file is empty')
    # Only these end a line: JSON may have others, U+2028 say, inside of a text.
    return text.replace('\r\n', '\n').replace('\r', '\n')


def _entries(path: str, text: str) -> Iterator[_Entry]:
    if not text.lstrip().startswith(('{', '[')):
        return _table_entries(path, text)
    try:
        document = json.loads(text)  # one document, or JSON lines of a single line
    except ValueError:
        document = None
    except RecursionError:
        raise UserError(f'{path}: it is nested too deeply') from None
    if isinstance(document, list):
        return _json_entries(
            (f'{path}: entry {number}', row) for number, row in enumerate(document, start=1))
    if isinstance(document, dict) and 'annotations' in document:
        return _coco_entries(path, document)
    return _json_entries(_json_lines(path, text))


def _json_lines(path: str, text: str) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(text.split('\n'), start=1):
        if line.strip():
            try:
                yield f'{path}:{number}', json.loads(line)
            except (ValueError, RecursionError) as error:
                raise UserError(f'{path}:{number}: {error}') from None


def _json_entries(rows: Iterable[tuple[str, Any]]) -> Iterator[_Entry]:
    for place, row in rows:
        if not isinstance(row, dict):
            raise UserError(f'{place}: expected an object with file, split and captions')
        for key in ('file', 'captions'):
            if key not in row:
                raise UserError(f'{place}: no {key!r} (expected file, split and captions)')
        yield _Entry(
            place, row['file'], row['captions'], row.get('split'), str(row.get('source', '')),
            row.get('caption_author') != 'machine')


def _coco_entries(path: str, document: dict[str, Any]) -> Iterator[_Entry]:
    place = path
    try:
        names = {image['id']: image['file_name'] for image in document['images']}
        for number, annotation in enumerate(document['annotations'], start=1):
            place = f'{path}: annotation {number}'
            yield _Entry(place, names[annotation['image_id']], [annotation['caption']])
    except (KeyError, TypeError) as error:
        raise UserError(
            f'{place}: not a COCO caption file ({type(error).__name__}: {error})') from None


def _table_entries(path: str, text: str) -> Iterator[_Entry]:
    lines = text.split('\n')
    first = next(line for line in lines if line.strip())
    delimiter = next((sign for sign in '\t|' if sign in first.partition(',')[0]), ',')
    rows = [(line, row) for line, row in _table_rows(lines, delimiter) if any(row)]
    header = [cell.lower() for cell in rows[0][1]]
    column = 1
    if header[0] in _PICTURE_COLUMNS:
        column = next((header.index(name) for name in _CAPTION_COLUMNS if name in header), 1)
        rows = rows[1:]
    elif all(len(row) > 2 and row[1].isdecimal() for _, row in rows):
        column = 2
    for line, row in rows:
        if len(row) <= column or not row[0]:
            raise UserError(
                f'{path}:{line}: expected a picture and a caption, separated by {delimiter!r}; '
                f'{_FORMATS}')
        # Some copies of the CSV leave a comma in a caption without quotes.
        caption = (delimiter if delimiter != ',' else ', ').join(row[column:])
        yield _Entry(
            f'{path}:{line}', re.sub(r'#\d+$', '', row[0]).strip(), [' '.join(caption.split())])


def _table_rows(lines: list[str], delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of each line and its cells, stripped."""
    rows: Iterable[tuple[int, list[str]]]
    if delimiter == ',':
        rows = _csv_rows(lines)
    else:
        rows = ((line, text.split(delimiter)) for line, text in enumerate(lines, start=1))
    for line, row in rows:
        yield line, [cell.strip() for cell in row]


def _csv_rows(lines: list[str]) -> list[tuple[int, list[str]]]:
    """Return the rows of a CSV file, one for each line where a quote is not closed."""
    try:
        reader = csv.reader(io.StringIO('\n'.join(lines)), strict=True)
        rows = [(reader.line_num, row) for row in reader]
        taken = any(_TAKEN_LINE.search(cell) for _, row in rows for cell in row)
        if not taken and 2 * len(rows) > len(lines):
            return rows
    except csv.Error:
        pass
    return [(line, row) for line, text in enumerate(lines, start=1) for row in csv.reader([text])]


def _hashed_split(name: str) -> str:
    digest = hashlib.sha1(os.path.basename(name).encode('utf-8', 'replace')).hexdigest()
    return 'val' if int(digest, 16) % 10 == 0 else 'train'
