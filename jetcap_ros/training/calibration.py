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
A score a robot can act on: from the value of a caption to 0..1.

The value is the mean log-probability of its tokens, and what its words are worth where a word
detector knows how likely they are.

The score is the estimated probability that the caption is a good one: that it agrees with what
people said of the picture (CIDEr-D) at least as well as the median human caption agrees with the
other human captions of its picture. A logistic curve (Platt 1999) is fitted to the validation
pictures; it never changes which caption is better, only what the number means.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .cider import CiderD
from .dataset import tokenize
from ..errors import UserError

BINS = 10


@dataclass
class Calibration:
    """A fitted curve and how well it does on pictures it was not fitted to."""

    slope: float
    intercept: float
    threshold: float  # CIDEr-D x 100 of the median human caption
    good: float  # the part of the captions that reach it
    expected_error: float  # mean distance of predicted and true frequency over the bins
    ranking: float  # probability that a good caption scores above one that is not (AUC)
    curve: list[tuple[float, float, int]]  # of each bin: mean score, part that is good, count

    def score(self, value: float | np.ndarray) -> np.ndarray:
        """Return the score of a value, or of an array of them."""
        return _sigmoid(self.slope * np.asarray(value) + self.intercept)


def calibrate(
        values: Sequence[float], captions: Sequence[str],
        references: Sequence[Sequence[str]]) -> Calibration:
    """
    Fit the curve.

    The figures come from two halves, each predicted by the curve of the other one.

    :param values: of the captions.
    :raises UserError: if there are too few captions, or all of one kind.
    """
    tokens = [[tokenize(caption) for caption in group] for group in references]
    scorer = CiderD(tokens)
    human = [scorer.score(i, words, without=j)
             for i, group in enumerate(tokens) if len(group) > 1
             for j, words in enumerate(group)]
    if len(captions) < 20 or not human:
        raise UserError(
            'calibration needs 20 pictures or more, with more than one caption each')
    threshold = float(np.median(human))
    good = np.array([
        scorer.score(i, tokenize(caption)) >= threshold for i, caption in enumerate(captions)])
    if good.all() or not good.any():
        raise UserError(
            f'calibration needs good and bad captions, and all are {"good" if good[0] else "bad"}')
    x = np.array(values, float)
    slope, intercept = _fit(x, good)
    half = np.arange(len(x)) % 2
    predicted = np.empty(len(x))
    for part in (0, 1):
        a, b = _fit(x[half != part], good[half != part])
        predicted[half == part] = _sigmoid(a * x[half == part] + b)
    curve = []
    for members in np.array_split(np.argsort(predicted), BINS):
        if len(members):
            curve.append((
                float(predicted[members].mean()), float(good[members].mean()), len(members)))
    error = sum(abs(p - t) * n for p, t, n in curve) / len(x)
    ranks = np.argsort(np.argsort(x)) + 1
    positives = int(good.sum())
    ranking = (ranks[good].sum() - positives * (positives + 1) / 2) / (
        positives * (len(x) - positives))
    return Calibration(
        slope, intercept, 100 * threshold, float(good.mean()), error, float(ranking), curve)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    result: np.ndarray = 1 / (1 + np.exp(-np.clip(x, -30, 30)))
    return result


def _fit(x: np.ndarray, good: np.ndarray) -> tuple[float, float]:
    """Return slope and intercept of the logistic regression, by Newton's method."""
    inputs = np.stack([x, np.ones_like(x)], axis=1)
    weights = np.zeros(2)
    ridge = np.diag([1e-3, 0.0])  # keeps the slope finite where the two kinds do not overlap
    for _ in range(50):
        p = _sigmoid(inputs @ weights)
        gradient = inputs.T @ (p - good) + ridge @ weights
        hessian = inputs.T @ (inputs * (p * (1 - p))[:, None]) + ridge + 1e-9 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        weights -= step
        if np.abs(step).max() < 1e-8:
            break
    return float(weights[0]), float(weights[1])


def plot_reliability(calibration: Calibration, path: str) -> None:
    """Draw how often captions of a score are good."""
    import matplotlib
    matplotlib.use('Agg')
    from matplotlib import pyplot
    figure, axis = pyplot.subplots(figsize=(4.5, 4.5), layout='constrained')
    scores, good, counts = zip(*calibration.curve)
    axis.plot((0, 1), (0, 1), color='grey', linewidth=0.8, linestyle=':')
    error = [np.sqrt(max(g * (1 - g), 1e-3) / n) for g, n in zip(good, counts)]
    axis.errorbar(scores, good, error, marker='o', capsize=3, linewidth=1)
    axis.set(
        xlim=(0, 1), ylim=(0, 1), xlabel='score (mean of a tenth of the captions)',
        ylabel='part of them that is as good as the median human caption',
        title=f'calibration error {calibration.expected_error:.3f}, '
              f'ranking {calibration.ranking:.2f}')
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
