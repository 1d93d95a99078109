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
Features of frozen encoder blocks, computed once and read from a memory-mapped file.

Training reads each picture many times; the blocks that are not trained need to see it once. Half
precision, one row a picture and view.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
import hashlib
import os

import numpy as np
import torch
from torch.nn import functional
from tqdm import tqdm

from ..errors import UserError
from ..images.limits import SIZE
from ..images.picture import read_picture
from ..images.preprocessing import normalize, SCALE, SHIFT, squash
from ..models.encoder import MobileNetEncoder

# Views of a picture: even ones as it is, odd ones mirrored; from the third on a part of it.
CROP_SIDE = (0.75, 0.95)
# Random views: the sides of the part that is shown, and the factors that change its light.
RANDOM_SIDE = (0.7, 1.0)
RANDOM_LIGHT = (0.7, 1.3)
BATCH = 32


def view(image: np.ndarray, number: int, name: str, size: int = SIZE) -> np.ndarray:
    """
    Return a view of a picture as the encoder's input, (1, 3, size, size) float32.

    :param number: 0 is the whole picture, odd ones are mirrored, 2 and 3 show a part of it, 4 and
        5 another one, and so on; which part follows from the name, the same in every run.
    """
    if number >= 2:
        seed = hashlib.sha1(f'{name} {number // 2}'.encode('utf-8')).digest()[:8]
        random = np.random.default_rng(int.from_bytes(seed, 'big'))
        height, width = image.shape[:2]
        side_y, side_x = random.uniform(*CROP_SIDE, 2)
        y, x = random.uniform(0, 1 - side_y) * height, random.uniform(0, 1 - side_x) * width
        image = image[int(y):int(y + side_y * height) + 1, int(x):int(x + side_x * width) + 1]
    frame = squash(image, size)
    return normalize(frame[:, ::-1] if number % 2 else frame)


def random_views(
        frames: torch.Tensor, random: np.random.Generator) -> tuple[torch.Tensor, np.ndarray]:
    """
    Return a part of each picture, perhaps mirrored, in other light, and which are mirrored.

    Colours keep their names: brightness, contrast and saturation change, the hue does not.

    :param frames: (N, H, W, 3) uint8 RGB.
    :return: the encoder's input, (N, 3, H, W) float32 on the same device, and (N,) bool.
    """
    count, device = len(frames), frames.device

    def drawn(values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(values.astype(np.float32)).to(device)

    mirrored = random.integers(2, size=count).astype(bool)
    sides = random.uniform(*RANDOM_SIDE, (count, 2))
    places = random.uniform(-1, 1, (count, 2)) * (1 - sides)
    part = np.zeros((count, 2, 3))
    part[:, 0, 0] = sides[:, 0] * np.where(mirrored, -1, 1)
    part[:, 1, 1], part[:, :, 2] = sides[:, 1], places
    x = frames.permute(0, 3, 1, 2).float()
    with torch.autocast(device.type, enabled=False):
        grid = functional.affine_grid(drawn(part), list(x.shape), align_corners=False)
        x = functional.grid_sample(x, grid, padding_mode='border', align_corners=False)
        brightness, contrast, saturation = drawn(
            random.uniform(*RANDOM_LIGHT, (3, count, 1, 1, 1)))
        grey = x.mean(dim=1, keepdim=True)
        x = grey + saturation * (x - grey)
        mean = x.mean(dim=(1, 2, 3), keepdim=True)
        x = (brightness * (mean + contrast * (x - mean))).clamp(0, 255)
        x = x * drawn(SCALE)[:, None, None] - drawn(SHIFT)[:, None, None]
    return x.contiguous(memory_format=torch.channels_last), mirrored


def cache_features(
        folder: str, encoder: MobileNetEncoder, block: int, files: Sequence[str], images: str,
        views: int, bfloat16: bool = False, size: int = SIZE) -> np.ndarray:
    """
    Return what the first `block` blocks give, (views, pictures, C, H, W) float16, mapped.

    The file in `folder` is called after the weights and pictures it was computed from, and is
    used again for the same; an unfinished one is taken up where it ended.
    """
    device = next(encoder.parameters()).device
    path = os.path.join(folder, _fingerprint(
        encoder, block, files, views, bfloat16, size) + '.npy')
    with torch.inference_mode():
        blank = torch.zeros(1, 3, size, size, device=device)
        shape = (views, len(files), *encoder.run_blocks(blank, 0, block).shape[1:])

    def fill(array: np.ndarray, part: slice) -> None:
        names = files[part]
        pictures = [read_picture(os.path.join(images, name)) for name in names]
        for number in range(views):
            batch = np.concatenate([view(p, number, n, size) for p, n in zip(pictures, names)])
            x = torch.from_numpy(batch).to(device, memory_format=torch.channels_last)
            with torch.inference_mode(), torch.autocast(
                    device.type, torch.bfloat16, enabled=bfloat16):
                x = encoder.run_blocks(x, 0, block)
            array[number, part] = x.float().cpu().numpy()

    return _cached(path, shape, np.float16, len(files), fill, 'features')


def cache_pictures(
        folder: str, files: Sequence[str], images: str, size: int = SIZE) -> np.ndarray:
    """Return pictures squashed to (N, size, size, 3) uint8 RGB, mapped from a file in `folder`."""
    digest = hashlib.sha1('\0'.join([str(size), *files]).encode('utf-8')).hexdigest()[:16]

    def fill(array: np.ndarray, part: slice) -> None:
        with ThreadPoolExecutor() as pool:
            array[part] = list(pool.map(
                lambda name: squash(read_picture(os.path.join(images, name)), size), files[part]))

    return _cached(
        os.path.join(folder, f'pictures_{digest}.npy'), (len(files), size, size, 3), np.uint8,
        len(files), fill, 'pictures')


def _cached(
        path: str, shape: tuple[int, ...], dtype: type, count: int,
        fill: Callable[[np.ndarray, slice], None], what: str) -> np.ndarray:
    """Return a mapped array that is filled in parts; an unfinished one is taken up."""
    done = _read_done(path)
    if done < count:
        if done:
            array = np.lib.format.open_memmap(path, 'r+')
        else:
            _check_space(
                os.path.dirname(path), int(np.prod(shape)) * np.dtype(dtype).itemsize, what)
            array = np.lib.format.open_memmap(path, 'w+', dtype, shape)
        with tqdm(total=count, initial=done, desc=what, unit='pictures') as bar:
            for start in range(done, count, BATCH):
                end = min(start + BATCH, count)
                fill(array, slice(start, end))
                bar.update(end - start)
                if start // BATCH % 32 == 31 or end == count:
                    array.flush()
                    with open(path + '.new', 'w') as file:
                        file.write(str(end))
                    os.replace(path + '.new', path + '.done')
    mapped: np.ndarray = np.load(path, mmap_mode='r')
    return mapped


def _read_done(path: str) -> int:
    try:
        with open(path + '.done') as file:
            return int(file.read())
    except FileNotFoundError:
        return 0


def _check_space(folder: str, needed: int, what: str) -> None:
    disk = os.statvfs(folder)
    if needed > disk.f_bavail * disk.f_frsize:
        raise UserError(
            f'the {what} need {needed / 1e9:.1f} GB in {folder}: free them, '
            'choose another folder with --cache, or take fewer views')


def _fingerprint(
        encoder: MobileNetEncoder, block: int, files: Sequence[str], views: int,
        bfloat16: bool, size: int) -> str:
    digest = hashlib.sha1(
        f'{encoder.architecture} {block} {views} {bfloat16} {CROP_SIDE} {size}'.encode('utf-8'))
    for name in files:
        digest.update(name.encode('utf-8') + b'\0')
    parameters: list[torch.Tensor] = []
    for module in encoder.block_modules(0, block):
        parameters += module.state_dict().values()
    for parameter in parameters:
        digest.update(parameter.detach().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
