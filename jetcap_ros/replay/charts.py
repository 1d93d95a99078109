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

"""Small line charts over time as SVG paths, of a size that does not grow with the data."""

import math
from typing import NamedTuple

import numpy as np

POINTS = 240  # at most, along the time axis
WIDTH, HEIGHT = 1000, 100  # of the SVG's own coordinates; the page stretches them


class Chart(NamedTuple):
    """What the page's template draws."""

    title: str
    lines: dict[str, str]  # name -> SVG path
    bands: dict[str, str]  # name -> SVG path of the area between lowest and highest
    y_labels: list[str]  # from the top down
    x_labels: list[str]


def clock(seconds: float) -> str:
    """Return seconds as 1:02.5 or 1:01:02.5."""
    minutes, seconds = divmod(round(seconds, 1), 60)
    hours, minutes = divmod(int(minutes), 60)
    head = f'{hours}:{minutes:02}' if hours else f'{minutes}'
    return f'{head}:{seconds:04.1f}'


def time_labels(duration: float) -> list[str]:
    """Return the labels of a time axis from 0 to `duration`, s."""
    return [clock(duration * part / 4) for part in range(5)]


def line_chart(
        title: str, times: np.ndarray, series: dict[str, np.ndarray], duration: float,
        banded: bool = False) -> Chart:
    """
    Return a chart of one or more series over the same times.

    :param times: (N,) in s, 0 to `duration`; N > 0.
    :param series: name -> (N,) values, none negative.
    :param banded: show the median of each stretch of time, and from lowest to highest as a band;
        otherwise its highest.
    """
    column = np.minimum((times / max(duration, 1e-9) * POINTS).astype(int), POINTS - 1)
    order = np.argsort(column, kind='stable')
    columns, firsts = np.unique(column[order], return_index=True)
    x = (columns + 0.5) / POINTS * WIDTH
    top = nice_ceiling(max(float(values.max()) for values in series.values()))
    lines, bands = {}, {}
    for name, values in series.items():
        y = HEIGHT - values[order] / top * HEIGHT
        highest = np.minimum.reduceat(y, firsts)  # y grows downwards
        if banded:
            lowest = np.maximum.reduceat(y, firsts)
            middle = np.array([np.median(part) for part in np.split(y, firsts[1:])])
            bands[name] = _path(
                np.concatenate([x, x[::-1]]), np.concatenate([highest, lowest[::-1]])) + 'Z'
            lines[name] = _path(x, middle)
        else:
            lines[name] = _path(x, highest)
    return Chart(title, lines, bands, [f'{top * part / 2:g}' for part in (2, 1, 0)],
                 time_labels(duration))


def nice_ceiling(value: float) -> float:
    """Return the next round number, one digit or 1.5 times a power of ten."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    steps = (1, 1.5, 2, 3, 4, 5, 6, 8, 10)
    return next(step * power for step in steps if value <= step * power * (1 + 1e-9))


def _path(x: np.ndarray, y: np.ndarray) -> str:
    if len(x) == 1:  # a single point is drawn as a short line
        x, y = np.array([x[0] - 2, x[0] + 2]), np.repeat(y, 2)
    return 'M' + 'L'.join(f'{a:.1f} {b:.1f}' for a, b in zip(x, y))
