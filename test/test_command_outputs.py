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

"""Outputs that cannot be written are told in one line before the work begins."""

import os

from jetcap_ros.cli import main
from jetcap_ros.errors import UserError
from jetcap_ros.outputs import require_file, require_folder
import pytest


def test_folders_are_made_and_tried(tmp_path):
    require_folder(tmp_path / 'new/folder')
    assert list((tmp_path / 'new/folder').iterdir()) == []
    (tmp_path / 'file').touch()
    for path in (tmp_path / 'file', tmp_path / 'file/below', '/proc/nothing'):
        with pytest.raises(UserError, match=f'--out {path}: '):
            require_folder(path)


def test_files_need_a_folder_that_is_there(tmp_path):
    require_file(tmp_path / 'file')
    assert not (tmp_path / 'file').exists()
    require_file(os.devnull)
    for path in (tmp_path, tmp_path / 'nowhere/file', '/proc/file'):
        with pytest.raises(UserError, match=f'--json {path}: '):
            require_file(path, '--json')


@pytest.mark.parametrize('command', [
    ('train', 'captions', 'images', '--out', 'FILE'),
    ('train', 'captions', 'images', '--out', 'new', '--cache', 'FILE'),
    ('train', 'captions', 'images', '--out', 'new', '--save-every', 'nan'),
    ('evaluate', 'checkpoint', 'captions', 'images', '--out', 'FILE'),
    ('evaluate', 'checkpoint', 'captions', 'images', '--word-gain', 'nan'),
    pytest.param(
        ('average', 'checkpoint', '--out', 'nowhere/out.pth'), marks=pytest.mark.needs('torch')),
    ('replay', 'BAG', '--out', 'FILE'),
    ('replay', 'BAG', '--out', 'FILE/below'),
    ('replay', 'BAG', '--out', 'new', '--write-bag', 'new'),
    ('replay', 'BAG', '--out', 'new/below', '--write-bag', 'new'),
    ('replay', 'BAG', '--out', 'new', '--write-bag', 'FILE/bag'),
    ('replay', 'BAG', '--out', 'new', '--every', 'nan'),
    ('replay', 'BAG', '--out', 'new', '--every', 'inf')])
def test_commands_refuse_before_the_work(tmp_path, monkeypatch, capsys, command):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'FILE').touch()
    if command[0] == 'replay':
        write_bag = pytest.importorskip('replay_bags').write_bag
        write_bag(tmp_path / 'BAG', 1)
    assert main(list(command)) == 2
    error = capsys.readouterr().err
    assert error.count('\n') == 1 and error.startswith(f'jetcap {command[0]}: --')
    assert not list(tmp_path.glob('new/**/*.jsonl'))
