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

"""What was measured, as tables, JSON and a chart."""

from collections.abc import Sequence
from dataclasses import dataclass
import json
import os
import platform
import statistics
from typing import Any

COLOURS = {'mobilenet': '#2b6cb0', 'simple': '#2f855a'}


@dataclass
class Table:
    """Rows under columns; None is printed as nothing."""

    title: str
    columns: list[str]
    rows: Sequence[Sequence[Any]]

    def markdown(self) -> str:
        """Return the table as Markdown, padded so that it reads well in a terminal too."""
        cells = [self.columns] + [[_format(value) for value in row] for row in self.rows]
        widths = [max(len(row[i]) for row in cells) for i in range(len(self.columns))]
        lines = [
            '| ' + ' | '.join(text.ljust(width) for text, width in zip(row, widths)) + ' |'
            for row in cells]
        lines.insert(1, '| ' + ' | '.join('-' * width for width in widths) + ' |')
        return f'### {self.title}\n\n' + '\n'.join(lines) + '\n'


def _format(value: Any) -> str:
    if value is None:
        return ''
    if isinstance(value, float):
        return f'{value:.0f}' if abs(value) >= 100 else f'{value:.3g}'
    return str(value)


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """Return p50, p95 and p99."""
    if len(values) < 2:
        return dict.fromkeys(('p50', 'p95', 'p99'), values[0] if values else float('nan'))
    cuts = statistics.quantiles(values, n=100, method='inclusive')
    return {'p50': cuts[49], 'p95': cuts[94], 'p99': cuts[98]}


def machine() -> dict[str, str]:
    """Return what the figures depend on, without importing any of it."""
    from importlib import metadata
    facts = {
        'processor': _processor(), 'cores': str(len(os.sched_getaffinity(0))),
        'system': platform.platform(), 'Python': platform.python_version()}
    for name in (
            'torch', 'numpy', 'opencv-python-headless', 'opencv-python', 'onnxruntime'):
        try:
            facts[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            pass
    return facts


def _processor() -> str:
    try:
        with open('/proc/cpuinfo', encoding='utf-8') as file:
            for line in file:
                if line.startswith(('model name', 'Model')):
                    return line.split(':', 1)[1].strip()
    except OSError:
        pass
    return platform.machine()


def write_json(result: dict[str, Any], path: str) -> None:
    """Write all figures."""
    with open(path, 'w', encoding='utf-8') as file:
        json.dump(result, file, indent=1)
        file.write('\n')


def _figure(*arguments: Any, **options: Any) -> Any:
    import matplotlib
    matplotlib.use('Agg')
    from matplotlib import pyplot
    return pyplot.subplots(*arguments, layout='constrained', **options)


def draw_memory(memory: dict[str, Any], path: str) -> None:
    """Draw the worker's memory after each stage, and the floor and the naive flow as lines."""
    figure, axes = _figure(figsize=(8, 4.5))
    order = list(memory['mobilenet']['stages'])
    others = list(memory['simple']['stages'])
    for before, stage in zip(others, others[1:]):
        if stage not in order:
            order.insert(order.index(before) + 1, stage)
    for model in ('mobilenet', 'simple'):
        stages = memory[model]['stages']
        resident = [float(text.split('RSS ')[1].split(' MB')[0]) for text in stages.values()]
        axes.plot([order.index(stage) for stage in stages], resident, marker='o',
                  color=COLOURS[model], label=f'worker, {model} model')
    axes.set_xticks(range(len(order)), order)
    for name, style in (('naive flow', '-'), ('import torch', ':')):
        mb = memory[name]['peak_rss_mb']
        axes.axhline(mb, color='#718096', linestyle=style, linewidth=1)
        axes.annotate(f'{name}: {mb:.0f} MB', (0, mb), textcoords='offset points', xytext=(0, 4))
    axes.set_ylabel('resident memory (MB)')
    axes.set_xlabel('after stage')
    axes.set_ylim(0, None)
    axes.legend(loc='center right')
    figure.savefig(path, dpi=120)


def draw_sweep(points: list[dict[str, Any]], path: str) -> None:
    """Draw what ran at each memory limit, its peak, and the headroom that was left."""
    outcomes = {
        'full': '#2b6cb0', 'simple': '#2f855a', 'FAILURE': '#d69e2e',
        'node did not fit': '#a0aec0', 'NO CAPTION': '#9f7aea', 'NO ANSWER': '#ed64a6',
        'NODE DIED': '#c53030'}
    variants = list(dict.fromkeys((point['fallback'], point['checks']) for point in points))
    figure, all_axes = _figure(
        len(variants), 1, figsize=(8, 3.4 * len(variants)), sharex=True, squeeze=False)
    for axes, (fallback, checks) in zip(all_axes[:, 0], variants):
        chosen = [
            point for point in points
            if (point['fallback'], point['checks']) == (fallback, checks)]
        for outcome, colour in outcomes.items():
            mine = [point for point in chosen if point['outcome'] == outcome]
            if mine:
                axes.scatter([point['limit_mb'] for point in mine],
                             [point['peak_mb'] for point in mine], color=colour, label=outcome)
        for point in chosen:
            axes.plot([point['limit_mb']] * 2, [point['peak_mb'], point['limit_mb']],
                      color='#e2e8f0', zorder=0)
        limits = [point['limit_mb'] for point in chosen]
        axes.plot(limits, limits, color='#718096', linewidth=1, label='the limit')
        axes.set_title(f'fallback: {fallback}' + ('' if checks else ', memory checks off'))
        axes.set_ylabel('peak that cannot be dropped (MB)')
        axes.legend(loc='upper left')
    all_axes[-1, 0].set_xlabel('memory limit of the cgroup (MB); grey: headroom')
    figure.savefig(path, dpi=120)
