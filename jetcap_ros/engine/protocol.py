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
What the node and the model worker say to each other, over a pair of connected sockets.

One packet is one message (SOCK_SEQPACKET): a line of JSON, then the pixels if it has any. Nothing
can be half read, and nothing is unpickled.

    to the worker    load {name, checkpoint, ...}; caption {max_length, ...} + pixels, or a JPEG
    from the worker  begin {stage}; stage {name, seconds, rss_mb, available_mb}; warning {text};
                     ready {...}; error {kind, stage, text}; caption {text, score, ...};
                     failed {text}, of a server: the worker is to be ended
"""

import json
import socket
from typing import Any

# Bytes. The largest frame, 352x352x3, and its header take 372,000; a kernel whose wmem_max is as it
# came sends no more than 425,000.
MAX_PACKET = 400_000

Pixels = bytes | memoryview


class ProtocolError(RuntimeError):
    """A packet that is no message."""


def connected_sockets() -> tuple[socket.socket, socket.socket]:
    """Return two sockets that are connected to each other and to nothing else."""
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in pair:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * MAX_PACKET)
    return pair


def send(end: socket.socket, kind: str, pixels: Pixels = b'', **values: Any) -> None:
    """
    Send a message.

    :raises OSError: if nobody listens; TimeoutError after the socket's timeout.
    :raises ProtocolError: if it is longer than a packet may be.
    """
    packet = b''.join((json.dumps({'kind': kind, **values}).encode(), b'\n', pixels))
    if len(packet) > MAX_PACKET:
        raise ProtocolError(f'a message of {len(packet)} bytes, at most {MAX_PACKET}')
    end.sendall(packet)


def receive(end: socket.socket) -> tuple[dict[str, Any], memoryview]:
    """
    Return the next message, and the pixels behind it.

    :raises EOFError: if the other end has gone.
    :raises ProtocolError: if the packet is no message.
    """
    try:
        packet, _, flags, _ = end.recvmsg(MAX_PACKET)
    except ConnectionError:
        packet, flags = b'', 0
    if not packet:
        raise EOFError('the other process has gone')
    if flags & socket.MSG_TRUNC:
        raise ProtocolError(f'a packet of more than {MAX_PACKET} bytes')
    header, _, _ = packet.partition(b'\n')
    try:
        message = json.loads(header)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f'not a message: {bytes(header[:60])!r}') from error
    if not isinstance(message, dict) or not isinstance(message.get('kind'), str):
        raise ProtocolError(f'not a message: {bytes(header[:60])!r}')
    return message, memoryview(packet)[len(header) + 1:]
