"""The table of parameters, and what is written of it elsewhere."""

from pathlib import Path

import yaml
from jetcap_ros.captioner import CaptionerSettings
from jetcap_ros.parameters import PARAMETERS, SPECS, document

ROOT = Path(__file__).parent.parent


def test_the_document_is_the_table():
    """Run `python -m jetcap_ros.parameters > docs/parameters.md` where it is not."""
    assert (ROOT / 'docs' / 'parameters.md').read_text() == document()


def test_the_configuration_holds_every_default():
    text = (ROOT / 'config' / 'captioner.yaml').read_text()
    values = yaml.safe_load(text)['/**']['ros__parameters']
    assert values == {spec.name: spec.default for spec in PARAMETERS}


def test_the_engine_has_the_same_defaults():
    settings = CaptionerSettings()
    for name in CaptionerSettings.__dataclass_fields__:
        assert getattr(settings, name) == SPECS[name].default
