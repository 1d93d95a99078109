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

"""Test what a server is asked and what its answers, good and bad, are taken for."""

import base64
import contextlib
import json
import operator
import os
import socket
import struct
import threading
import time

from fake_server import BODIES, CAPTION, FakeServer, REFUSALS
from gguf_files import gguf_bytes, PROJECTOR, TEXT, write_model
from hypothesis import given, settings, strategies as st
from jetcap_ros.models.errors import CheckpointError
from jetcap_ros.models.server.address import Address, is_local
from jetcap_ros.models.server.chat import ChatClient, grey_picture
from jetcap_ros.models.server.command import (
    gguf_files, little_memory_flags, need_mb, split_command, with_little_memory)
from jetcap_ros.models.server.errors import ServerError
from jetcap_ros.models.server.gguf import read_gguf
from jetcap_ros.models.server.http_client import NotListening, request
from jetcap_ros.models.server.plain_text import plain_line
import pytest

PICTURE = grey_picture(16)


@pytest.fixture(params=['tcp', 'unix'])
def fake(request, tmp_path):
    """Return a server over either kind of socket."""
    with FakeServer(f'unix:{tmp_path}/s.sock' if request.param == 'unix' else '') as server:
        yield server


def ask(server, timeout=5.0, model=''):
    return ChatClient(Address.parse(server.url), model).ask(
        PICTURE, 'png', 'What is it?', 20, timeout)


def test_a_picture_is_asked_about_and_answered(fake):
    client = ChatClient(Address.parse(fake.url))
    assert not client.is_loading()
    client.look(5.0)
    said = client.ask(PICTURE, 'png', 'What is it?', 20, 5.0)
    assert (said.text, said.cut) == (CAPTION, False)
    assert said.probability == pytest.approx(0.4724, abs=1e-4)  # exp(-0.75)
    question, = fake.questions
    image, text = question['messages'][0]['content']
    assert text['text'] == 'What is it?'
    assert base64.b64decode(image['image_url']['url'].split(',')[1]) == PICTURE
    assert (question['temperature'], question['max_tokens']) == (0, 20)
    assert question['cache_prompt'] is False
    fake.logprobs = ()
    assert client.ask(PICTURE, 'png', '', 20, 5.0).probability is None


@pytest.mark.parametrize('play, words', [
    *((play, 'no completion|without a text') for play in BODIES if play != 'silent'),
    ('error500', '500: failed to decode image$'), ('error503', '503: Loading model$'),
    ('error400', '1093 tokens. exceeds the available context size'),
    ('error404', "404: model 'moondream' not found"), ('error_text', '500: Internal .31mError xxx'),
    ('half', 'broke off within its answer'), ('half_json', 'no completion'),
    ('megabyte', 'more than 524288 bytes'), ('lies_of_length', 'broke off'),
    ('redirect', 'answers 302'), ('no_http', 'does not speak HTTP'),
    ('hangs_up', 'without an answer'), ('other_model', "'somebody-else', not 'fake'")])
def test_answers_that_are_none_are_told_in_the_servers_words(fake, play, words):
    fake.play = play
    with FakeServer('') as elsewhere:
        fake.redirect_to = elsewhere.url
        started = time.monotonic()
        with pytest.raises(ServerError, match=words) as caught:
            ask(fake, model='fake')
        assert time.monotonic() - started < 3
        assert len(str(caught.value)) < 600 and str(caught.value).isprintable()
        assert not elsewhere.requests  # nothing is fetched that an answer names


@pytest.mark.parametrize('play', ['slow', 'drips'])
def test_a_request_is_given_up_in_time_and_really_ends(fake, play):
    fake.play = play
    started = time.monotonic()
    with pytest.raises(ServerError, match='no answer within 0.3 s'):
        ask(fake, timeout=0.3)
    assert time.monotonic() - started < 1
    assert fake.given_up.wait(2), 'the server was left at work'


def test_nobody_listens(tmp_path):
    with socket.socket() as taken:
        taken.bind(('127.0.0.1', 0))  # and does not listen
        addresses = [f'http://127.0.0.1:{taken.getsockname()[1]}', f'unix:{tmp_path}/none']
        for url in addresses:
            with pytest.raises(NotListening, match='nobody answers there'):
                request(Address.parse(url), 'GET', '/health', timeout=1)


def test_a_server_that_takes_no_connection_is_given_up(tmp_path):
    path = tmp_path / 's'
    with contextlib.ExitStack() as stack:
        silent = stack.enter_context(socket.socket(socket.AF_UNIX))
        silent.bind(str(path))
        silent.listen(0)
        waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
        waiting.connect(str(path))
        with pytest.raises(ServerError, match='within 0.2 s|nobody'):
            request(Address.parse(f'unix:{path}'), 'GET', '/', timeout=0.2)


@pytest.mark.parametrize('url', [
    '', 'localhost:8080', 'ftp://x', 'http://', 'http://:80', 'http://x:99999',
    'file:///etc/passwd', 'unix:', 'unix:relative', 'unix:/' + 'x' * 110,
    'http://user:key@host', 'http://[::1',
    'http://x/?q=1'])
def test_what_is_no_address_is_refused(url):
    with pytest.raises(ValueError):
        Address.parse(url)


def test_addresses():
    assert Address.parse('http://[::1]:8/v1/') == Address('http://[::1]:8/v1/', '', '::1', 8)
    assert Address.parse('https://x/a/v1').prefix == '/a'
    for url, local in (('http://127.0.0.1', True), ('unix:/x', True), ('http://10.0.0.2', False),
                       ('http://localhost:1', True), ('http://127.0.0.1.evil.example', False)):
        assert is_local(url) == local, url


@pytest.mark.parametrize('kind, vision', [('llama', True), ('vllm', True), ('llama', False)])
def test_whether_it_can_see(fake, kind, vision):
    fake.kind = kind
    fake.play = 'ok' if vision else 'blind'
    client = ChatClient(Address.parse(fake.url))
    if not vision:
        with pytest.raises(ServerError, match='cannot see'):
            client.look(5.0)
        return
    client.look(5.0)
    assert len(fake.questions) == (kind != 'llama')  # who does not say is shown a picture


def test_which_model_of_several(fake):
    fake.kind, fake.models = 'ollama', ('moondream:latest', 'llava:7b')
    for name, words in (('', 'several models: set server_model to one of moondream:latest, llava'),
                        ('qwen', "no model 'qwen'")):
        with pytest.raises(ServerError, match=words):
            ChatClient(Address.parse(fake.url), name).look(5.0)
    client = ChatClient(Address.parse(fake.url), 'moondream')
    client.look(5.0)
    client.unload()
    assert fake.requests[-1] == ('/api/generate', {'model': 'moondream', 'keep_alive': 0})


@pytest.mark.parametrize('said, line', [
    ('A dog runs.', 'A dog runs.'),
    ('  A dog\n\truns.  \r\n', 'A dog runs.'),
    ('Sure! Here is a one-sentence description:\n\n**A dog** runs on the _grass_.',
     'A dog runs on the grass.'),
    ("Sure, here's the caption: \"A dog runs.\"", 'A dog runs.'),
    ('# Caption\n\n- A dog runs.\n- A cat sleeps.', 'Caption A dog runs. A cat sleeps.'),
    ('```\nA dog runs.\n```', 'A dog runs.'),
    ('<think>Is it a dog?</think>A dog runs.', 'A dog runs.'),
    ('<think>it never ends', ''),
    ('A dog runs.<end_of_utterance>', 'A dog runs.'), ('<|im_start|>assistant: A dog.', 'A dog.'),
    ('See [a dog](http://evil.example/x).', 'See a dog.'),
    ('A \x1b[31mred\x07 dog\u202e \u200bruns.', 'A [31mred dog runs.'),
    ('Yes, there is a dog.', 'Yes, there is a dog.'), ('No', 'No'),
    ('“A dog runs.”', 'A dog runs.'),
    ('One two three four five six. Seven eight nine ten eleven. Twelve.',
     'One two three four five six.'),
    ('It is 1.5 m high. It is red.', 'It is 1.5 m high. It is red.'),
    ('snake_case and a*b', 'snake_case and ab'),
    ('word ' * 50, 'word ' * 19 + 'word…')])
def test_one_plain_line_comes_out(said, line):
    assert plain_line(said, 10) == line


def test_what_was_cut_says_so():
    assert plain_line('A dog runs over the', 10, cut=True) == 'A dog runs over the…'
    assert plain_line('A dog runs. It is bro', 10, cut=True) == 'A dog runs.'


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.text(max_size=300) | st.text(alphabet='<>|*_`#[]() \n.A"', max_size=300))
def test_any_text_becomes_one_line(text):
    line = plain_line(text, 10)
    assert line == ' '.join(line.split()) and len(line.split()) <= 20
    assert all(c.isprintable() or c == ' ' for c in line)


def test_long_hostile_text_takes_no_time():
    started = time.monotonic()
    for text in ('<' * 100_000, '[' * 100_000, '*' * 100_000, 'a. ' * 50_000, '"' * 100_000,
                 'here is ' * 20_000, '(' * 50_000 + ']' * 50_000, ' ' * 100_000 + '#'):
        plain_line(text, 10)
    assert time.monotonic() - started < 2


def test_gguf_metadata(tmp_path):
    model, projector = (read_gguf(path) for path in write_model(tmp_path))
    assert (model.architecture, projector.architecture) == ('llama', 'clip')
    assert model.number('llama.block_count') == 30
    assert model.lengths == {'tokenizer.ggml.tokens': 3}
    assert projector.metadata['clip.has_vision_encoder'] is True
    values = {'general.architecture': 'x', 'a': [1, 2, 3], 'b': 1.5, 'c': [0] * 5000, 'd': ''}
    (tmp_path / 'x.gguf').write_bytes(gguf_bytes(values, tensors=3))
    found = read_gguf(str(tmp_path / 'x.gguf'))
    assert found.metadata == {key: value for key, value in values.items() if key != 'c'}
    assert (found.number('a'), found.lengths['c']) == (6, 5000)


def test_gguf_that_is_damaged_or_lies_is_refused(tmp_path):
    path = tmp_path / 'x.gguf'
    whole = gguf_bytes(TEXT, tensors=2)
    header = len(whole) - 64  # the two tensors; up to 31 bytes before them are padding
    huge = struct.pack('<Q', 1 << 60)
    bad = [whole[:length] for length in range(header - 32)] + [
        b'GGUF' + struct.pack('<IQQ', 1, 0, 0), b'GGUF' + struct.pack('<IQQ', 3, 0, 1 << 40),
        b'GGUF' + struct.pack('<IQQ', 3, 0, 1) + huge,
        b'GGUF' + struct.pack('<IQQQ', 3, 0, 1, 1) + b'k' + struct.pack('<IIQ', 9, 8, 1 << 60),
        b'GGUF' + struct.pack('<IQQQ', 3, 0, 1, 1) + b'k' + struct.pack('<IIQ', 9, 0, 1 << 60),
        b'GGUF' + struct.pack('<IQQQ', 3, 0, 1, 1) + b'k' + struct.pack('<II', 9, 9) + bytes(8),
        b'GGUF' + struct.pack('<IQQQ', 3, 0, 1, 1) + b'k' + struct.pack('<I', 77),
        b'\x80\x02}q\x00.', b'PK\x03\x04' + bytes(100)]
    for data in bad:
        path.write_bytes(data)
        with pytest.raises(CheckpointError, match='x.gguf: '):
            read_gguf(str(path))
    for missing in (tmp_path / 'none.gguf', tmp_path):
        with pytest.raises(CheckpointError, match='cannot be read'):
            read_gguf(str(missing))


def test_files_in_each_others_place_are_told(tmp_path):
    model, projector = write_model(tmp_path)
    assert len(gguf_files(['llama-server', '-m', model, '--mmproj', projector])) == 2
    for words, reason in ((['-m', projector], 'not a model'), (['--mmproj', model], 'projector'),
                          (['-m', f'{tmp_path}/no.gguf'], 'no.gguf')):
        with pytest.raises(CheckpointError, match=reason):
            gguf_files(['llama-server', *words])
    sound = tmp_path / 'sound.gguf'
    sound.write_bytes(gguf_bytes({**PROJECTOR, 'clip.has_vision_encoder': False}))
    with pytest.raises(CheckpointError, match='for sound'):
        gguf_files(['llama-server', '--mmproj', str(sound)])


def test_the_memory_needed_is_read_from_the_files(tmp_path):
    model, projector = (read_gguf(path) for path in write_model(tmp_path))
    # 30 layers, 3 heads of 64, keys and values, 2 bytes, 2048 tokens: 45 MB.
    assert 45 < need_mb([model], []) - need_mb([], []) < 60
    assert 90 < need_mb([model], ['x', '-c', '4096']) - need_mb([], []) < 105
    whole = need_mb([model], ['x', '--ctx-size', str(int(model.number('llama.context_length')))])
    assert need_mb([model], ['x', '-c', '0']) == whole
    # 1024 patches that see each other, 12 heads, 4 bytes: 48 MB.
    assert 48 < need_mb([projector], []) - need_mb([], []) < 110


def test_flags_for_little_memory_leave_the_users_alone(tmp_path):
    flags = little_memory_flags(384, 3)
    words = with_little_memory(['llama-server', '-c', '4096'], tmp_path / 's.sock', flags)
    assert words[:3] == ['llama-server', '-c', '4096'] and words.count('-c') == 1
    pairs = list(zip(words, words[1:]))
    for pair in (('--host', f'{tmp_path}/s.sock'), ('-np', '1'), ('-t', '3'),
                 ('--cache-ram', '0'), ('--image-max-tokens', '196')):
        assert pair in pairs
    with pytest.raises(ServerError, match='server_url'):
        with_little_memory(['llama-server', '--port', '80'], tmp_path, flags)


def test_a_command_is_words_and_no_shell():
    assert split_command("a 'b c' $HOME ; rm -rf / | x") == [
        'a', 'b c', '$HOME', ';', 'rm', '-rf', '/', '|', 'x']
    for text in ('', '   ', 'a "b'):
        with pytest.raises(ServerError, match='server_command'):
            split_command(text)


def test_no_thread_and_no_socket_is_left_by_many_requests(fake):
    def held():
        return len(os.listdir('/proc/self/fd')), threading.active_count()

    before = held()
    for _ in range(20):
        ask(fake)
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and any(map(operator.gt, held(), before)):
        time.sleep(0.01)
    assert not any(map(operator.gt, held(), before)), (held(), before)


def test_the_refusals_are_what_servers_send():
    for status, body in REFUSALS.values():
        assert status >= 400
        if body.startswith(b'{'):
            assert 'error' in json.loads(body)
