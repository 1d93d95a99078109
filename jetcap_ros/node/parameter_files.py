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

"""Parameter files, checked before ROS reads them: its own errors name neither node nor rule."""

from collections.abc import Iterable, Iterator, Sequence
import difflib
import re

import yaml

PARAMETERS_KEY = 'ros__parameters'


class ParameterFileError(ValueError):
    """A parameter file that ROS would refuse; the message names file and line."""


def parameter_files(arguments: Sequence[str]) -> list[str]:
    """Return the paths that a command line gives as `--params-file`."""
    paths, in_ros_arguments = [], False
    words = iter(arguments)
    for word in words:
        if word in ('--ros-args', '--'):
            in_ros_arguments = word == '--ros-args'
        elif in_ros_arguments and word == '--params-file':
            paths.append(next(words, ''))
    return paths


def read_node_names(path: str) -> list[str]:
    """
    Return for which nodes a file has parameters, as names that begin with a slash.

    :raises ParameterFileError: if ROS would refuse the file.
    """
    try:
        with open(path, encoding='utf-8') as file:
            # Not constructed: like rcl, it minds no tags; launch_ros writes !!python/tuple.
            root = yaml.compose(file, yaml.SafeLoader)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, 'strerror', None) or error
        raise ParameterFileError(f'parameter file {path}: {reason}') from error
    except yaml.YAMLError as error:
        mark = getattr(error, 'problem_mark', None)
        where = f', line {mark.line + 1}' if mark else ''
        reason = getattr(error, 'problem', None) or 'not YAML'
        raise ParameterFileError(f'parameter file {path}{where}: {reason}') from error
    return list(_node_names(path, '', root)) if root else []


def _node_names(path: str, prefix: str, node: yaml.Node) -> Iterator[str]:
    if not isinstance(node, yaml.MappingNode):
        raise ParameterFileError(
            f'parameter file {path}, line {node.start_mark.line + 1}: expected '
            f'"NODE: {{{PARAMETERS_KEY}: {{NAME: VALUE}}}}", found {prefix.lstrip("/") or "it"} '
            f'without {PARAMETERS_KEY} above')
    for key, value in node.value:
        if key.value == PARAMETERS_KEY and prefix:
            yield prefix
        else:
            yield from _node_names(path, f'{prefix}/{str(key.value).strip("/")}', value)


def unused_file(path: str, names: Iterable[str], node_name: str) -> str:
    """
    Say that none of a file's parameters are for a node; '' if some are, or the file is empty.

    :param node_name: with its namespace.
    """
    names = list(names)
    if not names or any(_matches(name, node_name) for name in names):
        return ''
    return (
        f'parameter file {path} is not used: it is for {", ".join(names)}, and this node is '
        f'{node_name}; write {node_name} or /**')


def _matches(pattern: str, node_name: str) -> bool:
    tokens = {'*': r'/\w+', '**': r'(/\w+)*'}
    expression = ''.join(tokens.get(token, re.escape(f'/{token}'))
                         for token in pattern.strip('/').split('/'))
    return re.fullmatch(expression, node_name) is not None


def unknown_parameters(names: Iterable[str], known: Iterable[str]) -> str:
    """Name the parameters that a node does not have, each with the nearest it has; '' if none."""
    known = list(known)
    texts = []
    for name in names:
        nearest = difflib.get_close_matches(name, known, n=1)
        texts.append(name + (f' (meant: {nearest[0]}?)' if nearest else ''))
    return f'parameters that this node does not have: {", ".join(texts)}' if texts else ''
