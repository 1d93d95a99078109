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

"""Where a server listens."""

from dataclasses import dataclass
import ipaddress
import socket
from urllib.parse import urlsplit

from .errors import printable

MAX_SOCKET_PATH = 107  # bytes, of the kernel


@dataclass(frozen=True)
class Address:
    """Where a server listens: the path of a Unix socket, or a host and a port."""

    url: str
    unix: str = ''
    host: str = ''
    port: int = 0
    tls: bool = False
    prefix: str = ''  # of all paths

    @classmethod
    def parse(cls, url: str) -> 'Address':
        """
        Return the address of `http://HOST:PORT`, `https://HOST` or `unix:PATH`.

        A trailing /v1, as OpenAI's clients want it, may be there.

        :raises ValueError: if it is none of these.
        """
        if url.startswith('unix:'):
            path = url[len('unix:'):]
            if not path.startswith('/') or len(path.encode()) > MAX_SOCKET_PATH:
                raise ValueError(
                    f'{printable(url)}: expected unix: and an absolute path of at most '
                    f'{MAX_SOCKET_PATH} bytes')
            return cls(url, unix=path)
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise ValueError(f'{printable(url)}: {error}') from error
        if parts.scheme not in ('http', 'https') or not host or parts.query or parts.fragment \
                or parts.username is not None:
            raise ValueError(
                f'{printable(url)}: expected http://HOST:PORT, https://HOST:PORT or unix:PATH')
        tls = parts.scheme == 'https'
        prefix = parts.path.rstrip('/').removesuffix('/v1')
        return cls(url, '', host, port or (443 if tls else 80), tls, prefix)

    def connect(self, timeout: float) -> socket.socket:
        """Return a connected socket; OSError if there is none."""
        if self.unix:
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.settimeout(timeout)
                connection.connect(self.unix)
            except BaseException:
                connection.close()
                raise
            return connection
        connection = socket.create_connection((self.host, self.port), timeout)
        if not self.tls:
            return connection
        import ssl  # some megabytes
        try:
            return ssl.create_default_context().wrap_socket(
                connection, server_hostname=self.host)
        except BaseException:
            connection.close()
            raise


def is_local(url: str) -> bool:
    """Say whether what is sent to an address stays on this computer."""
    try:
        host = Address.parse(url).host
    except ValueError:
        return True  # nothing can be sent there
    try:
        return not host or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == 'localhost'
