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

"""The `jetcap` command: caption, replay, plan, train, average, evaluate, pack, benchmark."""

import argparse
import importlib
import io
import pkgutil
import sys

from . import commands
from .errors import UserError

# Commands with requirements of their own, as setup.py names them.
EXTRAS = ('replay', 'train', 'evaluate')


def build_parser(command: str = '') -> argparse.ArgumentParser:
    """
    Return the parser of all commands, found as the modules of `jetcap_ros.commands`.

    :param command: the one that is given, if it is one: then the others need not be imported.
    """
    parser = argparse.ArgumentParser(
        prog='jetcap', description='Caption pictures, rosbags and cameras in little memory.')
    subparsers = parser.add_subparsers(dest='command', metavar='COMMAND', required=True)
    names = [module.name for module in pkgutil.iter_modules(commands.__path__)]
    for name in [command] if command in names else names:
        module = importlib.import_module(f'{commands.__name__}.{name}')
        help_line = (module.__doc__ or '').strip().splitlines()[0]
        subparser = subparsers.add_parser(
            name, help=help_line[0].lower() + help_line[1:].rstrip('.'),
            description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
        module.add_arguments(subparser)
        subparser.set_defaults(run=module.run)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names of files may be beyond the terminal
            stream.reconfigure(errors='backslashreplace')
    argv = sys.argv[1:] if argv is None else argv
    args = build_parser(*argv[:1]).parse_args(argv)
    try:
        code: int = args.run(args)
        return code
    except UserError as error:
        print(f'jetcap {args.command}: {error}', file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        if (error.name or '').startswith('jetcap_ros'):
            raise
        extra = args.command if args.command in EXTRAS else 'torch,opencv'
        print(
            f'jetcap {args.command}: {error}: install it, with '
            f"`pip install 'jetcap_ros[{extra}]'` say", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output has gone, `jetcap ... | head`
        sys.stderr.close()
        return 141


if __name__ == '__main__':
    sys.exit(main())
