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
One HTTP request at a time, over TCP or a Unix socket, within hard limits of time and size.

A connection serves one request and is closed, whatever comes: a server notices a closed
connection and ends the work. Redirects are not followed, proxies not asked, nothing is fetched
but the address given.
"""

from dataclasses import dataclass
import http.client
import io
import socket
import time
from types import TracebackType

from .address import Address
from .errors import printable, ServerError

MAX_ANSWER = 1 << 19  # bytes; a caption of 100 tokens with its log-probabilities takes 20,000
PART = 1 << 16


class NotListening(ServerError):
    """Nobody listens at the address."""


@dataclass(frozen=True)
class Answer:
    """What a server answered."""

    status: int
    body: bytes


def request(
        address: Address, method: str, path: str, body: bytes = b'', *, timeout: float,
        max_bytes: int = MAX_ANSWER) -> Answer:
    """
    Send one request and return the whole answer, whatever its status.

    :param timeout: seconds for everything together.
    :raises NotListening: if there is nobody at the address.
    :raises ServerError: if the answer is late, too large, broken off or no HTTP.
    """
    deadline = time.monotonic() + timeout
    try:
        connection = address.connect(timeout)
    except TimeoutError:
        raise ServerError(f'{address.url}: no connection within {timeout:g} s') from None
    except OSError as error:
        raise NotListening(
            f'{address.url}: nobody answers there ({error.strerror or error})') from error
    # Closed and shut down, so that a server that is at work on it notices.
    with _Closing(connection):
        try:
            connection.settimeout(max(0.001, deadline - time.monotonic()))
            connection.sendall(_head(address, method, path, body) + body)
        except TimeoutError:
            raise ServerError(f'{address.url}: took no request within {timeout:g} s') from None
        except OSError:
            pass  # it may have answered already: too large a request, say
        try:
            return _read_answer(connection, method, deadline, max_bytes)
        except TimeoutError:
            raise ServerError(f'{address.url}: no answer within {timeout:g} s') from None
        except http.client.IncompleteRead:
            raise ServerError(f'{address.url}: broke off within its answer') from None
        except http.client.RemoteDisconnected:
            raise ServerError(f'{address.url}: closed the connection without an answer') from None
        except OSError as error:
            raise ServerError(
                f'{address.url}: the connection broke ({error.strerror or error})') from error
        except (http.client.HTTPException, ValueError) as error:
            raise ServerError(
                f'{address.url}: does not speak HTTP ({printable(str(error), 100)})') from error


class _Closing:
    """Shut a connection down and close it at the end."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        pass

    def __exit__(
            self, kind: type[BaseException] | None, error: BaseException | None,
            traceback: TracebackType | None) -> None:
        try:
            self._connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the server was first
        self._connection.close()


def _head(address: Address, method: str, path: str, body: bytes) -> bytes:
    host = 'localhost' if address.unix else address.host
    if ':' in host:
        host = f'[{host}]'
    lines = [
        f'{method} {address.prefix}{path} HTTP/1.1', f'Host: {host}:{address.port}',
        'Connection: close', 'Accept: application/json', 'User-Agent: jetcap_ros']
    if body:
        lines += ['Content-Type: application/json', f'Content-Length: {len(body)}']
    return '\r\n'.join([*lines, '', '']).encode('latin-1')


def _read_answer(
        connection: socket.socket, method: str, deadline: float, max_bytes: int) -> Answer:
    # http.client wants a socket only to read from it; it gets one that keeps the limits.
    response = http.client.HTTPResponse(
        _Limited(connection, deadline, max_bytes), method=method)  # type: ignore[arg-type]
    with response:
        response.begin()
        # In parts: what a server claims of its length is not to be allocated.
        parts = list(iter(lambda: response.read(PART), b''))
        if response.length:
            raise http.client.IncompleteRead(b'')
        return Answer(response.status, b''.join(parts))


class _Limited(io.RawIOBase):
    """Reads a socket until a deadline, and no more than so many bytes."""

    def __init__(self, connection: socket.socket, deadline: float, max_bytes: int) -> None:
        self._connection = connection
        self._deadline = deadline
        self._left = self._most = max_bytes

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def]
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)
        count = self._connection.recv_into(buffer)
        self._left -= count
        if self._left < 0:
            raise ServerError(f'the server answers more than {self._most} bytes')
        return count
