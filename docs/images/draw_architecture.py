#!/usr/bin/env python3
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

"""Draws architecture.png anew: `python docs/images/draw_architecture.py`."""

from pathlib import Path

import matplotlib
matplotlib.use('Agg')
from matplotlib import pyplot  # noqa: E402
from matplotlib.patches import FancyBboxPatch  # noqa: E402

FRAME, CHECKPOINT, KEEPER = '#2b6cb0', '#b7791f', '#718096'
WIDTH, HEIGHT = 2.75, 0.72  # of a step
NODE, KEEP, MODEL, LOAD = 1.75, 4.95, 8.9, 12.1  # the columns' middles
ROWS = [6.0, 4.9, 3.8, 2.7, 1.6]

# What happens, where, and the column and row of it.
FRAME_STEPS = [
    ('caption, score, latency', 'node/outputs.py', NODE, 0),
    ('newest of each camera', 'node/cameras.py', NODE, 1),
    ('whose turn it is', 'node/caption_loop.py', NODE, 2),
    ('decoded to RGB', 'images/image_decoding.py', NODE, 3),
    ('resized, sent', 'engine/captioner.py', NODE, 4),
    ('received, answered', 'engine/worker.py', MODEL, 4),
    ('normalized', 'images/preprocessing.py', MODEL, 3),
    ('encoder: 49 cells', 'models/mobilenet.py', MODEL, 2),
    ('decoder: what may follow', 'models/decoder.py', MODEL, 1),
    ('search: the words', 'models/search.py', MODEL, 0)]
CHECKPOINT_STEPS = [
    ('metadata', 'models/checkpoint.py', LOAD, 4),
    ('torch, or opencv', 'engine/lazy_loader.py', LOAD, 3),
    ('instance, weights', 'models/weight_reader.py', LOAD, 2),
    ('cleanup', 'memory/memory_utils.py', LOAD, 1),
    ('warm_up: a first caption', 'engine/lazy_loader.py', LOAD, 0)]
KEEPER_STEPS = [
    ('lifecycle, parameters', 'node/captioner_node.py', KEEP, 0),
    ('what it says of itself', 'node/diagnostics.py', KEEP, 1),
    ('when to give way, return', 'engine/recovery.py', KEEP, 2),
    ('workers started and ended', 'engine/workers.py', KEEP, 3)]


def draw_step(axes, text, place, x, row, colour):
    """Draw a step as a box."""
    y = ROWS[row]
    axes.add_patch(FancyBboxPatch(
        (x - WIDTH / 2, y - HEIGHT / 2), WIDTH, HEIGHT, boxstyle='round,pad=0,rounding_size=0.1',
        facecolor='white', edgecolor=colour, linewidth=1.5))
    axes.text(x, y + 0.14, text, ha='center', va='center', fontsize=9.3)
    axes.text(x, y - 0.17, place, ha='center', va='center', fontsize=8, family='monospace',
              color='#4a5568')


def draw_arrow(axes, start, end, colour, text='', **style):
    """Draw an arrow; its text stands above its middle."""
    axes.annotate('', end, start, arrowprops={
        'arrowstyle': '-|>', 'color': colour, 'linewidth': 1.6, 'shrinkA': 0, 'shrinkB': 0,
        **style})
    if text:
        axes.text((start[0] + end[0]) / 2, (start[1] + end[1]) / 2 + 0.1, text, ha='center',
                  va='bottom', fontsize=8.5, color=colour)


def draw_process(axes, left, right, title):
    """Draw the box around a process."""
    axes.add_patch(FancyBboxPatch(
        (left, 0.65), right - left, 5.95, boxstyle='round,pad=0,rounding_size=0.2',
        facecolor='#f7fafc', edgecolor='#a0aec0', linewidth=1.2))
    axes.text(left + 0.3, 0.92, title, va='center', fontsize=11, fontweight='bold')


def main():
    """Draw."""
    figure, axes = pyplot.subplots(figsize=(13.6, 7.0))
    draw_process(axes, 0.2, 6.5, 'the node: stays up, no framework')
    draw_process(axes, 7.35, 13.65, 'the worker: the model, may die')
    for steps, colour in (
            (FRAME_STEPS, FRAME), (CHECKPOINT_STEPS, CHECKPOINT), (KEEPER_STEPS, KEEPER)):
        for step in steps:
            draw_step(axes, *step, colour)
    half = HEIGHT / 2
    for row in range(1, 4):
        draw_arrow(axes, (NODE, ROWS[row] - half), (NODE, ROWS[row + 1] + half), FRAME)
    for row in range(4, 0, -1):
        draw_arrow(axes, (MODEL, ROWS[row] + half), (MODEL, ROWS[row - 1] - half), FRAME)
        draw_arrow(axes, (LOAD, ROWS[row] + half), (LOAD, ROWS[row - 1] - half), CHECKPOINT)
    side = WIDTH / 2
    socket = ROWS[4]
    draw_arrow(axes, (NODE + side, socket), (MODEL - side, socket), FRAME,
               'socket: engine/protocol.py')
    above = 6.95
    axes.plot([MODEL, MODEL, NODE], [ROWS[0] + half, above, above], color=FRAME, linewidth=1.6)
    draw_arrow(axes, (NODE, above), (NODE, ROWS[0] + half), FRAME)
    axes.text((NODE + MODEL) / 2, above + 0.1, 'back through the socket: the caption', ha='center',
              va='bottom', fontsize=8.5, color=FRAME)
    draw_arrow(axes, (LOAD - side, ROWS[2]), (MODEL + side, ROWS[2]), CHECKPOINT)
    draw_arrow(axes, (KEEP + side, ROWS[3]), (MODEL - side, ROWS[4] + half / 2), KEEPER,
               linestyle='--')
    for row in range(3):
        draw_arrow(axes, (KEEP, ROWS[row] - half), (KEEP, ROWS[row + 1] + half), KEEPER)
    draw_arrow(axes, (LOAD, 0.3), (LOAD, ROWS[4] - half), CHECKPOINT)
    axes.text(LOAD, 0.2, 'checkpoint: a packed file (models/safetensors_file.py)\n'
              'or a .pth (models/pth.py)', ha='center', va='top', fontsize=9, color=CHECKPOINT)
    draw_arrow(axes, (-1.0, ROWS[1]), (NODE - side, ROWS[1]), FRAME)
    draw_arrow(axes, (NODE - side, ROWS[0]), (-1.0, ROWS[0]), FRAME)
    axes.text(-0.4, ROWS[1] + 0.1, 'image_raw', ha='center', fontsize=8.5, color=FRAME)
    axes.text(-0.4, ROWS[0] + 0.1, '~/caption', ha='center', fontsize=8.5, color=FRAME)
    axes.text(3.35, 0.2, 'blue: the way of a frame; brown: the way of a checkpoint, stage by stage,'
              '\neach after a check of memory (engine/stages.py); grey: who decides',
              ha='center', va='top', fontsize=9, color='#4a5568')
    axes.set_xlim(-1.1, 13.85)
    axes.set_ylim(-0.5, 7.3)
    axes.axis('off')
    figure.savefig(Path(__file__).with_name('architecture.png'), dpi=110, bbox_inches='tight')


if __name__ == '__main__':
    main()
