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

"""What the package promises of its size and speed, against what was measured in the same run."""

from typing import Any

from .report import Table


def compare(
        memory: dict[str, Any] | None, timing: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Return each target with what is wanted, what was got and whether that is enough."""
    found: list[tuple[str, float, str, float]] = []
    if memory:
        torch = memory['import torch']['peak_rss_mb']
        naive = memory['naive flow']['peak_rss_mb']
        full, simple = memory['mobilenet'], memory['simple']
        found += [
            ('full model: peak of node + worker over a bare import torch', 110, 'MB',
             full['peak_mb'] - torch),
            ('full model against the naive flow, peak', 0.75, 'x', full['peak_mb'] / naive),
            ('the same, what is above a bare import torch', 0.35, 'x',
             (full['peak_mb'] - torch) / (naive - torch)),
            ('simple model: node + worker', 150, 'MB', simple['settled_mb']),
            ('simple model: worker alone', 90, 'MB', simple['worker_mb'])]
    if timing:
        startup, decoding, running = timing['startup'], timing['decoding'], timing['running']
        found.append((
            'simple model: configure to first caption', 0.7, 's',
            startup['simple']['first_caption_s']))
        if memory:
            found.append((
                'full model: configure over a bare import torch', 0.8, 's',
                startup['mobilenet']['configure_s'] - memory['import torch']['seconds']))
        eager = decoding['eager loop']['greedy']
        for name, model, wanted in (
                ('full', 'mobilenet', 0.40), ('simple', 'simple', 0.35)):
            same = decoding[f'{model}, float32']['same_words_as_eager']
            found += [
                (f'{name} model against the eager loop, 20 words greedy', wanted, 'x',
                 decoding[model]['greedy'] / eager),
                (f"{name} model in float32: words that differ from the eager loop's", 0, '',
                 0 if same else 1),
                (f'{name} model: beam 3 against greedy', 1.6, 'x',
                 decoding[model]['beam 3'] / decoding[model]['greedy'])]
        for name, model in (('full', 'mobilenet'), ('simple', 'simple')):
            run = running[model]
            sustained = run['sustained']
            found += [
                (f'{name} model, 720p at 30 Hz: age of a captioned frame against latency', 1.5,
                 'x', sustained['age_ms']['p50'] / run['hd_ms']['p50']),
                (f'{name} model, 720p at 30 Hz: age at the end against the beginning', 1.1, 'x',
                 sustained['last_third_ms'] / sustained['first_third_ms']),
                (f'{name} model: inactive, percent of a core', 1.0, '%', run['cpu_inactive']),
                (f'{name} model: end to end minus worker, VGA, p50', 8.0, 'ms',
                 run['vga_ms']['p50'] - run['vga_model_ms'])]
    return [
        {'figure': figure, 'wanted': wanted, 'unit': unit, 'got': got, 'ok': bool(got <= wanted)}
        for figure, wanted, unit, got in found]


def tables(targets: list[dict[str, Any]]) -> list[Table]:
    """Return the targets as a table."""
    return [Table('Targets', ['figure', 'wanted', 'got', ''], [
        [target['figure'], f'<= {target["wanted"]:g} {target["unit"]}'.strip(),
         f'{target["got"]:.3g} {target["unit"]}'.strip(), 'ok' if target['ok'] else 'MISSED']
        for target in targets])]
