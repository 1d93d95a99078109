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

"""Test that a server, whatever it does, leaves a captioner that captions, and nothing behind."""

import base64
import os
from pathlib import Path
import re
import shlex
import signal
import sys
import threading
import time

import cv2
from fake_server import CAPTION, FakeServer
from gguf_files import gguf_bytes, TEXT, write_model
from jetcap_ros.engine import recovery
from jetcap_ros.engine.captioner import Captioner, CaptionerError
from jetcap_ros.engine.settings import CaptionerSettings
from jetcap_ros.images.preprocessing import jpeg_within
from jetcap_ros.models.checkpoint import sha256
import numpy as np
import psutil
import pytest
from server_swaps import sleep_wake_and_make_way
from waiting import wait_for

PROGRAM = Path(__file__).with_name('fake_server.py')
STAGES = ['server_files', 'server_start', 'vision', 'warm_up']


@pytest.fixture(autouse=True)
def nothing_is_left():
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    yield
    assert not [child.cmdline() for child in psutil.Process().children(recursive=True)
                if child.pid not in before and child.status() != psutil.STATUS_ZOMBIE]


@pytest.fixture
def command(tmp_path):
    """Return the command of a fake server with real files."""
    model, projector = write_model(tmp_path)
    return shlex.join([
        sys.executable, '-S', str(PROGRAM), '-m', model, '--mmproj', projector])


def settings(**values):
    return CaptionerSettings(**{
        'model': 'server', 'reserve_memory_mb': 20, 'configure_timeout_s': 30, **values})


def test_a_server_of_its_own_captions_and_counts_as_the_worker(command, photograph):
    logged = []
    with Captioner(settings(server_command=command + ' --eat-mb 60'),
                   log=lambda severity, text: logged.append(text)) as captioner:
        captioner.configure()
        assert [stage.name for stage in captioner.stages] == STAGES
        assert captioner.stages[1].rss_mb > captioner.stages[0].rss_mb + 60
        caption = captioner.caption(photograph)
        assert (caption.text, caption.model) == (CAPTION, 'server')
        assert (caption.score_kind, caption.attention, caption.peak) == (
            'token_probability', None, None)
        assert captioner.worker_rss_mb > 80
        pid = captioner.facts['server pid']
        assert psutil.Process(pid).ppid() == captioner.worker_pid
        assert captioner.ask(photograph).text == CAPTION
    assert not psutil.pid_exists(pid)
    assert not logged  # nothing leaves this computer


def test_what_is_sent(photograph):
    wide = np.ascontiguousarray(np.repeat(photograph, 2, axis=1)[::2])
    with FakeServer('', kind='vllm', models=('smolvlm',), logprobs=()) as server, Captioner(
            settings(server_url=server.url + '/v1', max_length=12)) as captioner:
        captioner.configure()
        before = len(server.questions)
        captioner.settings.prompt = 'Is there a dog?'
        caption = captioner.caption(wide)
        assert (caption.score, caption.score_kind) == (None, None)
        question, = server.questions[before:]
    assert (question['model'], question['max_tokens']) == ('smolvlm', 24)
    image, text = question['messages'][0]['content']
    assert text['text'] == 'Is there a dog?'
    kind, _, data = image['image_url']['url'].partition(',')
    assert kind == 'data:image/jpeg;base64'
    jpeg = np.frombuffer(base64.b64decode(data), np.uint8)
    height, width = cv2.imdecode(jpeg, cv2.IMREAD_COLOR).shape[:2]
    assert width == 384
    assert height == round(384 * wide.shape[0] / wide.shape[1])  # not squashed


def test_pictures_are_kept_small():
    noise = np.random.default_rng(0).integers(0, 256, (1080, 1920, 3), np.uint8)
    jpeg = jpeg_within(noise, 2048)
    assert len(jpeg) <= 200_000
    shape = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR).shape
    assert abs(shape[1] / shape[0] - 16 / 9) < 0.02
    for size in ((1, 5000), (3, 2)):
        assert jpeg_within(np.zeros((*size, 3), np.uint8), 384)
    with pytest.raises(ValueError, match='expected'):
        jpeg_within(np.zeros((4, 4), np.uint8), 384)


def test_whatever_it_answers_the_same_frame_is_captioned_and_it_is_tried_again(
        photograph, monkeypatch):
    monkeypatch.setattr(recovery, 'FIRST_RETRY_S', 0.1)
    with FakeServer('', seconds=5) as server, Captioner(
            settings(server_url=server.url, server_model='fake',
                     inference_timeout_s=1.0)) as captioner:
        captioner.configure()
        for play, words in (
                ('error500', '500: failed to decode image'), ('slow', 'no answer within 0.5 s'),
                ('other_model', 'somebody-else')):
            server.play = play
            caption = captioner.caption(photograph)
            assert (caption.model, bool(caption.text)) == ('simple', True)
            assert words in captioner.reason, captioner.reason
            with pytest.raises(CaptionerError, match='takes no questions.*' + words[:20]):
                captioner.ask(photograph)
            server.play = 'ok'
            wait_for(lambda: captioner.model_in_use == 'server')
            assert captioner.caption(photograph).text == CAPTION
            monkeypatch.setattr(captioner._keeper._recovery, '_delay_s', 0.1)
        assert server.given_up.is_set()  # by the slow one, whose connection was closed


@pytest.mark.parametrize('number, words', [
    (signal.SIGKILL, 'died of SIGKILL|lack of memory'), (signal.SIGSTOP, 'no answer within')])
def test_a_server_of_its_own_that_dies_or_stops(
        command, photograph, monkeypatch, number, words):
    monkeypatch.setattr(recovery, 'FIRST_RETRY_S', 1.0)
    with Captioner(settings(server_command=command, inference_timeout_s=1.0)) as captioner:
        captioner.configure()
        first = captioner.facts['server pid']
        os.kill(first, number)
        assert captioner.caption(photograph).model == 'simple'
        assert re.search(words, captioner.reason)
        wait_for(lambda: captioner.model_in_use == 'server')
        assert captioner.caption(photograph).text == CAPTION
        assert captioner.facts['server pid'] != first and not psutil.pid_exists(first)


def test_a_worker_that_is_killed_takes_its_server_along(command, photograph):
    with Captioner(settings(server_command=command, recover=False)) as captioner:
        captioner.configure()
        server, worker = captioner.facts['server pid'], captioner.worker_pid
        os.kill(worker, signal.SIGKILL)
        assert captioner.caption(photograph).model == 'simple'
        wait_for(lambda: not psutil.pid_exists(server)
                 or psutil.Process(server).status() == psutil.STATUS_ZOMBIE)


def test_memory_is_checked_before_the_server_starts(tmp_path, photograph):
    _, projector = write_model(tmp_path)
    huge = tmp_path / 'huge.gguf'
    huge.write_bytes(gguf_bytes({**TEXT, 'llama.block_count': 1_000_000}))
    with Captioner(settings(
            checkpoint=str(huge), projector=projector, server_binary=sys.executable,
            recover=False)) as captioner:
        captioner.configure()
        assert 'stage server_start: not enough memory' in captioner.reason
        assert captioner.caption(photograph).model == 'simple'


@pytest.mark.parametrize('values, words', [
    ({}, 'needs server_url, server_command'), ({'server_url': 'localhost'}, 'server_url localhost'),
    ({'checkpoint': '/no.gguf', 'projector': '/no.gguf'}, '/no.gguf: cannot be read'),
    ({'server_command': 'x "'}, 'No closing quotation')])
def test_mistakes_are_said_and_not_made_up_for(values, words):
    with Captioner(settings(**values)) as captioner:
        with pytest.raises(CaptionerError, match=words):
            captioner.configure()


def test_ollama_gives_its_memory_back_also_while_it_works(photograph):
    with FakeServer('', kind='ollama', models=('moondream:latest',), good_answers=2,
                    play='slow') as server:
        captioner = Captioner(settings(server_url=server.url, server_model='moondream'))
        captioner.configure()
        thread = threading.Thread(
            target=lambda: pytest.raises(CaptionerError, captioner.caption, photograph))
        thread.start()
        wait_for(lambda: len(server.questions) == 3)
        started = time.monotonic()
        captioner.close()
        assert time.monotonic() - started < 2
        assert server.given_up.wait(2)
        assert server.requests[-1] == ('/api/generate', {'model': 'moondream', 'keep_alive': 0})
        thread.join()


def test_pictures_that_leave_the_computer_are_announced_once():
    logged = []
    with Captioner(settings(server_url='http://0.0.0.0:9'),
                   log=lambda severity, text: logged.append(text)) as captioner:
        captioner.configure()  # nobody is there, so that the simple model captions
        assert captioner.model_in_use == 'simple'
    assert sum('pictures leave this computer' in text and 'http://0.0.0.0:9' in text
               for text in logged) == 1


def test_it_sleeps_wakes_and_makes_way_for_another_model(command, tmp_path, photograph):
    model, projector = write_model(tmp_path)
    binary = tmp_path / 'llama-server'
    binary.write_text(f'#!/bin/sh\nexec {sys.executable} -S {PROGRAM} "$@"\n')
    binary.chmod(0o755)
    logged = []
    with Captioner(settings(checkpoint=model, projector=projector, server_binary=str(binary),
                            checkpoint_sha256=sha256(model), sleep_after_s=0.3),
                   log=lambda severity, text: logged.append(text)) as captioner:
        captioner.configure()
        sleep_wake_and_make_way(captioner, photograph)
        assert captioner.caption(photograph).text == CAPTION
        assert captioner.restarts == 0 and not captioner.reason
    assert not any('pack' in text for text in logged)  # what is the server's needs no packing


def test_ollama_gives_its_memory_back_when_there_is_no_work():
    with FakeServer('', kind='ollama', models=('moondream:latest',)) as server, Captioner(
            settings(server_url=server.url, sleep_after_s=0.2)) as captioner:
        captioner.configure()
        wait_for(lambda: captioner.asleep_for is not None)
        assert server.requests[-1] == (
            '/api/generate', {'model': 'moondream:latest', 'keep_alive': 0})


@pytest.mark.parametrize('model, fallback, lost, expected', [
    ('server', 'mobilenet', 'server', ('mobilenet', 'simple')),
    ('server', 'mobilenet', 'mobilenet', ('simple',)), ('server', 'simple', 'server', ('simple',)),
    ('mobilenet', 'mobilenet', 'mobilenet', ('simple',)), ('server', 'none', 'server', ()),
    ('simple', 'none', 'simple', ('simple',)), ('mobilenet', 'none', 'mobilenet', ())])
def test_who_stands_in_for_whom(model, fallback, lost, expected):
    assert CaptionerSettings(model=model, fallback=fallback).stand_ins(lost) == expected
