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
What each flag for little memory saves: `python -m jetcap_ros.benchmark.server_flags MODEL MMPROJ`.

llama-server is started with the flags that the worker gives it, with each of them left out, and
with none; each time it captions some different pictures. Memory is the server's own, pages of its
files included.
"""

import argparse
import shutil
import sys

import numpy as np

from .processes import peak_rss_mb, shares_mb
from .report import Table
from ..images.preprocessing import jpeg_within
from ..models.server.address import Address
from ..models.server.chat import ChatClient
from ..models.server.command import (
    find_program, Flag, little_memory_flags, llama_command, with_little_memory)
from ..models.server.process import make_socket_folder, ServerProcess, SOCKET_NAME

IMAGE_SIZE, TIMEOUT_S = 384, 600.0
TOGETHER = ('-b', '-ub')  # the larger of both decides
BESIDE_THE_POINT = ('-t',)


def variants(flags: list[Flag]) -> dict[str, list[Flag]]:
    """Return lists of flags by what is left out of them."""
    found = {'nothing': flags}
    for names, values in flags:
        out = TOGETHER if names[0] in TOGETHER else names[:1]
        if names[0] not in BESIDE_THE_POINT:
            said = out if out == TOGETHER else (*out, *values)
            found[' '.join(said)] = [flag for flag in flags if flag[0][0] not in out]
    found['all'] = [flag for flag in flags if flag[0][0] in BESIDE_THE_POINT]
    return found


def measure(command: list[str], flags: list[Flag], pictures: int) -> tuple[float, float, float]:
    """Return the MB of a server when it is ready, after pictures, and at most."""
    folder = make_socket_folder()
    try:
        address = Address.parse(f'unix:{folder / SOCKET_NAME}')
        server = ServerProcess(
            with_little_memory(command, folder / SOCKET_NAME, flags), address)
        try:
            server.wait_until_ready(TIMEOUT_S)
            ready = shares_mb([server.pid])[server.pid]
            client = ChatClient(address)
            client.look(TIMEOUT_S)
            rng = np.random.default_rng(0)
            for number in range(pictures):
                picture = rng.integers(0, 256, (200 + 40 * (number % 5), 384, 3), np.uint8)
                client.ask(
                    jpeg_within(picture, IMAGE_SIZE), 'jpeg',
                    f'What does picture {number} show?', 16, TIMEOUT_S)
            return ready, shares_mb([server.pid])[server.pid], peak_rss_mb(server.pid)
        finally:
            server.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """Print the table."""
    from tqdm import tqdm
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('model', metavar='MODEL')
    parser.add_argument('projector', metavar='MMPROJ')
    parser.add_argument('--server-binary', metavar='FILE', default='llama-server')
    parser.add_argument('--pictures', type=int, default=5, metavar='N', help='default: %(default)s')
    parser.add_argument('--threads', type=int, default=0, metavar='N')
    args = parser.parse_args()
    command = llama_command(find_program(args.server_binary), args.model, args.projector)
    flags = little_memory_flags(IMAGE_SIZE, args.threads)
    rows = [
        [name, *measure(command, chosen, args.pictures)]
        for name, chosen in tqdm(variants(flags).items(), file=sys.stderr)]
    columns = ['left out', 'ready', f'after {args.pictures} pictures', 'at most']
    print(Table('Memory of llama-server by what is left out of its flags (MB)', columns,
                rows).markdown())


if __name__ == '__main__':
    main()
