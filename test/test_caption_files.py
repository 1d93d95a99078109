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

"""Caption files of every format and habit: read, or one line that names file and line."""

import json
from pathlib import Path
import re

from jetcap_ros.errors import UserError
from jetcap_ros.training.caption_files import read_caption_files, read_captions
from jetcap_ros.training.pictures import present_pictures
import pytest


def test_flickr_csv_and_tab(tmp_path):
    path = tmp_path / 'captions.txt'
    path.write_text('image,caption\na.jpg,A dog runs .\na.jpg,"A dog, brown, runs"\nb.jpg,A cat\n')
    assert [(p.file, p.captions) for p in read_captions(str(path))[0]] == [
        ('a.jpg', ['A dog runs .', 'A dog, brown, runs']), ('b.jpg', ['A cat'])]
    path.write_text('a.jpg#0\tA dog "runs" .\na.jpg#1\tA dog, brown\n')
    pictures, _ = read_captions(str(path))
    assert [(p.file, p.captions) for p in pictures] == [
        ('a.jpg', ['A dog "runs" .', 'A dog, brown'])]


def test_hashed_split_is_stable_and_about_a_tenth(tmp_path):
    path = tmp_path / 'captions.txt'
    path.write_text(''.join(f'{i}.jpg,A dog\n' for i in range(500)))
    one, two = (read_captions(str(path))[0] for _ in range(2))
    assert one == two
    assert 25 < sum(p.split == 'val' for p in one) < 75


def test_coco_json(tmp_path):
    path = tmp_path / 'captions.json'
    path.write_text(json.dumps({
        'images': [{'id': 7, 'file_name': 'x.jpg'}, {'id': 8, 'file_name': 'y.jpg'}],
        'annotations': [{'image_id': 7, 'caption': 'A man'}, {'image_id': 7, 'caption': 'Man'}]}))
    assert [(p.file, p.captions) for p in read_captions(str(path))[0]] == [
        ('x.jpg', ['A man', 'Man'])]


def test_of_several_files_the_last_that_names_a_picture_counts(tmp_path):
    for name, rows in {
            'one': [('a.jpg', 'a man'), ('b.jpg', 'a dog')],
            'two': [('b.jpg', 'a cat'), ('c.jpg', 'a cow')]}.items():
        (tmp_path / name).write_text(''.join(
            json.dumps({'file': file, 'split': 'train', 'captions': [caption]}) + '\n'
            for file, caption in rows))
    pictures, _ = read_caption_files([str(tmp_path / 'one'), str(tmp_path / 'two')])
    assert [(p.file, p.captions) for p in pictures] == [
        ('a.jpg', ['a man']), ('b.jpg', ['a cat']), ('c.jpg', ['a cow'])]


def test_json_lines_of_one_line(tmp_path):
    path = tmp_path / 'one.jsonl'
    path.write_text('{"file": "a.jpg", "split": "val", "captions": ["A dog"], "source": "s"}\n')
    (picture,), _ = read_captions(str(path))
    assert (picture.split, picture.source) == ('val', 's')


@pytest.mark.parametrize('text, message', [
    ('', 'empty'),
    ('\n \n', 'empty'),
    ('{"file": "a", "split": "train", "captions": []}', 'no picture has a caption'),
    ('{"file": "a", "split": "train"}\n{"x": 1}', ":1: no 'captions'"),
    ('{"file": "a", "split": "dev", "captions": ["b"]}', "split is 'dev'"),
    ('{"file": "a", "split": "train", "captions": "b"}', 'not a list'),
    ('{"file": "a", "split": "train", "captions": ["b"]}\n{broken', ':2:'),
    ('{"images": [{"id": 1}], "annotations": []}', 'not a COCO caption file'),
    ('just a text', 'expected a picture and a caption'),
])
def test_bad_caption_files(tmp_path, text, message):
    path = tmp_path / 'captions'
    path.write_text(text)
    with pytest.raises(UserError) as raised:
        read_captions(str(path))
    assert message in str(raised.value) and str(path) in str(raised.value)


def read(path, text):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return [(picture.file, picture.captions) for picture in read_captions(str(path))[0]]


def rows(count, pictures=8):
    return [f'{number % pictures}.jpg,A grey field {number} .' for number in range(count)]


def test_a_stray_quote_costs_nothing(tmp_path, capsys):
    lines = ['image,caption', *rows(40)]
    for place, line in (
            (11, '0.jpg,"no entry'), (20, '5.jpg,"a "quoted" sign'), (30, '5.jpg,end"')):
        lines.insert(place, line)
    pictures = read(tmp_path / 'captions.csv', '\n'.join(lines))
    assert len(pictures) == 8
    assert sum(len(captions) for _, captions in pictures) == 43
    assert any('no entry' in caption for caption in dict(pictures)['0.jpg'])
    assert capsys.readouterr().err == f'{tmp_path / "captions.csv"}: 8 pictures, 43 captions\n'


def test_a_caption_of_two_lines_in_quotes_is_read(tmp_path):
    text = 'image,caption\na.jpg,"A dog,\nrunning"\nb.jpg,"A ""red"" cat"\nc.jpg,Sky\n'
    assert read(tmp_path / 'captions.csv', text) == [
        ('a.jpg', ['A dog, running']), ('b.jpg', ['A "red" cat']), ('c.jpg', ['Sky'])]


@pytest.mark.parametrize('text', [
    'image_name| comment_number| comment\na.jpg| 0| A dog\na.jpg| 1| 2 dogs\n',
    'image,comment_number,comment\na.jpg,0,A dog\na.jpg,1,2 dogs\n',
    'a.jpg,0,A dog\na.jpg,1,2 dogs\n', 'a.jpg\t0\tA dog\na.jpg\t1\t2 dogs\n'])
def test_a_column_of_numbers_is_no_word(tmp_path, text):
    assert read(tmp_path / 'captions', text) == [('a.jpg', ['A dog', '2 dogs'])]


def coco(*captions):
    return json.dumps({
        'images': [{'id': number, 'file_name': f'{number}.jpg'} for number in range(len(captions))],
        'annotations': [{'image_id': number, 'caption': caption}
                        for number, caption in enumerate(captions)]})


def test_captions_without_a_word_are_left_out_and_counted(tmp_path, capsys):
    path = tmp_path / 'captions.json'
    assert read(path, coco('A dog', None, 'A cat', ' . ')) == [
        ('0.jpg', ['A dog']), ('2.jpg', ['A cat'])]
    assert capsys.readouterr().err == (
        f'{path}: 2 pictures, 2 captions, 2 captions without a word left out\n')
    assert read_captions(str(path))[1] == 2
    with pytest.raises(UserError, match='only 1 of 3 captions have a word'):
        read(path, coco('A dog', None, ''))


@pytest.mark.parametrize('text, message', [
    (coco('A dog', 7), 'captions: annotation 2: the caption 7 is not a text'),
    ('{"file": "a", "split": "val", "captions": ["b", 7]}', 'captions:1: the caption 7'),
    ('{"file": 7, "split": "val", "captions": ["b"]}', 'captions:1: 7 is no name of a picture'),
    ('{"file": "a", "split": "val", "captions": ["b"]}\n[3]', 'captions:2: expected an object'),
    ('[{"file": "a", "captions": ["b"]}, 7]', 'captions: entry 2: expected an object'),
    ('{"images": [], "annotations": [{"image_id": 1, "caption": ""}]}', 'annotation 1: not a COCO'),
    ('{"images": 3, "annotations": []}', 'not a COCO'), ('[' * 100_000, 'nested too deeply'),
    ('a.jpg,A dog\n\nb.jpg\n', 'captions:3: expected a picture and a caption'),
    (b'a.jpg,A dog\nb.jpg,caf\xe9\n', 'captions:2: not a text file in UTF-8')])
def test_what_cannot_be_read_is_named_with_its_place(tmp_path, text, message):
    with pytest.raises(UserError, match=re.escape(message)) as raised:
        read(tmp_path / 'captions', text)
    assert '\n' not in str(raised.value)


def test_a_json_list_and_texts_with_line_separators_are_read(tmp_path):
    row = {'file': 'a.jpg', 'split': 'val', 'captions': ['A\u2028dog\x85']}
    expected = [('a.jpg', ['A\u2028dog\x85'])]
    assert read(tmp_path / 'captions', json.dumps([row])) == expected
    line = json.dumps(row, ensure_ascii=False)
    assert read(tmp_path / 'captions', line + '\r\n' + line + '\r\n') == [
        ('a.jpg', 2 * ['A\u2028dog\x85'])]


def test_the_same_picture_is_found_by_every_way_to_it(tmp_path):
    (tmp_path / 'images').mkdir()
    (tmp_path / 'images/7.jpg').touch()
    (tmp_path / 'images/linked').symlink_to(tmp_path / 'images')
    text = ''.join(f'{{"file": "{name}", "split": "val", "captions": ["A dog"]}}\n'
                   for name in ('7.jpg', './7.jpg', 'x/../7.jpg', 'linked/7.jpg'))
    path = Path(tmp_path, 'captions.jsonl')
    assert [captions for _, captions in read(path, text)] == [3 * ['A dog'], ['A dog']]
    pictures, _ = read_captions(str(path))
    assert present_pictures(pictures, str(tmp_path / 'images')) == pictures
