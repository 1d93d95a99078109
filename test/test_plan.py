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

"""`jetcap plan` says beforehand what configure then does."""

import json
import os
from pathlib import Path
import subprocess
import sys

from fake_server import FakeServer
from jetcap_ros.benchmark.cgroup import CgroupUnavailable, MemoryCgroup
from jetcap_ros.engine import needs, plan as planning
from jetcap_ros.engine.lazy_loader import LazyModel
from jetcap_ros.engine.settings import CaptionerSettings, SHIPPED_CHECKPOINT
from jetcap_ros.engine.stages import need_mb, STAGES, stages_of
import jsonschema
from node_process import NodeProcess
import pytest

SCHEMA = json.loads((Path(__file__).parent.parent / 'docs' / 'plan.schema.json').read_text())


@pytest.fixture(autouse=True)
def memory_of_needs(tmp_path, monkeypatch):
    monkeypatch.setenv('ROS_HOME', str(tmp_path))
    needs._read.cache_clear()
    yield tmp_path / 'jetcap_ros' / 'needs.json'
    needs._read.cache_clear()


def jetcap_plan(*arguments, prefix=()):
    return subprocess.run(
        [*prefix, sys.executable, '-m', 'jetcap_ros.cli', 'plan', *arguments],
        capture_output=True, text=True)


def with_available(monkeypatch, mb):
    monkeypatch.setattr(planning, 'available_memory', lambda: (mb, 'machine'))


def test_the_plan_is_what_configure_does_at_six_limits():
    try:
        group = MemoryCgroup(1000)
    except CgroupUnavailable as error:
        pytest.skip(f'no real cgroup here: {error}')
    pytest.importorskip('torch')
    verdicts = []
    with group, NodeProcess(
            {'min_available_memory_mb': 400.0}, prefix=group.command([])) as node:
        node.state()
        for limit in (1000, 600, 460, 380, 220, 150):
            group.set_limit(limit)
            answer = jetcap_plan(
                '--json', '--min-available', '400', prefix=group.command([]))
            plan = json.loads(answer.stdout)
            jsonschema.validate(plan, SCHEMA)
            assert plan['limited_by'] == str(group.path)
            configured = node.change('configure')
            seen = len(node.statuses)
            status = node.wait_for(lambda: node.statuses[seen:])[0]
            model = {value.key: value.value for value in status.values}.get('model')
            assert plan['model'] == (model if configured else None), (
                limit, plan, status.message)
            said = [line for line in node.output().splitlines() if 'plan: ' in line]
            assert len(said) == len(verdicts) + 1
            assert (f'the {model} model fits' if configured else 'no model fits') in said[-1]
            verdicts.append((plan['verdict'], answer.returncode))
            if configured:
                assert node.change('cleanup')
        assert group.oom_kills == 0
    assert verdicts == [
        ('full', 0), ('full', 0), ('simple', 3), ('simple', 3), ('refused', 4), ('refused', 4)]


@pytest.mark.parametrize('model', STAGES)
def test_the_stages_planned_are_those_of_the_loader(model):
    begun = []
    if model == 'mobilenet':
        pytest.importorskip('torch')
    with FakeServer('') as server:
        settings = CaptionerSettings(model=model, server_url=server.url)
        LazyModel('', model, reserve_memory_mb=0, server=settings.server_options,
                  on_begin=begun.append).model
        plan = planning.make_plan(settings).models[0]
    assert [step.name for step in plan.steps][-len(begun):] == begun == list(stages_of(model))


def test_the_runtime_is_planned_for(monkeypatch):
    with_available(monkeypatch, 1000)

    def planned(runtime):
        return planning.make_plan(CaptionerSettings(model='simple', runtime=runtime)).models[0]

    left = {}
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    assert planned('onnxruntime').problem == 'stage onnxruntime: onnxruntime is not installed'
    monkeypatch.setattr('importlib.util.find_spec', lambda name: name)
    for runtime, stages in (
            ('opencv', ['opencv']), ('onnxruntime', ['onnxruntime']),
            ('auto', ['opencv', 'onnxruntime'])):
        plan = planned(runtime)
        left[runtime] = plan.remaining_mb
        assert [step.name for step in plan.steps] == [
            'worker', 'metadata', *stages, 'weights', 'cleanup', 'warm_up']
    assert left['opencv'] > left['onnxruntime'] > left['auto']


def test_the_advice_is_enough_and_no_more(monkeypatch):
    settings = CaptionerSettings(model='simple')
    with_available(monkeypatch, 150)
    refused = planning.make_plan(settings).models[0]
    more = float(refused.advice.split()[0])
    with_available(monkeypatch, 150 + more)
    assert planning.make_plan(settings).exit_code == 0
    with_available(monkeypatch, 150 + more - 2)
    assert planning.make_plan(settings).exit_code == 4
    settings.reserve_memory_mb = float(refused.advice.split('reserve_memory_mb be ')[1].split()[0])
    with_available(monkeypatch, 150)
    assert planning.make_plan(settings).exit_code == 0


def test_the_first_check_alone_is_said_to_be_too_high(monkeypatch):
    pytest.importorskip('torch')
    with_available(monkeypatch, 700)
    plan = planning.make_plan(CaptionerSettings())
    assert plan.exit_code == 3 and plan.verdict == 'simple'
    assert 'min_available_memory_mb be 700 at most' in plan.models[0].advice
    with_available(monkeypatch, 700)
    assert planning.make_plan(CaptionerSettings(fallback='none')).exit_code == 4


@pytest.mark.parametrize('arguments, words', [
    (('--checkpoint', '/no/such.safetensors'), 'No such file'),
    (('--checkpoint', __file__), 'neither a packed file'),
    (('--checkpoint', SHIPPED_CHECKPOINT, '--device', 'tpu'), 'invalid choice')])
def test_what_cannot_be_loaded_is_refused(arguments, words):
    result = jetcap_plan(*arguments)
    assert result.returncode == (2 if 'invalid' in words else 4)
    assert words in result.stdout + result.stderr
    assert 'Traceback' not in result.stderr


def test_the_table_loads_no_model():
    code = (
        'import sys; from jetcap_ros.cli import main; main(["plan"]); '
        'print(sorted({"torch", "cv2", "rclpy", "numpy"} & set(sys.modules)))')
    out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stdout
    assert out.endswith('[]\n') and 'verdict: ' in out and 'warm_up' in out


def test_measured_needs_are_shown_and_those_beyond_are_remembered(memory_of_needs):
    pytest.importorskip('cv2')
    result = jetcap_plan('--measure', '--model', 'simple', '--json')
    measured = json.loads(result.stdout)
    assert [stage['stage'] for stage in measured['stages']] == list(stages_of('simple'))
    assert all(s['measured_mb'] <= s['assumed_mb'] + 1 for s in measured['stages'])
    before = need_mb('simple', 'weights', 10)
    needs.remember('simple', {'weights': 100.0})
    assert memory_of_needs.exists()
    assert need_mb('simple', 'weights', 10) == before + 70
    assert need_mb('mobilenet', 'weights', 10) == 55  # of another model
    plan = json.loads(jetcap_plan('--model', 'simple', '--json').stdout)
    weights = next(s for s in plan['models'][0]['stages'] if s['name'] == 'weights')
    size = os.path.getsize(SHIPPED_CHECKPOINT) / (1 << 20)
    assert weights['need_mb'] == pytest.approx(100 + 4 * size, abs=0.1)


@pytest.mark.parametrize('text', ['', '[1]', '{"simple": {"torch": "much"}}', '{"simple": 3}'])
def test_a_damaged_memory_of_needs_is_said_and_not_used(text, memory_of_needs):
    memory_of_needs.parent.mkdir()
    memory_of_needs.write_text(text)
    with pytest.warns(UserWarning, match='needs.json is not used'):
        assert need_mb('simple', 'opencv') == 10
