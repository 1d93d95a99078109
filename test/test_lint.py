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

"""The rules of ament's linters, the order of imports and types, each where its tool is there."""

import ast
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
import subprocess
import sys
import urllib.request

import pytest

ROOT = Path(__file__).parent.parent
WORKFLOW = ROOT / '.github/workflows/ci.yml'
SOURCES = ['jetcap_ros', 'launch', 'test', 'setup.py']
PEP257_IGNORED = 'D100,D101,D102,D103,D104,D105,D106,D107,D203,D212,D404'
LINT_IMPORTS = 'from importlinter.cli import lint_imports_command as lint; lint(["--no-logo"])'


def run(*arguments):
    """Return what a linter that Python runs prints, '' if it has nothing to say."""
    result = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, text=True, capture_output=True)
    assert result.returncode == 0 or result.stdout or result.stderr
    return result.stdout + result.stderr if result.returncode else ''


def test_flake8():
    """With the plug-ins that are installed; docstrings are the next test's."""
    pytest.importorskip('flake8')
    assert run('-m', 'flake8', *SOURCES) == ''


def test_docstrings():
    """PEP 257 as ament_pep257 has it."""
    pytest.importorskip('ruff')
    assert run(
        '-m', 'ruff', 'check', '--isolated', '--quiet', '--select', 'D',
        '--ignore', PEP257_IGNORED, *SOURCES) == ''


def test_imports():
    """The order of the rooms, see setup.cfg."""
    pytest.importorskip('importlinter')
    assert run('-c', LINT_IMPORTS) == ''


def test_types():
    """As the newest ROS 2 and torch have them; the older ones have fewer."""
    pytest.importorskip('mypy')
    pytest.importorskip('rclpy')
    if int(version('rclpy').split('.')[0]) < 9 or find_spec('torch') is None:
        pytest.skip('types are checked with torch and with Kilted or newer')
    assert run('-m', 'mypy') == ''


def test_workflow():
    """By GitHub's schema, which comes with the tool."""
    pytest.importorskip('check_jsonschema')
    if not WORKFLOW.exists():
        pytest.skip('only the repository has it')
    assert run('-m', 'check_jsonschema', '--builtin-schema', 'vendor.github-workflows',
               str(WORKFLOW)) == ''


@pytest.mark.parametrize('linter, arguments', [
    ('ament_copyright', SOURCES),
    ('ament_flake8', ['--config', 'setup.cfg', *SOURCES]),
    ('ament_pep257', SOURCES),
    ('ament_xmllint', ['package.xml']),
])
def test_ament(linter, arguments, monkeypatch):
    main = pytest.importorskip(f'{linter}.main').main
    if linter == 'ament_xmllint':
        try:
            urllib.request.urlopen('http://download.ros.org', timeout=5).close()
        except OSError as error:
            pytest.skip(f'the schema of package.xml cannot be fetched: {error}')
    monkeypatch.chdir(ROOT)
    assert main(argv=arguments) == 0


def test_module_docstrings():
    """Every module says what it is for; the linters leave that open."""
    silent = []
    for path in sorted(ROOT.glob('jetcap_ros/**/*.py')) + sorted(ROOT.glob('test/*.py')):
        if not ast.get_docstring(ast.parse(path.read_text(encoding='utf-8'))):
            silent.append(str(path.relative_to(ROOT)))
    assert silent == []
