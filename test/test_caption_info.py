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
