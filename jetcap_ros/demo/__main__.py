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
Show pictures to a camera, have the node caption them, and write a page of what it said.

The node runs as on a robot: a process of its own, driven through its lifecycle services. The exit
code is 0 only if every picture was captioned.
"""

import argparse
from collections.abc import Callable, Sequence
import io
import os
from pathlib import Path
import re
import signal
import statistics
import sys
import time
from typing import Any, TYPE_CHECKING

from ..errors import UserError
from ..node.domain import reserve_domain
from ..outputs import require_folder

if TYPE_CHECKING:  # without ROS 2 there is no importing it
    from .pictures import Picture
    from .robot import Robot

TIMES = 3  # captions to wait for, of each picture
CAPTION_S = 30  # for them to come; a slow computer takes a second each
TEMPLATE = Path(__file__).with_name('index.html')
STAGE = re.compile(r'([\d.]+) s, RSS (\d+) MB, (\d+) MB available')


def main() -> int:
    """Run the demonstration; 1 if the robot failed or a picture was left out, 2 if all were."""
    parser = argparse.ArgumentParser(prog='python -m jetcap_ros.demo', description=__doc__)
    parser.add_argument(
        '--out', type=Path, default=Path('demo'), help='folder for index.html (default: demo)')
    parser.add_argument(
        '--images', type=Path, metavar='FOLDER',
        help='your own pictures (default: photographs of scikit-image)')
    parser.add_argument(
        '--model', choices=('mobilenet', 'simple'), default='mobilenet',
        help='what the node is told to load (default: mobilenet)')
    args = parser.parse_args()
    if isinstance(sys.stdout, io.TextIOWrapper):  # names of files may be beyond the terminal
        sys.stdout.reconfigure(errors='backslashreplace')
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup has it
            signal.signal(number, signal.default_int_handler)
    try:
        # Nothing else on this network shall be disturbed, or disturb.
        domain, reserved = reserve_domain()
        os.environ['ROS_DOMAIN_ID'] = str(domain)
        os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
        with reserved:
            run(args.out, args.images, args.model)
    except UserError as error:
        print(f'demo: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print('demo: interrupted', file=sys.stderr)
        return 130
    except RuntimeError as error:
        print(f'demo: {error}', file=sys.stderr)
        return 1
    return 0


def run(out: Path, folder: Path | None, model: str) -> None:
    """
    Drive the node through its life, telling about it, and write out/index.html.

    :param folder: of the pictures; None for those of scikit-image.
    :raises UserError: if the pictures or `out` cannot be used.
    :raises RuntimeError: if the node or the camera fails, or a picture was left out.
    """
    try:
        import rclpy  # noqa: F401
    except ImportError as error:
        raise UserError(
            f'ROS 2 is not here ({error}): source its setup file, or run `make demo`') from error
    from .pictures import find_pictures
    from .robot import RATE_HZ, Robot
    pictures = find_pictures(folder)
    require_folder(out)
    say(f'{len(pictures)} pictures at {RATE_HZ:.0f} Hz; '
        f'to look on: export ROS_DOMAIN_ID={os.environ["ROS_DOMAIN_ID"]}')
    parameters = {'model': model, 'max_rate_hz': 0.0}
    with Robot(parameters, lambda line: say(f'    {line}')) as robot:
        tour = Tour(robot)
        tour.step('start the node', robot.start)
        tour.step('configure', lambda: robot.transition('configure'))
        tour.step('activate', lambda: robot.transition('activate'))
        tour.step('caption', lambda: tour.show(pictures))
        if not tour.cards:
            raise UserError(f'{folder}: none of the {len(pictures)} pictures could be read')
        diagnostics = robot.wait_for_diagnostics()
        tour.step('deactivate', lambda: robot.transition('deactivate'))
        tour.step('cleanup', lambda: robot.transition('cleanup'))
        say('end')
        code = robot.end()
    if code:
        raise RuntimeError(f'the node ended with code {code}')
    page = out / 'index.html'
    write_page(page, tour.steps, tour.cards, diagnostics)
    say(f'written: {page}')
    if len(tour.cards) < len(pictures):
        raise RuntimeError(f'{len(pictures) - len(tour.cards)} pictures could not be read')


class Tour:
    """What was done with the robot, and what it said of each picture."""

    def __init__(self, robot: 'Robot') -> None:
        self.steps: list[dict[str, Any]] = []
        self.cards: list[dict[str, Any]] = []
        self._robot = robot

    def step(self, name: str, act: Callable[[], object]) -> None:
        """Do something, and note how long it took and what memory there is then."""
        say(name)
        began = time.monotonic()
        act()
        seconds, memory = time.monotonic() - began, self._robot.memory()
        self.steps.append({'name': name, 'seconds': seconds, 'memory': memory})
        say(f'  {seconds:.2f} s, {memory}')

    def show(self, pictures: Sequence['Picture']) -> None:
        """Show pictures to the camera; one that cannot be read is told and left out."""
        from .pictures import picture_for_camera
        for picture in pictures:
            try:
                pixels = picture_for_camera(picture.path)
            except UserError as error:
                say(f'  {error}')
                continue
            captions = []
            for info in self._robot.show(picture, TIMES, CAPTION_S):
                captions.append(info)
                say(f'  {picture.name:<20} {info["latency_ms"]:5.0f} ms  '
                    f'{info["caption"]}  ({info["score"]:.2f}, {info["model"]})')
            self.cards.append({'picture': picture, 'pixels': pixels, 'captions': captions})


def write_page(
        path: Path, steps: list[dict[str, Any]], cards: list[dict[str, Any]],
        diagnostics: dict[str, str]) -> None:
    """Write the page; the folder exists."""
    from ..images.page import data_uri, render_page, thumbnail
    stages = []
    for key, value in diagnostics.items():
        if key.startswith('stage '):
            found = STAGE.fullmatch(value)
            if found:
                seconds, rss_mb, available_mb = map(float, found.groups())
                stages.append({
                    'name': key[len('stage '):], 'seconds': seconds, 'rss_mb': rss_mb,
                    'available_mb': available_mb})
    for card in cards:
        card['uri'] = data_uri(thumbnail(card['pixels'], 480))
        card['latency_ms'] = statistics.median(info['latency_ms'] for info in card['captions'])
    latencies = [info['latency_ms'] for card in cards for info in card['captions']]
    path.write_text(render_page(
        'What the camera saw', TEMPLATE.read_text(encoding='utf-8'),
        steps=steps, stages=stages, cards=cards, diagnostics=diagnostics,
        latency_ms=statistics.median(latencies), total=len(latencies)), encoding='utf-8')


def say(text: str) -> None:
    """Print a line at once."""
    print(text, flush=True)


if __name__ == '__main__':
    sys.exit(main())
