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

"""The table of parameters, and what is written of it elsewhere."""

from pathlib import Path

from hypothesis import given, strategies as st
from jetcap_ros.engine.settings import CaptionerSettings
from jetcap_ros.node.parameters import document, on_set_parameters, PARAMETERS, SPECS
from rclpy.parameter import Parameter
import yaml

ROOT = Path(__file__).parent.parent


def test_the_document_is_the_table():
    """Run `python -m jetcap_ros.node.parameters > docs/parameters.md` where it is not."""
    assert (ROOT / 'docs' / 'parameters.md').read_text() == document()


def test_the_configuration_holds_every_default():
    text = (ROOT / 'config' / 'captioner.yaml').read_text()
    values = yaml.safe_load(text)['/**']['ros__parameters']
    assert values == {spec.name: spec.default for spec in PARAMETERS}


def test_the_engine_has_the_same_defaults():
    settings = CaptionerSettings()
    for name in CaptionerSettings.__dataclass_fields__:
        assert getattr(settings, name) == SPECS[name].default


VALUES = st.one_of(
    st.text(), st.integers(-2**63, 2**63 - 1), st.floats(), st.booleans(),
    st.lists(st.text(), min_size=1), st.lists(st.floats(), min_size=1))


@given(st.lists(st.tuples(st.sampled_from(sorted(SPECS)), VALUES)), st.booleans())
def test_no_value_makes_the_callback_fail(pairs, unconfigured):
    """An exception in it would end spin."""
    applied = {}
    callback = on_set_parameters(lambda: unconfigured, applied.update)
    result = callback([Parameter(name, value=value) for name, value in pairs])
    assert result.successful or (result.reason and not applied)
    for name, value in applied.items():
        spec = SPECS[name]
        assert not spec.choices or value in spec.choices
        if isinstance(spec.default, float) and isinstance(value, float):
            assert spec.limits[0] <= value <= spec.limits[1]
