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

"""The log of a training run: a CSV file that grows, and the picture of its curves."""

import csv
import os

FIELDS = ('stage', 'run', 'epoch', 'steps', 'train_loss', 'reward', 'val_loss', 'val_cider',
          'val_bleu4', 'learning_rate', 'seconds')


def read_journal(path: str) -> list[dict[str, str]]:
    """Return the rows of a log; none if there is no log yet."""
    if not os.path.exists(path):
        return []
    with open(path, newline='', encoding='utf-8') as file:
        return list(csv.DictReader(file))


def append_row(path: str, row: dict[str, object]) -> None:
    """Add an epoch to a log; a row of the same stage, run and epoch (before a kill) goes."""
    same = tuple(str(row[name]) for name in FIELDS[:3])
    rows: list[dict[str, object]] = [
        {**r} for r in read_journal(path) if tuple(r[name] for name in FIELDS[:3]) != same]
    rows.append({
        name: f'{value:.5g}' if isinstance(value, float) else value
        for name, value in row.items()})
    with open(path + '.new', 'w', newline='', encoding='utf-8') as file:
        writer = csv.DictWriter(file, FIELDS, restval='')
        writer.writeheader()
        writer.writerows(rows)
    os.replace(path + '.new', path)


def plot_journal(path: str, out: str) -> None:
    """Draw loss and CIDEr-D over the epochs of all stages."""
    import matplotlib
    matplotlib.use('Agg')
    from matplotlib import pyplot
    rows = read_journal(path)
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4), layout='constrained')
    for axis, names, label in (
            (axes[0], ('train_loss', 'val_loss'), 'cross-entropy a word, nats'),
            (axes[1], ('reward', 'val_cider'), 'reward or CIDEr-D, x 100')):
        for name in names:
            points = [(i, float(row[name])) for i, row in enumerate(rows, 1) if row[name]]
            if points:
                axis.plot(*zip(*points), marker='.', label=name.replace('_', ' '))
        for i in range(1, len(rows)):
            if any(rows[i][name] != rows[i - 1][name] for name in ('stage', 'run')):
                axis.axvline(i + 0.5, color='grey', linewidth=0.8, linestyle=':')
        axis.set_xlabel('epoch\n' + ', '.join(
            dict.fromkeys(row['stage'] for row in rows)))
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
        if axis.has_data():
            axis.legend()
    figure.savefig(out, dpi=110)
    pyplot.close(figure)
