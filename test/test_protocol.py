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

"""Test what the node and the worker say to each other, and what they refuse to hear."""

import json
import os
import socket
import subprocess
import sys

from hypothesis import given, settings, strategies as st
from jetcap_ros.engine import protocol
from jetcap_ros.engine.settings import SHIPPED_CHECKPOINT
from jetcap_ros.engine.worker_process import worker_command
from jetcap_ros.images.limits import MAX_SIZE
import numpy as np
import pytest

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8)
NAMES = st.text(min_size=1).filter(lambda name: name not in ('end', 'kind', 'pixels'))


@pytest.fixture()
def ends():
    """Return two connected ends that never wait for long."""
    pair = protocol.connected_sockets()
    for end in pair:
        end.settimeout(2)
    yield pair
    for end in pair:
        end.close()


@settings(max_examples=200, deadline=None, derandomize=True)
@given(kind=st.text(), values=st.dictionaries(NAMES, VALUES, max_size=4),
       pixels=st.binary(max_size=300))
def test_what_is_sent_is_received(kind, values, pixels):
    one, other = protocol.connected_sockets()
    with one, other:
        protocol.send(one, kind, pixels, **values)
        protocol.send(one, 'next')
        message, received = protocol.receive(other)
        assert message == {'kind': kind, **values}
        assert bytes(received) == pixels
        assert protocol.receive(other)[0] == {'kind': 'next'}


@settings(max_examples=300, deadline=None, derandomize=True)
@given(packet=st.binary(min_size=1, max_size=200) | st.builds(
    lambda value, rest: json.dumps(value).encode() + rest, VALUES, st.binary(max_size=20)))
def test_any_packet_is_a_message_or_refused(packet):
    one, other = protocol.connected_sockets()
    with one, other:
        other.settimeout(2)
        one.sendall(packet)
        try:
            message, pixels = protocol.receive(other)
        except protocol.ProtocolError as error:
            assert len(str(error)) < 300
        else:
            assert isinstance(message['kind'], str)
            assert packet.endswith(bytes(pixels))


@pytest.mark.parametrize('packet', [
    b'\n', b'null', b'[]', b'{}', b'{"kind": 3}', b'{"kind": "load"', b'{"kind": "\xff"}',
    b'[' * 200_000, b'{"kind":' * 20_000, b'{"kind": "a", "n": ' + b'9' * 10_000 + b'}',
    b'\x80\x04\x95pickle'])
def test_packets_that_are_no_messages(ends, packet):
    ends[0].sendall(packet)
    with pytest.raises(protocol.ProtocolError):
        protocol.receive(ends[1])


def test_a_frame_arrives_whole(ends):
    # Where nobody has raised net.core.wmem_max.
    ends[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 212_992)
    frame = np.random.default_rng(0).integers(0, 256, (MAX_SIZE, MAX_SIZE, 3), np.uint8)
    protocol.send(ends[0], 'caption', memoryview(frame).cast('B'), beam_size=3)
    message, pixels = protocol.receive(ends[1])
    assert message == {'kind': 'caption', 'beam_size': 3}
    assert np.array_equal(np.frombuffer(pixels, np.uint8).reshape(frame.shape), frame)


def test_what_is_too_long_is_neither_sent_nor_cut(ends):
    with pytest.raises(protocol.ProtocolError, match=str(protocol.MAX_PACKET)):
        protocol.send(ends[0], 'caption', bytes(protocol.MAX_PACKET))
    ends[0].sendall(b'{"kind": "caption"}\n' + bytes(protocol.MAX_PACKET))
    with pytest.raises(protocol.ProtocolError, match='more than'):
        protocol.receive(ends[1])


def test_the_end_of_the_other_process_is_noticed(ends):
    protocol.send(ends[0], 'last')
    ends[0].close()
    assert protocol.receive(ends[1])[0] == {'kind': 'last'}
    with pytest.raises(EOFError):
        protocol.receive(ends[1])
    with pytest.raises(OSError):
        protocol.send(ends[1], 'caption')


def test_nobody_listening_and_nobody_speaking_end_in_a_timeout(ends):
    for end in ends:
        end.settimeout(0.05)
    with pytest.raises(TimeoutError):
        protocol.receive(ends[1])
    with pytest.raises(TimeoutError):
        for _ in range(1000):
            protocol.send(ends[0], 'caption', bytes(150_000))


def test_the_sockets_have_no_name_that_others_could_reach(ends):
    for end in ends:
        assert not end.getsockname() and not end.getpeername()
        assert not os.get_inheritable(end.fileno())
        credentials = end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 4)
        assert int.from_bytes(credentials, sys.byteorder) == os.getpid()


def test_the_worker_hears_its_own_node_alone(connections):
    node, theirs = protocol.connected_sockets()
    command = worker_command(theirs.fileno())
    with subprocess.Popen(command, pass_fds=[theirs.fileno()]) as worker, node:
        theirs.close()
        node.settimeout(60)
        protocol.send(node, 'load', settings={
            'name': 'simple', 'checkpoint': SHIPPED_CHECKPOINT, 'reserve_memory_mb': 0})
        kinds = []
        while kinds[-1:] != ['ready']:
            message, _ = protocol.receive(node)
            assert message['kind'] in ('begin', 'stage', 'warning', 'ready'), message
            kinds.append(message['kind'])
        # One connected socket, none that listens: there is nothing to send a frame to.
        (connection,) = connections(worker.pid, 'all')
        assert connection.type == socket.SOCK_SEQPACKET and not connection.laddr

        def ask(pixels, **values):
            protocol.send(node, 'caption', pixels, **values)
            return protocol.receive(node)[0]

        frame = bytes(message['image_size'] ** 2 * 3)
        good = {'beam_size': 2, 'max_length': 5}
        # Requests without sense are answered, and do not end the worker.
        for pixels, values in (
                (b'', good), (frame[:-1], good), (frame, {}), (frame, {**good, 'beam_size': 0}),
                (frame, {**good, 'max_length': 10**9}), (frame, {**good, 'beam_size': 'x'})):
            assert ask(pixels, **values)['kind'] == 'error'
        assert ask(frame, **good)['kind'] == 'caption'
        node.close()
        assert worker.wait(10) == 0
