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

"""What is asked of an OpenAI-compatible server, and what its answers mean."""

import base64
from dataclasses import dataclass
import json
import math
import struct
from typing import Any
import zlib

from .address import Address
from .errors import printable, server_message, ServerError
from .http_client import Answer, request

QUICK_S = 5.0  # for what needs no model


@dataclass(frozen=True)
class Completion:
    """What a model said of a picture."""

    text: str
    cut: bool  # ended by the bound of tokens
    probability: float | None  # of a token, the geometric mean


class ChatClient:
    """
    Asks the server at an address.

    :param model: the name it knows the model by, '' where it has only one.
    """

    def __init__(self, address: Address, model: str = '') -> None:
        self.address = address
        self.model = model
        self._is_llama = False

    def is_loading(self) -> str:
        """Return what the server says while it loads, '' once it is ready."""
        answer = request(self.address, 'GET', '/health', timeout=QUICK_S)
        # Others than llama.cpp and vLLM do not know the path.
        return '' if answer.status != 503 else _refusal(answer)

    def look(self, timeout: float) -> None:
        """
        Make sure that the server can see: it says so, or takes a first picture.

        :raises ServerError: if it cannot, or has no such model.
        """
        props = self._json('/props')
        modalities = props.get('modalities') if isinstance(props, dict) else None
        if isinstance(modalities, dict):
            self._is_llama = True
            if not modalities.get('vision'):
                raise ServerError(
                    'the server says that its model cannot see: it needs its projector (--mmproj)')
            return
        self._choose_model()
        self.ask(grey_picture(64), 'png', 'What is this?', 1, timeout)

    def ask(
            self, picture: bytes, kind: str, prompt: str, max_tokens: int,
            timeout: float) -> Completion:
        """
        Return what the model says of a picture.

        :param kind: 'jpeg' or 'png'.
        :param timeout: seconds; then the connection is closed, which ends the work.
        :raises ServerError: for every other answer; in the server's words.
        """
        uri = f'data:image/{kind};base64,{base64.b64encode(picture).decode()}'
        question: dict[str, Any] = {
            'messages': [{'role': 'user', 'content': [
                {'type': 'image_url', 'image_url': {'url': uri}},
                {'type': 'text', 'text': prompt}]}],
            'max_tokens': max_tokens, 'temperature': 0, 'logprobs': True, 'stream': False}
        if self.model:
            question['model'] = self.model
        if self._is_llama:  # the same picture is to get the same caption, whatever came before
            question['cache_prompt'] = False
        answer = request(
            self.address, 'POST', '/v1/chat/completions', json.dumps(question).encode(),
            timeout=timeout)
        if answer.status != 200:
            raise ServerError(_refusal(answer))
        return self._completion(answer)

    def unload(self) -> None:
        """Have Ollama give the model's memory back; other servers keep theirs."""
        if self._is_llama or not self.model:
            return
        try:
            if request(self.address, 'GET', '/api/version', timeout=1.0).status == 200:
                body = json.dumps({'model': self.model, 'keep_alive': 0}).encode()
                request(self.address, 'POST', '/api/generate', body, timeout=1.0)
        except ServerError:
            pass  # it has gone already

    def _choose_model(self) -> None:
        """Find out the model's name, and whether the server has it."""
        found = self._json('/v1/models')
        models = found.get('data') if isinstance(found, dict) else None
        names = [
            str(model['id']) for model in (models if isinstance(models, list) else [])
            if isinstance(model, dict) and 'id' in model]
        if not self.model and len(names) == 1:
            self.model = names[0]
        if names and not any(_same_model(self.model, name) for name in names):
            problem = f'has no model {self.model!r}' if self.model else 'has several models'
            raise ServerError(
                f'the server {problem}: set server_model to one of '
                f'{printable(", ".join(names))}')

    def _json(self, path: str) -> Any:
        """Return what the server says at a path, None if it knows nothing of it."""
        answer = request(self.address, 'GET', path, timeout=QUICK_S)
        try:
            return json.loads(answer.body) if answer.status == 200 else None
        except (ValueError, RecursionError):
            return None

    def _completion(self, answer: Answer) -> Completion:
        try:
            found = json.loads(answer.body)
            choice = found['choices'][0]
            text = choice['message']['content']
            name, cut = found.get('model'), choice.get('finish_reason') == 'length'
        except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
            raise ServerError(
                f'the server answers no completion: {server_message(answer.body[:400])}') from None
        if not isinstance(text, str):
            raise ServerError('the server answers without a text')
        if self.model and isinstance(name, str) and not _same_model(self.model, name):
            raise ServerError(
                f'the server answers with model {printable(name)!r}, not {self.model!r}')
        return Completion(text, cut, _mean_probability(choice.get('logprobs')))


def grey_picture(side: int) -> bytes:
    """Return a square PNG picture of one grey."""
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack('>I', len(data)) + kind + data + struct.pack(
            '>I', zlib.crc32(kind + data))

    rows = (b'\0' + bytes([128]) * 3 * side) * side
    return b'\x89PNG\r\n\x1a\n' + chunk(
        b'IHDR', struct.pack('>IIBBBBB', side, side, 8, 2, 0, 0, 0)) + chunk(
        b'IDAT', zlib.compress(rows)) + chunk(b'IEND', b'')


def _refusal(answer: Answer) -> str:
    return f'the server answers {answer.status}: {server_message(answer.body)}'


def _same_model(wanted: str, found: str) -> bool:
    """Compare names as servers have them: `moondream` is moondream:latest."""
    return bool(wanted) and (found.startswith(wanted) or wanted.startswith(found))


def _mean_probability(logprobs: Any) -> float | None:
    """Return exp of the mean log-probability of the tokens, None where there is none."""
    try:
        values = [float(token['logprob']) for token in logprobs['content']]
    except (KeyError, TypeError, ValueError):
        return None
    if not values or not all(math.isfinite(value) for value in values):
        return None
    return min(1.0, math.exp(sum(values) / len(values)))
