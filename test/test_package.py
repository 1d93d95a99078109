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

"""The package as it is delivered: metadata, files, commands, and what is imported when."""

import ast
import json
import os
from pathlib import Path
import re
import shutil
import subprocess
import sys
from xml.etree import ElementTree

import jetcap_ros
from jetcap_ros.cli import build_parser, main
import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ElementTree.parse(ROOT / 'package.xml').getroot()
DEPENDENCIES = {
    element.text for element in PACKAGE
    if element.tag in ('depend', 'exec_depend') or element.tag.endswith('build_depend')}

# Where the module's name is not that of its rosdep key, and what pip alone brings (an extra).
ROSDEP = {
    'cv2': 'python3-opencv', 'numpy': 'python3-numpy', 'psutil': 'python3-psutil',
    'jinja2': 'python3-jinja2', 'torch': 'python3-torch', 'tqdm': 'python3-tqdm'}
EXTRAS = {
    'torchvision': 'train', 'matplotlib': 'train', 'yaml': 'train', 'pycocoevalcap': 'evaluate',
    'rosbags': 'replay', 'mcap': 'replay', 'lz4': 'replay', 'ruamel': 'replay',
    'zstandard': 'replay', 'distributed': 'dask'}
DISTRIBUTIONS = {'yaml': 'PyYAML', 'ruamel': 'ruamel.yaml'}  # where unlike the module
OPTIONAL = {'bondpy', 'cv_bridge', 'onnxruntime'}  # used where a robot has them


def python(code):
    """Return what a Python of its own prints for some code."""
    return subprocess.run(
        [sys.executable, '-c', code], cwd=ROOT, text=True, capture_output=True, check=True).stdout


def setup_arguments():
    """Return the arguments of setup() in setup.py, names replaced by their values."""
    names, arguments = {'glob': lambda pattern: [], 'find_packages': lambda **_: []}, {}
    for statement in ast.parse((ROOT / 'setup.py').read_text(encoding='utf-8')).body:
        if isinstance(statement, ast.Assign):
            exec(compile(ast.Module([statement], []), 'setup.py', 'exec'), names)
        elif isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
            for keyword in statement.value.keywords:
                value = ast.Expression(keyword.value)
                arguments[keyword.arg] = eval(compile(value, 'setup.py', 'eval'), names)
    return arguments


def copy_sources(folder):
    """Copy what a build needs, and nothing of an earlier one."""
    folder.mkdir()
    for name in ('jetcap_ros', 'launch', 'config', 'resource'):
        shutil.copytree(
            ROOT / name, folder / name, ignore=shutil.ignore_patterns('__pycache__'))
    for name in ('package.xml', 'setup.py', 'setup.cfg', 'LICENSE'):
        shutil.copy(ROOT / name, folder)


def test_version_is_the_same_everywhere():
    version = PACKAGE.findtext('version')
    assert re.fullmatch(r'\d+\.\d+\.\d+', version)
    assert setup_arguments()['version'] == version
    assert jetcap_ros.__version__ == version


def test_changelog_has_the_version():
    path = ROOT / 'CHANGELOG.rst'
    if not path.exists():
        pytest.skip('CHANGELOG.rst is not there')
    headings = re.findall(
        r'^(\S.*)\n[-=~^]{3,}$', path.read_text(encoding='utf-8'), re.MULTILINE)
    versions = [heading.split()[0] for heading in headings if heading[0].isdigit()]
    assert versions[0] == PACKAGE.findtext('version')
    assert len(set(versions)) == len(versions)


def test_metadata_agree():
    arguments = setup_arguments()
    assert arguments['name'] == PACKAGE.findtext('name') == 'jetcap_ros'
    assert arguments['license'] == PACKAGE.findtext('license') == 'Apache-2.0'
    assert 'Apache License' in (ROOT / 'LICENSE').read_text(encoding='utf-8')[:200]
    maintainer = PACKAGE.find('maintainer')
    assert arguments['maintainer'] == maintainer.text
    assert arguments['maintainer_email'] == maintainer.get('email')
    assert PACKAGE.findtext('description').startswith(arguments['description'])
    assert PACKAGE.findtext('export/build_type') == 'ament_python'


def test_what_is_imported_is_declared():
    extras = {
        name: {re.split(r'[<>=\[]', requirement)[0] for requirement in requirements}
        for name, requirements in setup_arguments()['extras_require'].items()}
    undeclared = []
    for path in [*ROOT.glob('jetcap_ros/**/*.py'), *ROOT.glob('launch/*.py')]:
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            for name in {name.split('.')[0] for name in names} - OPTIONAL - {'jetcap_ros'}:
                distribution = DISTRIBUTIONS.get(name, name)
                if name not in sys.stdlib_module_names \
                        and ROSDEP.get(name, name) not in DEPENDENCIES \
                        and distribution not in extras.get(EXTRAS.get(name), ()):
                    undeclared.append(f'{path.relative_to(ROOT)}: {name}')
    assert undeclared == []


def test_every_file_is_installed(tmp_path):
    """As colcon installs, from a copy that has nothing else."""
    source, root = tmp_path / 'source', tmp_path / 'root'
    copy_sources(source)
    subprocess.run(
        [sys.executable, 'setup.py', '-q', 'install', '--root', str(root), '--prefix', '/robot',
         '--single-version-externally-managed', '--record', str(tmp_path / 'record')],
        cwd=source, check=True, capture_output=True)
    installed = root / 'robot'
    module, = installed.glob('lib/python*/*/jetcap_ros')
    for path in (source / 'jetcap_ros').rglob('*'):
        if path.is_file():
            copy = module / path.relative_to(source / 'jetcap_ros')
            assert copy.is_file() and copy.read_bytes() == path.read_bytes(), path
    share = installed / 'share/jetcap_ros'
    for path in [source / 'package.xml', *source.glob('launch/*.py'), *source.rglob('*.yaml')]:
        assert (share / path.relative_to(source)).is_file(), path
    assert (installed / 'share/ament_index/resource_index/packages/jetcap_ros').is_file()
    for executable in ('captioner', 'jetcap'):
        script = installed / 'lib/jetcap_ros' / executable
        assert script.is_file() and script.stat().st_mode & 0o111


def test_colcon_builds_it(tmp_path):
    """Where colcon is installed: an executable that `ros2 run` finds, and that runs."""
    if shutil.which('colcon') is None:
        pytest.skip('colcon is not installed')
    copy_sources(tmp_path / 'src')
    subprocess.run(
        ['colcon', 'build', '--packages-select', 'jetcap_ros'], cwd=tmp_path, check=True,
        capture_output=True)
    result = subprocess.run(
        ['bash', '-c', '. install/setup.bash && install/jetcap_ros/lib/jetcap_ros/jetcap --help'],
        cwd=tmp_path, text=True, capture_output=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith('usage: jetcap')


def test_entry_points_can_be_called():
    for entry in setup_arguments()['entry_points']['console_scripts']:
        module, _, function = entry.partition('=')[2].strip().partition(':')
        code = f'import {module}; print(callable({module}.{function}))'
        assert python(code).strip() == 'True'


@pytest.mark.parametrize('pattern', [
    r'/(?:work|root|home/\w+)/',  # somebody's computer
    r'\b(?:TODO|FIXME|XXX|HACK)\b',
    r'^(?:<{7}|={7}|>{7})(?: |$)',  # a merge that was left
    r'\bbreakpoint\(|\bpdb\b',
    r'\bissue #?\d',
])
def test_no_traces_of_work(pattern):
    found = []
    for folder in ('jetcap_ros', 'launch', 'config', 'test', 'docs', '.'):
        for path in (ROOT / folder).glob('**/*' if folder != '.' else '*'):
            if path.suffix in ('.py', '.md', '.rst', '.xml', '.yaml', '.html', '.sh', '.cfg') \
                    and path != Path(__file__) and 'data' not in path.relative_to(ROOT).parts:
                text = path.read_text(encoding='utf-8')
                found += [f'{path.relative_to(ROOT)}: {match[0]}'
                          for match in re.finditer(pattern, text, re.MULTILINE)]
    assert found == []


def commands():
    """Return the parsers of the commands by name."""
    subparsers, = (a for a in build_parser()._actions if hasattr(a, 'choices') and a.choices)
    return subparsers.choices


def test_help_lists_the_commands():
    result = subprocess.run(
        [sys.executable, '-m', 'jetcap_ros.cli', '--help'], cwd=ROOT, text=True,
        capture_output=True, check=True)
    modules = {path.stem for path in ROOT.glob('jetcap_ros/commands/[a-z]*.py')}
    assert modules == set(commands())
    for name in modules:
        assert re.search(rf'^ +{name}\s+\w', result.stdout, re.MULTILINE), name


@pytest.mark.parametrize('name', sorted(commands()))
def test_help_of_command(name):
    result = subprocess.run(
        [sys.executable, '-m', 'jetcap_ros.cli', name, '--help'], cwd=ROOT, text=True,
        capture_output=True)
    assert result.returncode == 0 and not result.stderr
    for action in commands()[name]._actions:
        shown = action.option_strings or [action.metavar or action.dest]
        assert any(text in result.stdout for text in shown), shown
        assert action.help or action.choices, f'{shown} says nothing of itself'


def test_caption_of_files(tmp_path, capfd, photograph):
    """One line a picture; what is no picture is named, and costs the others nothing."""
    import cv2
    picture, noise = tmp_path / 'astronaut.png', tmp_path / 'noise.png'
    cv2.imwrite(str(picture), cv2.cvtColor(photograph, cv2.COLOR_RGB2BGR))
    noise.write_bytes(b'no picture')
    assert main(['caption', '--model', 'simple', str(noise), str(picture)]) == 1
    printed = capfd.readouterr()
    name, _, caption = printed.out.strip().partition('\t')
    assert name == str(picture) and len(caption.split()) >= 3
    assert f'{noise}: it is no picture of a known kind' in printed.err
    assert main(['caption', '--model', 'simple', '--json', str(picture)]) == 0
    assert json.loads(capfd.readouterr().out)['text'] == caption


def test_command_line_loads_nothing_heavy():
    """The help comes at once, on a robot where torch takes seconds."""
    code = 'import sys, jetcap_ros.cli; jetcap_ros.cli.build_parser(); print(*sys.modules)'
    assert not {'torch', 'cv2', 'rclpy', 'numpy', 'matplotlib'} & set(python(code).split())


def test_node_loads_no_framework():
    """What the node imports stays in its memory for as long as the robot runs."""
    pytest.importorskip('rclpy')
    loaded = python('import sys, jetcap_ros.node.captioner_node; print(*sys.modules)').split()
    assert 'jetcap_ros.node.captioner_node' in loaded and 'cv2' in loaded
    assert not {'torch', 'torchvision', 'jetcap_ros.models.mobilenet'} & set(loaded)


@pytest.mark.parametrize('target, expected', [
    ('test', '-m pytest -m measures'),
    ('demo', '-m jetcap_ros.demo --out demo'),
    ("demo DEMO_IMAGES='my pictures'", "-m jetcap_ros.demo --out demo --images 'my pictures'"),
])
def test_make(target, expected):
    if shutil.which('make') is None:
        pytest.skip('make is not installed')
    # Not as a part of the make that may be running the tests.
    environment = {k: v for k, v in os.environ.items() if not k.startswith(('MAKE', 'MFLAGS'))}
    result = subprocess.run(
        f'make -n {target}', shell=True, cwd=ROOT, text=True, capture_output=True,
        env=environment)
    assert result.returncode == 0, result.stderr
    assert expected in result.stdout.splitlines()[-1]
