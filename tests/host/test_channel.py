"""Messages between processes: what arrives is what was sent, and no bytes from outside do harm."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes.descriptors import alone
from vfioctl.host import channel
from vfioctl.host.channel import HEADER, LONGEST, MAGIC, Channel, Malformed, Message


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    here, there = channel.pair()
    yield here, (other := Channel(there))
    here.close()
    other.close()


def carry(here: Channel, there: Channel, message: Message) -> Message:
    here.queue(message)
    while True:
        here.flush()
        found = there.receive()
        if found is not None:
            assert here.sent
            return found


def open_files() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=60)
@given(fields=st.dictionaries(st.text(), JSON, max_size=5), data=st.binary(max_size=300))
def test_what_arrives_is_what_was_sent(fields: dict[str, object], data: bytes) -> None:
    here, there = channel.pair()
    other = Channel(there)
    found = carry(here, other, Message(fields, data))
    assert (found.fields, found.data, found.fds) == (fields, data, ())
    here.close()
    other.close()


def test_a_message_of_many_packets_with_descriptors(ends: tuple[Channel, Channel], tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"inside")
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    data = os.urandom(5 << 20)
    found = carry(*ends, Message({"a": list(range(100000))}, data, (fd, fd)))
    os.close(fd)
    assert found.data == data and len(found.fields["a"]) == 100000
    assert [os.pread(each, 6, 0) for each in found.fds] == [b"inside"] * 2
    assert not any(os.get_inheritable(each) for each in found.fds)
    for each in found.fds:
        os.close(each)


def test_messages_stay_apart(ends: tuple[Channel, Channel]) -> None:
    here, there = ends
    for number in range(3):
        here.queue(Message({"n": number}, b"x" * number))
    assert here.flush()
    assert [there.receive() for _ in range(4)] == [
        *(Message({"n": n}, b"x" * n) for n in range(3)),
        None,
    ]


def test_the_end(ends: tuple[Channel, Channel]) -> None:
    here, there = ends
    here.queue(Message({}))
    assert here.flush()
    here.close()
    assert there.receive() == Message({})
    with pytest.raises(EOFError):
        there.receive()


def whole(text: bytes, rest: bytes = b"") -> bytes:
    return HEADER.pack(MAGIC, len(text), len(text) + len(rest)) + text + rest


@pytest.mark.parametrize(
    "packets",
    [
        [b"x"],
        [b"VFC2" + bytes(8)],
        [HEADER.pack(MAGIC, 5, 4)],
        [HEADER.pack(MAGIC, 2, LONGEST + 1)],
        [HEADER.pack(MAGIC, 2, 2) + b"{}{}"],
        [whole(b"[1]")],
        [whole(b"{")],
        [whole(b"\xff")],
        [whole(b"[" * 100000)],
        [whole(b'{"a":' * 20000)],
        [HEADER.pack(MAGIC, 2, 8), b"{}", b"1234567"],
        [bytes(channel.PACKET + HEADER.size + 1)],
    ],
)
def test_what_is_no_message_is_refused(packets: list[bytes]) -> None:
    one, two = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    reader = Channel(two)
    with pytest.raises(Malformed):
        for packet in packets:
            one.send(packet)
            reader.receive()
    one.close()
    reader.close()


@alone
def test_descriptors_of_what_is_refused_are_closed() -> None:
    one, two = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    reader = Channel(two)
    before = open_files()
    for packet in (whole(b"{"), whole(b"[]")):
        socket.send_fds(one, [packet], [0, 1])
        with pytest.raises(Malformed):
            reader.receive()
    socket.send_fds(one, [HEADER.pack(MAGIC, 2, 200)], [0, 1])  # begun, and never ended
    assert reader.receive() is None
    one.close()
    with pytest.raises(EOFError):
        reader.receive()
    reader.close()
    assert not open_files() - before


@settings(max_examples=200)
@given(
    packets=st.lists(
        st.binary(min_size=1, max_size=200) | st.builds(whole, st.binary(max_size=60)), max_size=6
    )
)
def test_no_bytes_do_harm(packets: list[bytes]) -> None:
    one, two = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    reader = Channel(two)
    for packet in packets:
        one.send(packet)
    one.close()
    with contextlib.suppress(Malformed, EOFError):
        while True:
            found = reader.receive()
            assert found is not None
            json.dumps(found.fields)
    reader.close()


def test_a_long_path_can_be_listened_at(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 200)
    deep.mkdir()
    path = str(deep / "socket")
    listener = channel.listen(path)
    here = channel.connect(path)
    assert here.peer.pid == os.getpid()
    here.close()
    listener.close()
    with pytest.raises(ConnectionRefusedError):
        channel.connect(path)
    channel.listen(path).close()  # takes the place of what nobody listens at
    with pytest.raises(FileNotFoundError):
        channel.connect(str(tmp_path / "none"))
