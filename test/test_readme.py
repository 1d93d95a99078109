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

"""The README's commands: each is one that the tests run, and each name in it exists."""

from pathlib import Path
import re
import shlex
import shutil
import subprocess

from jetcap_ros.cli import build_parser
import pytest

ROOT = Path(__file__).parent.parent
README = ROOT / 'README.md'
LAUNCH_FILES = {path.name: path.read_text(encoding='utf-8') for path in ROOT.glob('launch/*.py')}
TESTS = '\n'.join(
    path.read_text(encoding='utf-8') for path in ROOT.glob('test/*.py') if path != Path(__file__))
PROGRAMS = ('make', 'jetcap', 'ros2', 'colcon', 'rosdep', 'source', 'python')


def commands(text):
    """Return the commands in the code blocks, and those among the words in backquotes."""
    text = re.sub(r' *\\\n *', ' ', text)
    blocks = re.findall(r'^```(?:\w*)\n(.*?)^```$', text, re.MULTILINE | re.DOTALL)
    prose = re.sub(r'^```.*?^```$', '', text, flags=re.MULTILINE | re.DOTALL)
    blocks += re.findall(r'(?:^|\n\n)((?:    .+\n?)+)', prose)
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    lines += [code for code in re.findall(r'(?<!`)`([^`\n]+)`', prose) if ' ' in code]
    lines = [re.sub(r'\s+#.*', '', line).removeprefix('$ ') for line in lines]
    return [line for line in lines
            if line.split(' ')[0] in PROGRAMS and not re.match(r'\w+ \w+:(?!=)', line)]


def launch_arguments(name):
    """Return the arguments that a launch file declares, those of a file it includes with them."""
    text = LAUNCH_FILES[name]
    arguments = set(re.findall(r"DeclareLaunchArgument\(\s*'(\w+)'", text))
    for other in LAUNCH_FILES:
        if other != name and other in text:
            arguments |= launch_arguments(other)
    return arguments


def fault(line):
    """Return what is wrong with a command, '' if it is one that exists and is tested."""
    words = shlex.split(line)
    if words[0] == 'make':
        if shutil.which('make') is None:
            return ''
        result = subprocess.run(['make', '-n', *words[1:]], cwd=ROOT, capture_output=True)
        return result.stderr.decode().strip()
    if words[0] == 'jetcap':
        try:
            # The name alone is not a command to run, it is spoken of.
            build_parser().parse_args(words[1:] if words[2:] else [words[1], '--help'])
        except SystemExit as end:
            if end.code:
                return 'jetcap does not take it'
        run = rf"(?:\[|\(|'jetcap_ros.cli', ?)'{words[1]}'"
        return '' if re.search(run, TESTS) else 'no test runs it'
    if words[:2] == ['ros2', 'launch']:
        if words[2] != 'jetcap_ros' or words[3] not in LAUNCH_FILES:
            return 'no such launch file'
        unknown = {word.split(':=')[0] for word in words[4:]} - launch_arguments(words[3])
        if unknown:
            return f'{words[3]} has no argument {unknown}'
        return '' if words[3] in TESTS or words[3].split('.')[0] in TESTS else 'no test runs it'
    if words[:2] == ['ros2', 'lifecycle']:
        return '' if words[3] == '/captioner' and 'lifecycle_msgs' in TESTS else 'no such node'
    if words[0] == 'ros2' and words[1] in ('topic', 'service'):
        name = words[3].rpartition('/')[2]
        return '' if re.search(rf"[/'\"]{name}['\"]", TESTS) else f'no test uses {words[3]}'
    if words[0] == 'python':
        return '' if words[1] == '-m' and words[2] in TESTS else 'no test runs it'
    if words[0] == 'colcon':
        return '' if f"'colcon', '{words[1]}'" in TESTS else 'no test runs it'
    if words[0] in ('rosdep', 'source'):  # of the robot's system
        return ''
    return 'nobody knows how it is tested'


@pytest.mark.parametrize('line', commands(README.read_text(encoding='utf-8')))
def test_command_of_the_readme(line):
    assert fault(line) == ''


@pytest.mark.parametrize('path', sorted(ROOT.glob('docs/*.md')), ids=lambda path: path.name)
def test_commands_of_the_docs(path):
    lines = commands(path.read_text(encoding='utf-8'))
    ours = [line for line in lines if line.startswith(('jetcap ', 'ros2 launch ', 'make '))]
    assert [(line, fault(line)) for line in ours if fault(line)] == []


@pytest.mark.parametrize('line', [
    'make nothing', 'jetcap sing', 'jetcap caption --json', 'jetcap replay bag --out x --loud',
    'ros2 launch jetcap_ros orchestra.launch.py', 'ros2 topic echo /captioner/song',
    'ros2 launch jetcap_ros captioner.launch.py volume:=11', 'python -m jetcap_ros.sing',
    'colcon sing', 'ros2 bag play x'])
def test_wrong_commands_are_found(line):
    assert commands(f'Text:\n\n    {line}   # comment\n') == [line]
    assert commands(f'Text:\n```bash\n$ {line}\n```\n') == [line]
    assert commands(f'Text: `{line}`.\n') == [line]
    assert fault(line)


@pytest.mark.parametrize(
    'path', [README, *sorted(ROOT.glob('docs/*.md'))], ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    links = re.findall(r'\]\(([^)#]+)[^)]*\)', path.read_text(encoding='utf-8'))
    missing = [link for link in links
               if '://' not in link and not (path.parent / link).exists()]
    assert missing == []


@pytest.mark.parametrize('name', ['CONTRIBUTING.md', 'docs/architecture.md'])
def test_files_that_are_named_exist(name):
    codes = re.findall(r'`([^`\s]+(?:\.py|\.md|\.yaml|\.cfg|/))`', (ROOT / name).read_text('utf-8'))
    assert len(codes) > 10
    assert [code for code in codes if '/' in code
            and not (ROOT / code).exists() and not (ROOT / 'jetcap_ros' / code).exists()] == []


@pytest.mark.parametrize('name', ['README.md', 'docs/architecture.md'])
def test_every_room_is_listed(name):
    text = (ROOT / name).read_text(encoding='utf-8')
    listed = set(re.findall(r'`(?:jetcap_ros/)?(\w+)/?`', text))
    assert {path.parent.name for path in ROOT.glob('jetcap_ros/*/__init__.py')} - listed == set()


def test_settings_in_the_readme_exist():
    pytest.importorskip('rclpy')
    from jetcap_ros.node.parameters import SPECS
    codes = re.findall(r'`([^`\n]+)`', README.read_text(encoding='utf-8'))
    parameters = {match[1] for code in codes if (match := re.fullmatch(r'(\w+): \S+', code))}
    arguments = {match[1] for code in codes if (match := re.fullmatch(r'(\w+):=\S+', code))}
    assert parameters - set(SPECS) == set()
    assert arguments - set().union(*map(launch_arguments, LAUNCH_FILES)) == set()
    assert parameters and arguments
