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

"""Finding the bags of an archive."""

from collections.abc import Iterable, Iterator
from pathlib import Path
import re

from .bag import storage_files
from .errors import ReplayError


def find_bags(paths: Iterable[Path]) -> tuple[dict[str, Path], list[str]]:
    """
    Return the bags at and below the paths by name, which is the path below the folder given.

    A folder is one bag if it has a metadata.yaml, or if its storage files are named as the
    recorder names them, after the folder; otherwise each storage file is a bag of its own. Links
    are followed, each folder is entered once.

    :return: the bags, and what could not be looked into.
    :raises ReplayError: if there is no bag, or two have the same name.
    """
    found: dict[str, Path] = {}
    problems: list[str] = []
    for path in paths:
        if not path.is_dir() or _is_bag(path, problems):
            bags = {path.absolute().name: path}
        else:
            bags = {
                str(bag.relative_to(path)): bag for folder in _folders(path, problems)
                for bag in (
                    [folder] if _is_bag(folder, problems) else _list_files(folder, problems))}
        if not bags:
            raise ReplayError(
                f'there is no bag in {path}' + ''.join(f'; {problem}' for problem in problems))
        for name in bags.keys() & found.keys():
            raise ReplayError(
                f'{found[name]} and {bags[name]} have the same name: replay them apart')
        found.update(bags)
    return dict(sorted(found.items())), list(dict.fromkeys(problems))


def _folders(top: Path, problems: list[str]) -> Iterator[Path]:
    """Yield a folder and all below it, what is only reached by links last."""
    entered: set[tuple[int, int]] = set()
    folders, linked = [top], list[Path]()
    while folders or linked:
        folder = folders.pop() if folders else linked.pop()
        try:
            status = folder.stat()
            if (status.st_dev, status.st_ino) in entered:
                continue
            entered.add((status.st_dev, status.st_ino))
            for entry in sorted(folder.iterdir(), reverse=True):
                if entry.is_dir():
                    (linked if entry.is_symlink() else folders).append(entry)
        except OSError as error:
            problems.append(f'{folder} cannot be read: {error.strerror}')
            continue
        yield folder


def _is_bag(folder: Path, problems: list[str]) -> bool:
    try:
        if (folder / 'metadata.yaml').exists():
            return True
    except OSError:
        return False
    named_after_folder = re.compile(re.escape(folder.name) + r'(_\d+)?\.(db3|mcap)(\.zstd)?')
    files = _list_files(folder, problems)
    return bool(files) and all(named_after_folder.fullmatch(file.name) for file in files)


def _list_files(folder: Path, problems: list[str]) -> list[Path]:
    try:
        return storage_files(folder)
    except OSError as error:
        problems.append(f'{folder} cannot be read: {error.strerror}')
        return []
