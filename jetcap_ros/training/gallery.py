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

"""The gallery of an evaluation: the best, the worst and random pictures on one page."""

from collections.abc import Mapping, Sequence
import os
import random
from typing import Any

import numpy as np

from .metrics import METRICS
from ..images.drawing import draw_caption
from ..images.page import data_uri, render_page, thumbnail
from ..images.picture import read_picture

COUNT = 12  # pictures of each kind
TEMPLATE = """
<p class="lead">{{ settings.checkpoint }}, {{ settings.model }} model, beam {{ settings.beam }},
split {{ settings.split }}; scores x 100, {{ settings.tokenizer }} tokens.</p>
<div class="scroll"><table>
<tr><th></th>{% for name in table %}<th>{{ name }}</th>{% endfor %}</tr>
<tr><td>pictures</td>{% for row in table.values() %}<td>{{ row.pictures }}</td>{% endfor %}</tr>
{% for metric in metrics %}
<tr><td>{{ metric }}</td>
{% for row in table.values() %}<td>{{ '%.1f' % row[metric] }}</td>{% endfor %}</tr>
{% endfor %}
</table></div>
{% for heading, pictures in parts %}
<h2>{{ heading }}</h2>
<div class="gallery">
{% for picture, result in pictures %}
<figure><img src="{{ picture }}" alt="{{ result.caption }}"><figcaption>{{ result.caption }}
<small>CIDEr {{ '%.0f' % result.metrics['CIDEr'] }}{% if result.score is not none %}, score
{{ '%.2f' % result.score }}{% endif %}</small>
<small>people: {{ result.references[:2] | join(' / ') }}</small></figcaption></figure>
{% endfor %}
</div>
{% endfor %}
"""


def write_gallery(
        path: str, settings: Mapping[str, object], table: Mapping[str, Mapping[str, float]],
        results: Sequence[Any], images: str) -> None:
    """Write the page: best and worst by CIDEr, and a random choice that is always the same."""
    scored = [result for result in results if result.metrics]
    ranked = sorted(scored, key=lambda result: result.metrics['CIDEr'], reverse=True)
    drawn = random.Random(0).sample(scored, min(COUNT, len(scored)))

    def show(result: Any, attention: Any = None) -> str:
        image = read_picture(os.path.join(images, result.file))
        return data_uri(thumbnail(draw_caption(image, '', attention)))

    parts = [
        (heading, [(show(result), result) for result in chosen])
        for heading, chosen in (
            ('Random', drawn), ('Best by CIDEr', ranked[:COUNT]),
            ('Worst by CIDEr', ranked[::-1][:COUNT]))]
    looked = [
        (show(result, np.array(result.attention)), result)
        for result in drawn if result.attention is not None]
    if looked:
        parts.append(('Where the model looked in the random ones', looked))
    metrics = [metric for metric in METRICS if metric in next(iter(table.values()))]
    with open(path, 'w', encoding='utf-8') as file:
        file.write(render_page(
            'Captions and their scores', TEMPLATE, settings=settings, table=table, parts=parts,
            metrics=metrics))
