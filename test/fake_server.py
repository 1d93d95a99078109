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

"""
A server that answers as llama-server, Ollama and vLLM do, and in all the ways that go wrong.

In a test: `FakeServer('unix:/tmp/x.sock', play='slow')`. As a program, with llama-server's options
`-m`, `--mmproj`, `--host` and `--port`, in place of the real one: `fake_server.py --play NAME`.
"""

import argparse
import contextlib
from http.server import BaseHTTPRequestHandler
import json
import os
import select
import signal
import socketserver
import sys
import threading
import time

CAPTION = 'A red ball lies on the grass.'
# How an answer to a picture goes wrong, by name; the rest is done in `_complete`.
BODIES = {
    'garbage': b'\x00\xff\xfe not JSON at all', 'no_json': b'<html>hello</html>',
    'empty': b'', 'no_choices': b'{"choices": []}', 'null': b'null', 'list': b'[1, 2]',
    'no_text': b'{"choices": [{"message": {"content": null}}]}',
    'deep': b'[' * 100_000,
    'silent': b'{"choices": [{"message": {"content": "<|im_end|> \\n"}}]}'}
REFUSALS = {
    'error500': (500, b'{"error": {"code": 500, "message": "failed to decode image"}}'),
    'error503': (503, b'{"error": {"code": 503, "message": "Loading model"}}'),
    'error400': (400, b'{"error": {"code": 400, "message": "request (1093 tokens) exceeds the '
                      b'available context size (512 tokens)"}}'),
    'error404': (404, b'{"error": "model \'moondream\' not found"}'),
    'error_text': (500, b'Internal \x1b[31mError\r\n' + b'x' * 5000)}


class Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    fake: 'FakeServer'

    def log_message(self, *args):
        pass

    def address_string(self):
        return 'client'

    def do_GET(self):
        fake = self.fake
        fake.requests.append((self.path, None))
        known = {'/v1/models': {'data': [{'id': name} for name in fake.models]}}
        if fake.kind == 'llama':
            known['/health'] = {'status': 'ok'}
            known['/props'] = {'modalities': {'vision': fake.play != 'blind', 'audio': False}}
        if fake.kind == 'ollama':
            known['/api/version'] = {'version': '0.12'}
        if self.path == '/health' and time.monotonic() < fake.ready_at:
            self._answer(*REFUSALS['error503'])
        elif self.path == '/health' and fake.play == 'loads_forever':
            self._answer(*REFUSALS['error503'])
        elif self.path in known:
            self._answer(200, json.dumps(known[self.path]).encode())
        else:
            self._answer(404, b'{"error": {"message": "File Not Found"}}')

    def do_POST(self):
        fake = self.fake
        body = json.loads(self.rfile.read(int(self.headers['Content-Length'])))
        fake.requests.append((self.path, body))
        if self.path == '/v1/chat/completions':
            play = fake.play
            if play != 'ok' and fake.good_answers > 0:
                fake.good_answers -= 1
                play = 'ok'
            self._complete(play, body)
        else:
            self._answer(200, b'{}')

    def _answer(self, status, body, headers=()):
        with contextlib.suppress(OSError):
            self.send_response(status)
            for name, value in {'Content-Length': str(len(body)), **dict(headers)}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

    def _complete(self, play, body):
        fake = self.fake
        choice = {'message': {'role': 'assistant', 'content': fake.caption},
                  'finish_reason': 'stop'}
        if fake.logprobs:
            choice['logprobs'] = {'content': [{'token': 'A', 'logprob': v} for v in fake.logprobs]}
        answer = {'choices': [choice], 'model': body.get('model', 'fake')}
        if play == 'other_model':
            answer['model'] = 'somebody-else'
        good = json.dumps(answer).encode()
        if play in REFUSALS:
            self._answer(*REFUSALS[play])
        elif play in BODIES:
            self._answer(200, BODIES[play])
        elif play == 'half':
            self._answer(200, good[:-10], {'Content-Length': str(len(good))}.items())
            self.close_connection = True
        elif play == 'half_json':
            self._answer(200, good[:len(good) // 2])
        elif play == 'megabyte':
            self._answer(200, good + b' ' * (1 << 20))
        elif play == 'lies_of_length':
            self._answer(200, good, {'Content-Length': str(1 << 50)}.items())
            self.close_connection = True
        elif play == 'redirect':
            self._answer(302, b'', {'Location': fake.redirect_to}.items())
        elif play == 'no_http':
            self.wfile.write(b'SSH-2.0-OpenSSH_9.6\r\n')
            self.close_connection = True
        elif play == 'hangs_up':
            self.close_connection = True
        elif play == 'dies':
            os._exit(int(fake.death))
        elif play.startswith('SIG'):
            os.kill(os.getpid(), getattr(signal, play))
            time.sleep(60)
        elif play == 'drips':
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):
                while not fake.stopping.wait(0.02):
                    self.wfile.write(b' ')
            fake.given_up.set()
        elif play == 'slow':
            self._wait_for_hang_up(fake.seconds)
            self._answer(200, good)
        else:
            self._answer(200, good)

    def _wait_for_hang_up(self, seconds):
        """Work for so long, but notice a client that closes its connection."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not self.fake.stopping.is_set():
            if select.select([self.connection], [], [], 0.02)[0]:
                self.fake.given_up.set()
                return


class FakeServer:
    """Serves in threads of this process from construction to `close`."""

    def __init__(self, url, play='ok', kind='llama', models=('fake',), caption=CAPTION,
                 logprobs=(-0.5, -1.0), seconds=30.0, good_answers=0, ready_after=0.0):
        self.play = play
        self.kind = kind  # llama, ollama, or vllm
        self.models = models
        self.caption = caption
        self.logprobs = logprobs
        self.seconds = seconds
        self.good_answers = good_answers  # before it plays
        self.ready_at = time.monotonic() + ready_after
        self.redirect_to = ''
        self.death = 3
        self.requests = []  # (path, body)
        self.given_up = threading.Event()  # a client closed its connection before its answer
        self.stopping = threading.Event()
        handler = type('BoundHandler', (Handler,), {'fake': self})
        if url.startswith('unix:'):
            server_class, address = socketserver.UnixStreamServer, url[5:]
        else:
            server_class, address = socketserver.TCPServer, ('127.0.0.1', int(url or 0))
        threaded = type('Server', (socketserver.ThreadingMixIn, server_class), {
            'daemon_threads': True, 'allow_reuse_address': True, 'block_on_close': False})
        self._server = threaded(address, handler)
        self._server.handle_error = lambda request, client: None
        self.url = url if url.startswith('unix:') else (
            f'http://127.0.0.1:{self._server.server_address[1]}')
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.close()

    @property
    def questions(self):
        """Return the bodies of the completions that were asked for."""
        return [body for path, body in self.requests if path == '/v1/chat/completions']

    def close(self):
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--host', required=True)
    parser.add_argument('--port', default='0')
    parser.add_argument('--play', default='ok')
    parser.add_argument('--kind', default='llama')
    parser.add_argument('--good-answers', type=int, default=0)
    parser.add_argument('--seconds', type=float, default=30)
    parser.add_argument('--ready-after', type=float, default=0)
    parser.add_argument('--eat-mb', type=int, default=0)
    parser.add_argument('--at-start', default='', help='a line to print and die with, or a signal')
    parser.add_argument('--ignore-sigterm', action='store_true')
    args, _ = parser.parse_known_args()
    if args.ignore_sigterm:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if args.at_start.startswith('SIG'):
        os.kill(os.getpid(), getattr(signal, args.at_start))
    if args.at_start:
        print('0.00.123.456 I srv  main: loading model\n' + args.at_start, file=sys.stderr)
        sys.exit(1)
    eaten = bytearray(os.urandom(1 << 20) * args.eat_mb)
    FakeServer(
        f'unix:{args.host}' if args.host.startswith('/') else args.port, play=args.play,
        kind=args.kind, seconds=args.seconds, good_answers=args.good_answers,
        ready_after=args.ready_after)
    print(f'listening, with {len(eaten)} bytes', flush=True)
    while True:
        signal.pause()


if __name__ == '__main__':
    main()
