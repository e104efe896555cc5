"""Work that the kernel may keep waiting without limit, done by a child process, with a deadline.

Some files of sysfs take the lock of a device, which a driver's probe or remove may hold for ever; writes such as unbind
wait for a device's last user; and a process that waits so cannot always be killed. So the parent waits, not the one
who asks.
"""

from __future__ import annotations

import contextlib
import errno
import marshal
import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

from vfioctl.host.files import read

T = TypeVar("T")


class Place(NamedTuple):
    """Where a process is in the kernel: its state (a letter, as ps shows it), the function that it waits in, and its
    kernel stack, innermost function first; what may not be read is None or empty."""

    pid: int
    state: str | None = None
    wchan: str | None = None
    stack: tuple[str, ...] = ()

    def __str__(self) -> str:
        words = [f"process {self.pid}"]
        if self.state:
            words.append(f"in state {self.state}")
        if self.wchan:
            words.append(f"waits in {self.wchan}")
        if self.stack:
            words.append(f"({' < '.join(self.stack[:6])})")
        return " ".join(words)


class Expired(Exception):
    """The deadline passed; ``place`` is where the child was then."""

    def __init__(self, place: Place) -> None:
        super().__init__(str(place))
        self.place = place


def call(work: Callable[[], T], timeout: float, *, leave: bool = False) -> T:
    """What ``work`` returns, called in a child process: None, numbers, strings, bytes, and tuples, lists, dicts and
    sets of these. Its OSError is raised here with errno and file name.

    Raises Expired after ``timeout`` seconds; the child is killed then, or with ``leave`` left alone: killing a process
    that waits for the user of a device makes it worse.
    """
    pid, receiver = start(lambda sender: _answer(work, sender))
    answered = False
    try:
        data = _receive(pid, receiver, timeout)
        answered = True
    finally:
        os.close(receiver)
        if not answered and not leave:
            end(pid)
    os.waitpid(pid, 0)
    if not data:
        raise OSError(errno.EIO, "the process that did it died")
    number, filename, value = marshal.loads(data)
    if number:
        raise OSError(number, os.strerror(number), filename)
    result: T = value
    return result


def start(work: Callable[[int], None]) -> tuple[int, int]:
    """A child process that does ``work`` (given the descriptor to write to) and ends; its pid, and the descriptor to
    read from. It has left the terminal's process group and the caller's standard streams."""
    receiver, sender = os.pipe()
    with postponed():  # a handler that raises in the child would send it back up through its parent's code
        child = os.fork()
        if child == 0:
            try:
                os.setpgid(
                    0, 0
                )  # a Ctrl-C on the terminal is for the parent, which decides what happens next
                # One that is left behind must not keep the caller's pipes open: $(vfioctl ...) would wait for it.
                nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
                for stream in (0, 1, 2):
                    os.dup2(nowhere, stream)
                os.close(receiver)
                work(sender)
            finally:
                os._exit(0)
    os.close(sender)
    return child, receiver


@contextlib.contextmanager
def postponed() -> Iterator[frozenset[int]]:
    """SIGTERM, SIGHUP and SIGINT wait meanwhile, also in the processes that are started; what was blocked before."""
    mask = frozenset(signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGHUP, signal.SIGINT}))
    try:
        yield mask
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def end(pid: int) -> None:
    """Kills a child that only reads, and collects it, unless the kernel does not let it go."""
    os.kill(pid, signal.SIGKILL)
    until = time.monotonic() + 0.2
    while os.waitpid(pid, os.WNOHANG) == (0, 0) and time.monotonic() < until:
        time.sleep(0.002)


def readable(fd: int, seconds: float) -> bool:
    """Whether there is something to read, or the end of it, within so many seconds. (select(2) would know descriptors
    below 1024 only.)"""
    return _comes(fd, select.POLLIN, seconds)


def closed(fd: int, seconds: float) -> bool:
    """Whether the other end of a pipe is closed within so many seconds."""
    return _comes(fd, 0, seconds)


def _comes(fd: int, events: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(fd, events)
    return bool(poll.poll(max(0.0, seconds) * 1000))


def place_of(pid: int) -> Place:
    """Where a process is in the kernel now."""

    def look(name: str) -> str:
        with contextlib.suppress(OSError):
            return read(f"/proc/{pid}/{name}") or ""
        return ""

    state = look("stat").rpartition(") ")[2][:1]
    wchan = look("wchan")
    frames = [line.split()[-1].partition("+")[0] for line in look("stack").split("\n") if line.strip()]
    return Place(pid, state or None, None if wchan in ("", "0") else wchan, tuple(frames))


def _answer(work: Callable[[], Any], sender: int) -> None:
    try:
        answer: tuple[int, str | None, Any] = (0, None, work())
    except OSError as error:
        name = error.filename
        answer = (error.errno or errno.EIO, None if name is None else str(name), None)
    rest = marshal.dumps(answer)
    while rest:
        rest = rest[os.write(sender, rest) :]


def _receive(pid: int, receiver: int, timeout: float) -> bytes:
    deadline = time.monotonic() + timeout
    data = b""
    while True:
        if not readable(receiver, deadline - time.monotonic()):
            raise Expired(place_of(pid))
        more = os.read(receiver, 1 << 16)
        if not more:
            return data
        data += more
