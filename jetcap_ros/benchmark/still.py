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
Measure what still_threshold must tell apart: `python -m jetcap_ros.benchmark.still FOLDER`.

For each photograph of a folder: by how much two pictures of it differ that a sensor took (shot and
read noise of day and of dusk, an exposure that wavers, JPEG at 80); by how much one differs into
which somebody has come (another photograph's middle, an ellipse of a twelfth of the area); and by
how much shifted ones do, with how many of them get other words where the threshold calls them
still.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
import sys
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from ..engine.captioner import Captioner
from ..engine.settings import CaptionerSettings
from ..images.still import Scene, STILL_THRESHOLD

SIZE = 640, 480
LIGHTS = {'day': (0.25, 2.0), 'dusk': (1.5, 6.0)}  # variance per grey level, read noise
EXPOSURE = 0.05  # at most so much brighter or darker
SHIFTS = (1, 2, 4, 8, 16, 32)  # pixels
PERSON = 1 / 12  # of the area


def photographs(folder: Path, count: int) -> Iterator[np.ndarray]:
    """Yield photographs as a camera sees them, (480, 640, 3) uint8, RGB."""
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in ('.jpg', '.png'))
    for path in paths[::max(1, len(paths) // count)][:count]:
        picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if picture is not None:
            yield cv2.cvtColor(cv2.resize(picture, SIZE), cv2.COLOR_BGR2RGB)


def take(
        scene: np.ndarray, light: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """Return a picture of a scene as a sensor takes it, through JPEG."""
    shot, read = light
    exposed = scene * np.float32(1 + rng.uniform(-EXPOSURE, EXPOSURE))
    noise = rng.standard_normal(scene.shape, np.float32)
    noisy = exposed + noise * np.sqrt(shot * exposed + read ** 2)
    _, data = cv2.imencode(
        '.jpg', np.clip(noisy, 0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 80])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))


def enter(
        scene: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a scene into which somebody has come, of a twelfth of its area, twice as tall."""
    height, width = scene.shape[:2]
    radius = (PERSON * height * width / (2 * np.pi)) ** 0.5
    x, y = rng.uniform(radius, width - radius), rng.uniform(2 * radius, height - 2 * radius)
    mask = np.zeros((height, width), np.uint8)
    cv2.ellipse(mask, (int(x), int(y)), (int(radius), int(2 * radius)), 0, 0, 360, 1, -1)
    moved = np.roll(other, (int(y) - height // 2, int(x) - width // 2), (0, 1))
    return np.where(mask[..., None] > 0, moved, scene)


def difference(first: np.ndarray, second: np.ndarray) -> float:
    """Return the difference of two pictures as the node sees it."""
    scene = Scene()
    scene.look(first)
    scene.keep()
    return scene.look(second)


def shifted(scene: np.ndarray, pixels: int) -> np.ndarray:
    """Return what a camera sees that was turned a little: the same, but for one edge."""
    return np.concatenate([scene[:, pixels:], scene[:, -1:].repeat(pixels, 1)], 1)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', type=Path)
    parser.add_argument('--pictures', type=int, default=500)
    parser.add_argument('--captions', type=int, default=100, help='pictures to caption')
    parser.add_argument('--threshold', type=float, default=STILL_THRESHOLD)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    pictures = list(tqdm(photographs(args.folder, args.pictures), file=sys.stderr))
    found: dict[str, list[float]] = {}
    for index, scene in enumerate(tqdm(pictures, file=sys.stderr, desc='differences')):
        other = pictures[(index + 1) % len(pictures)]
        for name, light in LIGHTS.items():
            first = take(scene, light, rng)
            found.setdefault(f'still, {name}', []).append(
                difference(first, take(scene, light, rng)))
            found.setdefault(f'somebody came, {name}', []).append(
                difference(first, take(enter(scene, other, rng), light, rng)))
        for pixels in SHIFTS:
            found.setdefault(f'shifted {pixels}', []).append(
                difference(scene, shifted(scene, pixels)))
    print(f'{len(pictures)} pictures, threshold {args.threshold:g}\n')
    print(f'{"":24}{"median":>8}{"1 %":>8}{"99 %":>8}{"still":>9}')
    for name, values in found.items():
        low, middle, high = np.percentile(values, (1, 50, 99))
        still = np.mean(np.array(values) < args.threshold)
        print(f'{name:24}{middle:8.2f}{low:8.2f}{high:8.2f}{100 * still:8.1f}%')
    _captions(pictures[:args.captions], args.threshold)


def _captions(pictures: list[np.ndarray], threshold: float) -> None:
    pairs: dict[int, list[Any]] = {pixels: [] for pixels in SHIFTS}
    with Captioner(CaptionerSettings(model='simple')) as captioner:
        captioner.configure()
        for scene in tqdm(pictures, file=sys.stderr, desc='captions'):
            text = captioner.caption(scene).text
            for pixels in SHIFTS:
                moved = shifted(scene, pixels)
                if difference(scene, moved) < threshold:
                    pairs[pixels].append(captioner.caption(moved).text != text)
    for pixels, differ in pairs.items():
        print(f'shifted {pixels} and still: {sum(differ)} of {len(differ)} captions differ')


if __name__ == '__main__':
    main()
