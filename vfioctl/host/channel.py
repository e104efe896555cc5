"""Messages between processes of one host: a JSON object with bytes and file descriptors.

They go over a SOCK_SEQPACKET socket. A message is cut into packets of at most PACKET bytes; the first one begins with
HEADER and brings the descriptors. Neither side ever waits in here: who uses a channel polls it.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

#: Well below the least buffer of a socket that kernels are configured with (net.core.wmem_default).
PACKET = 64 << 10
#: b"VFC1", bytes of the JSON text, bytes of all that follows the header.
HEADER = struct.Struct("=4sII")
MAGIC = b"VFC1"
#: The longest message that is taken: a list of some 100,000 mappings.
LONGEST = 32 << 20
#: As many descriptors as the kernel passes at once (SCM_MAX_FD, include/net/scm.h).
MOST_DESCRIPTORS = 253
_ROOM = socket.CMSG_SPACE(4 * MOST_DESCRIPTORS)


class Message(NamedTuple):
    """What was sent. The receiver owns the descriptors ``fds``."""

    fields: Mapping[str, Any]
    data: bytes = b""
    fds: tuple[int, ...] = ()


class Malformed(Exception):
    """The other side does not keep to the format; nothing more can be read from it."""


class Peer(NamedTuple):
    """Who is at the other end, by the kernel's word (SO_PEERCRED): for one that listened, who called listen(2)."""

    pid: int
    uid: int
    gid: int


class Channel:
    """One end of a connection."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._out: deque[tuple[bytes, tuple[int, ...]]] = deque()
        self._in = bytearray()
        self._expected: tuple[int, int] | None = None
        self._fds: tuple[int, ...] = ()

    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def peer(self) -> Peer:
        found = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("=3i"))
        return Peer(*struct.unpack("=3i", found))

    @property
    def sent(self) -> bool:
        """Whether nothing is left to be sent."""
        return not self._out

    def queue(self, message: Message) -> None:
        """Takes a message to be sent by ``flush``; with copies of its descriptors."""
        text = json.dumps(message.fields).encode()
        whole = HEADER.pack(MAGIC, len(text), len(text) + len(message.data)) + text + message.data
        fds: tuple[int, ...] = ()
        try:
            for fd in message.fds:
                fds += (os.dup(fd),)
        except OSError:
            _close(fds)
            raise
        for start in range(0, len(whole), PACKET):
            self._out.append((whole[start : start + PACKET], fds))
            fds = ()

    def flush(self) -> bool:
        """Sends what can be sent now; whether nothing is left. Raises OSError when the other side has gone."""
        while self._out:
            packet, fds = self._out[0]
            try:
                socket.send_fds(self._socket, [packet], fds)
            except BlockingIOError:
                return False
            self._out.popleft()
            _close(fds)
        return True

    def receive(self) -> Message | None:
        """The next message, None while it has not come entirely. Raises EOFError when the other side has gone, and
        Malformed."""
        while True:
            try:
                # Not socket.recv_fds, which loses the flags (CPython 3.11).
                packet, ancillary, flags, _ = self._socket.recvmsg(
                    HEADER.size + PACKET, _ROOM, socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                return None
            except ConnectionError as error:
                raise EOFError from error
            for level, kind, data in ancillary:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    self._fds += struct.unpack(f"={len(data) // 4}i", data[: len(data) // 4 * 4])
            if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC) or len(self._fds) > MOST_DESCRIPTORS:
                raise Malformed("a packet that is too long")
            if not packet:
                raise EOFError
            message = self._take(packet)
            if message is not None:
                return message

    def _take(self, packet: bytes) -> Message | None:
        if self._expected is None:
            if len(packet) < HEADER.size:
                raise Malformed("a packet that is too short")
            magic, text, whole = HEADER.unpack_from(packet)
            if magic != MAGIC or not text <= whole <= LONGEST:
                raise Malformed("a packet that begins no message")
            self._expected = text, whole
            packet = packet[HEADER.size :]
        self._in += packet
        text, whole = self._expected
        if len(self._in) > whole:
            raise Malformed("a message that is longer than it says")
        if len(self._in) < whole:
            return None
        body, fds = bytes(self._in), self._fds
        self._in, self._expected, self._fds = bytearray(), None, ()
        try:
            fields = json.loads(body[:text])
        except (ValueError, RecursionError) as error:
            _close(fds)
            raise Malformed("no JSON") from error
        if not isinstance(fields, dict):
            _close(fds)
            raise Malformed("no JSON object")
        return Message(fields, body[text:], fds)

    def close(self) -> None:
        """Ends the connection, and closes what was not sent or not taken."""
        for _, fds in self._out:
            _close(fds)
        _close(self._fds)
        self._out.clear()
        self._fds = ()
        self._socket.close()


def pair() -> tuple[Channel, socket.socket]:
    """Two connected ends: this process's, and one for the process that is started."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return Channel(here), there


def connect(path: str, timeout: float = 0) -> Channel:
    """A connection to who listens at ``path``. Raises OSError (ENOENT, ECONNREFUSED: nobody does; EAGAIN: so many wait
    for him that the kernel has not let one more wait for ``timeout`` seconds)."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        # Not settimeout: it waits for what has begun (EINPROGRESS), and here nothing begins.
        sock.setblocking(timeout > 0)
        limit = struct.pack("@ll", int(timeout), int(timeout % 1 * 1_000_000))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        with _directory_of(path) as name:
            sock.connect(name)
    except OSError:
        sock.close()
        raise
    return Channel(sock)


def listen(path: str) -> socket.socket:
    """A socket that listens at ``path``, in the place of one that nobody listens at any more. Raises OSError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        with _directory_of(path) as name:
            sock.bind(name)
        sock.setblocking(False)
        sock.listen(16)
    except OSError:
        sock.close()
        raise
    return sock


@contextlib.contextmanager
def _directory_of(path: str) -> Iterator[str]:
    """A name for ``path`` that fits into an address of 107 bytes, by way of a descriptor of its directory."""
    directory = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{os.path.basename(path)}"
    finally:
        os.close(directory)


def _close(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)
