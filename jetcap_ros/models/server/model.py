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
A vision-language model behind an OpenAI-compatible server, as a captioning model.

The server is another's (`url`), or our own, started by a command. Pictures go to it as data URIs
and to nobody else; what comes back is text.
"""

from collections.abc import Iterator
import contextlib
from dataclasses import dataclass
from pathlib import Path
import shutil
import time
from typing import Any

from .address import Address
from .chat import ChatClient, Completion, grey_picture
from .command import (
    find_program, gguf_files, little_memory_flags, llama_command, need_mb, split_command,
    with_little_memory)
from .errors import printable, ServerError, ServerOptionError
from .gguf import GgufFile
from .plain_text import plain_line
from .process import make_socket_folder, ServerProcess, SOCKET_NAME
from ..checkpoint import sha256
from ..errors import CheckpointError

TOKENS_PER_WORD = 2
LOOK_EVERY_S = 0.2


@dataclass(frozen=True)
class ServerOptions:
    """Which server, and how it is asked."""

    url: str = ''
    command: str = ''
    binary: str = ''
    model: str = ''
    projector: str = ''
    image_size: int = 384
    start_timeout_s: float = 110.0


@dataclass(frozen=True)
class ServerCaption:
    """A caption, and the mean probability of its tokens where the server tells it."""

    text: str
    score: float | None


class ServerCaptioningModel:
    """
    Captions pictures with the model of a server.

    `read_files`, `start`, `look` and `warm_up`, in this order, make it ready.

    :param checkpoint: the GGUF file of the model, for a server of our own without a command.
    """

    name = 'server'

    def __init__(
            self, options: ServerOptions, checkpoint: str = '', checkpoint_sha256: str = '',
            num_threads: int = 0) -> None:
        self._options = options
        self._checkpoint = checkpoint
        self._sha256 = checkpoint_sha256
        self._num_threads = num_threads
        self._command: list[str] = []
        self._files: list[GgufFile] = []
        self._process: ServerProcess | None = None
        self._folder: Path | None = None
        self._address: Address | None = None
        self._client: ChatClient | None = None

    @property
    def is_own(self) -> bool:
        """Say whether the server is a process of our own."""
        return bool(self._options.command) or not self._options.url

    @property
    def need_mb(self) -> float:
        """Return the memory that its server will need, 0 of another's; in MB."""
        return need_mb(self._files, self._command) if self.is_own else 0.0

    @property
    def rss_mb(self) -> float:
        """Return the resident memory of its server, 0 of another's; in MB."""
        return self._process.rss_mb if self._process else 0.0

    def facts(self) -> dict[str, Any]:
        """Return what diagnostics should say of it."""
        facts: dict[str, Any] = {}
        if self._client:
            facts['server'] = self._client.address.url
            facts['server model'] = self._client.model or 'its only one'
        if self._process:
            facts['server pid'] = self._process.pid
        facts.update((f'{file.architecture} file', file.path) for file in self._files)
        return facts

    def read_files(self) -> None:
        """
        Look at the program and the files of a server of our own, without their weights.

        :raises CheckpointError: for a file that is missing, another or damaged.
        :raises ServerError: for a program that is not there, an address that is none.
        """
        options = self._options
        if options.url:
            try:
                self._address = Address.parse(options.url)
            except ValueError as error:
                raise ServerOptionError(f'server_url {error}') from error
        if not self.is_own:
            return
        if options.command:
            self._command = split_command(options.command)
        elif options.projector:
            self._check_sum()
            self._command = llama_command(options.binary, self._checkpoint, options.projector)
        else:
            raise ServerOptionError(
                'the model server needs server_url, server_command, or checkpoint and projector')
        self._files = gguf_files(self._command)
        self._command[0] = find_program(self._command[0])

    def start(self) -> None:
        """
        Start the server if it is our own, and wait until it is ready.

        :raises ServerError: if it does not get there; in its words.
        """
        deadline = time.monotonic() + self._options.start_timeout_s
        address = self._start_process() if self.is_own else self._address
        assert address is not None
        self._client = ChatClient(address, self._options.model)
        if self._process:
            self._process.wait_until_ready(self._options.start_timeout_s)
        while why := self._client.is_loading():
            if time.monotonic() > deadline:
                raise ServerError(why)
            time.sleep(LOOK_EVERY_S)

    def look(self) -> None:
        """Make sure that it can see; ServerError if it cannot."""
        with self._asking() as client:
            client.look(self._options.start_timeout_s)

    def warm_up(self) -> None:
        """Caption a grey picture; ServerError if that fails."""
        with self._asking() as client:
            client.ask(
                grey_picture(self._options.image_size), 'png', 'What is this?', TOKENS_PER_WORD,
                self._options.start_timeout_s)

    def caption(
            self, picture: bytes, prompt: str, max_length: int, timeout: float) -> ServerCaption:
        """
        Caption a JPEG picture.

        :param max_length: in words; as many whole sentences as fit.
        :param timeout: seconds; then the request is ended.
        :raises ServerError: in the server's words.
        """
        with self._asking() as client:
            said: Completion = client.ask(
                picture, 'jpeg', prompt, TOKENS_PER_WORD * max_length, timeout)
        text = plain_line(said.text, max_length, said.cut)
        if not text:
            raise ServerError(f'the server says nothing: {printable(said.text, 60)!r}')
        return ServerCaption(text, said.probability)

    def close(self) -> None:
        """End the server if it is our own; have another's give the model's memory back."""
        if self._process:
            self._process.close()
        elif self._client:
            self._client.unload()
        self._client = None
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _check_sum(self) -> None:
        if self._sha256 and sha256(self._checkpoint) != self._sha256.lower():
            raise CheckpointError(f'{self._checkpoint}: its SHA-256 is not checkpoint_sha256')

    def _start_process(self) -> Address:
        address = self._address
        if address is None:
            self._folder = make_socket_folder()
            path = self._folder / SOCKET_NAME
            address = Address.parse(f'unix:{path}')
            self._command = with_little_memory(
                self._command, path,
                little_memory_flags(self._options.image_size, self._num_threads))
        else:
            try:
                address.connect(1.0).close()
            except OSError:
                pass
            else:
                raise ServerError(
                    f'{address.url} is in use: a server listens there already; end it, or leave '
                    'out server_command to use it')
        self._process = ServerProcess(self._command, address)
        return address

    @contextlib.contextmanager
    def _asking(self) -> Iterator[ChatClient]:
        """Give the client; where a request fails because the server died, say of what."""
        assert self._client is not None
        try:
            yield self._client
        except ServerError as error:
            if self._process:
                raise self._process.failed(error) from error
            raise
