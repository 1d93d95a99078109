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

from hypothesis import given, HealthCheck, settings, strategies as st
from jetcap_ros.engine.captioner import Captioner
from jetcap_ros.engine.settings import CaptionerSettings
from jetcap_ros.node.parameter_changes import ParameterChanges
from jetcap_ros.node.parameters import declare_parameters, document, PARAMETERS, SPECS
import pytest
import rclpy
from rclpy.context import Context
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


class Changes(ParameterChanges):
    """Of a node in a state that can be set, and a captioner that is loaded with nothing."""

    def __init__(self, node):
        self.begin(True)
        super().__init__(
            node, lambda: self.unconfigured, lambda: self.captioner,
            lambda: self.told.append(True))

    def begin(self, unconfigured):
        self.unconfigured, self.captioner, self.told = (
            unconfigured, Captioner(CaptionerSettings()), [])


@pytest.fixture(scope='module')
def changes():
    context = Context()
    rclpy.init(context=context)
    node = rclpy.create_node('parameters', context=context)
    declare_parameters(node)
    yield Changes(node)
    node.destroy_node()
    rclpy.shutdown(context=context)


@given(st.lists(st.tuples(st.sampled_from(sorted(SPECS)), VALUES)), st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_no_value_makes_the_callback_fail(changes, pairs, unconfigured):
    """An exception in it would end spin."""
    changes.begin(unconfigured)
    result = changes.judge([Parameter(name, value=value) for name, value in pairs])
    assert result.successful == bool(changes.told) == (not result.reason)
    taken_on = changes.captioner.settings
    assert result.successful or taken_on == CaptionerSettings()
    for name, value in vars(taken_on).items():
        spec = SPECS[name]
        assert not spec.choices or value in spec.choices
        if isinstance(spec.default, float) and isinstance(value, float):
            assert spec.limits[0] <= value <= spec.limits[1]


def test_values_that_are_there_already_are_accepted_in_any_state(changes):
    changes.begin(False)
    assert changes.judge([
        Parameter(spec.name, value=spec.default) for spec in PARAMETERS]).successful
    refused = changes.judge([Parameter('image_topics', value=['other'])])
    assert 'clean up first' in refused.reason


@pytest.mark.parametrize('name, value, words', [
    ('checkpoint', '/no/such.safetensors', 'No such file'), ('checkpoint', __file__, 'neither'),
    ('checkpoint_sha256', '0' * 64, 'SHA-256 is')])
def test_what_cannot_be_loaded_is_refused_at_once(changes, name, value, words):
    changes.begin(False)
    result = changes.judge([Parameter('model', value='simple'), Parameter(name, value=value)])
    assert not result.successful and words in result.reason
