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

"""Which runtime is the fastest on this machine, for each kind of work: found by timing them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
import functools
import time

import numpy as np

from .runtime import Encoder, Runtime
from ..architectures import Block
from ..decoder import MakeProduct, Product
from ..encoder_graph import Read
from ..weight import Weight

# Rows of a weight that products are tried with; for words more than a cache has room for.
SAMPLE_ROWS = {'word products': 2048, 'image products': 512}
BEAMS, CELLS = 5, 64  # rows of the inputs that they are tried with
MOST_RUNS, ENOUGH_S = 5, 0.02

Timings = dict[str, dict[str, float]]  # ms, by the kind of work and the runtime's name


class Fastest:
    """
    Makes encoders and products in the runtime that is the fastest for them.

    :param runtimes: what to choose from; for each kind of work one of them at least.
    :param timings: what they took the last time, for a model like this: they are not timed again.
    """

    def __init__(
            self, runtimes: Sequence[Runtime], timings: Timings | None = None) -> None:
        self._runtimes = runtimes
        self._chosen: dict[str, str] = {}
        self._known = timings or {}
        self.timings: Timings = {}  # where there was a choice

    @property
    def timed(self) -> bool:
        """Say whether timings are known."""
        return bool(self._known)

    @property
    def facts(self) -> dict[str, str]:
        """Return what was chosen for each kind of work, and its timings if there was a choice."""
        facts = {}
        for kind, name in self._chosen.items():
            timings = ', '.join(
                f'{name}: {ms:.3g} ms' for name, ms in self.timings.get(kind, {}).items())
            facts[f'runtime of the {kind}'] = name + (f' ({timings})' if timings else '')
        return facts

    def encoder(self, blocks: list[Block], read: Read, size: int) -> Encoder:
        """Return an encoder."""
        makers = {r.name: r.encoder for r in self._runtimes if r.encoder}
        if self._is_settled('encoder', makers):
            return makers[self._chosen['encoder']](blocks, read, size)
        encoders = {name: make(blocks, read, size) for name, make in makers.items()}
        image = np.zeros((1, 3, size, size), np.float32)
        return encoders[self._choose('encoder', {
            name: functools.partial(encoder, image) for name, encoder in encoders.items()})]

    def product(self, weight: Weight, bias: np.ndarray) -> Product:
        """Return a product for each word: arranged to be fast."""
        makers = {r.name: r.product for r in self._runtimes if r.product}
        return self._product('word products', makers, BEAMS, weight, bias)

    def image_product(self, weight: Weight, bias: np.ndarray) -> Product:
        """Return a product for once an image: the weight stays as it is stored."""
        makers = {r.name: r.image_product for r in self._runtimes if r.image_product}
        return self._product('image products', makers, CELLS, weight, bias)

    def _product(
            self, kind: str, makers: Mapping[str, MakeProduct], rows: int, weight: Weight,
            bias: np.ndarray) -> Product:
        if not self._is_settled(kind, makers):
            part = slice(SAMPLE_ROWS[kind])
            sample = weight.rows(part)
            x = np.ones((rows, weight.values.shape[1]), np.float32)
            self._choose(kind, {
                name: functools.partial(make(sample, bias[part]), x)
                for name, make in makers.items()}, len(weight.values) / len(sample.values))
        return makers[self._chosen[kind]](weight, bias)

    def _is_settled(self, kind: str, names: Iterable[str]) -> bool:
        """Choose without timing where that can be; say whether there is a choice now."""
        timings, names = self._known.get(kind, {}), set(names)
        if kind not in self._chosen and len(names) == 1:
            self._chosen[kind], = names
        elif kind not in self._chosen and names == set(timings):
            self.timings[kind] = timings
            self._chosen[kind] = min(timings, key=timings.__getitem__)
        return kind in self._chosen

    def _choose(
            self, kind: str, ways: Mapping[str, Callable[[], object]], scale: float = 1) -> str:
        """Return the name of the fastest way; `scale` is from what was timed to the whole."""
        timings = self.timings[kind] = {
            name: 1e3 * scale * _seconds(way) for name, way in ways.items()}
        self._chosen[kind] = min(timings, key=timings.__getitem__)
        return self._chosen[kind]


def _seconds(way: Callable[[], object]) -> float:
    """Return the shortest of a few runs after a first one; a slow way is not run often."""
    runs: list[float] = []
    while len(runs) <= MOST_RUNS and sum(runs) < ENOUGH_S or len(runs) < 2:
        started = time.perf_counter()
        way()
        runs.append(time.perf_counter() - started)
    return min(runs[1:])
