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

"""What ~/caption_info says follows its schema."""

import copy
import json
from pathlib import Path

import jsonschema
from node_process import image_message, NodeProcess
import pytest

SCHEMA = json.loads(
    (Path(__file__).parent.parent / 'docs' / 'caption_info.schema.json').read_text())


def test_caption_info_of_a_camera_follows_the_schema(photograph):
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    with NodeProcess({'model': 'simple', 'max_rate_hz': 0.0}) as node:
        assert node.change('configure') and node.change('activate')
        info = node.next_caption(node.camera(), image_message(photograph))
    jsonschema.validate(info, SCHEMA)
    assert set(info) == set(SCHEMA['properties'])
    for field, value in (
        ('score', 1.1), ('score', '0.5'), ('caption', None), ('stamp', {'sec': 1}),
        ('topic', 'image_raw'), ('model', 'other'), ('latency_ms', -1), ('more', 1),
        ('attention_peak', {'x': 2, 'y': 0}),
    ):
        wrong = {**copy.deepcopy(info), field: value}
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, SCHEMA)
