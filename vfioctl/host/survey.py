"""One question about many things, of which some may not answer: reading a file of sysfs may wait for the lock of a
device, and one of /proc for a lock of the process."""

from __future__ import annotations

import contextlib
import marshal
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from vfioctl.host import bounded

Item = TypeVar("Item")
_GLANCE = 0.02  # seconds
_LEAST = 1.0  # seconds: a host that is busy may need as long to start the child that asks


def patience_in(timeout: float) -> float:
    """How long (seconds) one of many may keep the others waiting, when all are to have answered in ``timeout``."""
    return max(_LEAST, timeout / 10)


def survey(
    ask: Callable[[Item], Any], items: Sequence[Item], patience: float, timeout: float = math.inf
) -> tuple[list[tuple[Item, Any]], list[Item]]:
    """What ``ask`` returns for each item (None, numbers, strings, lists and the like), and the items without an answer.

    It is asked by a child process. When that is silent for ``patience`` seconds, it is killed, and another one goes on
    after the item at which it stopped; after ``timeout`` seconds all the rest is without an answer.
    """
    deadline = time.monotonic() + timeout
    answers: list[tuple[Item, Any]] = []
    silent: list[Item] = []
    rest = items
    while rest and time.monotonic() < deadline:
        found = _ask(ask, rest, patience, deadline)
        answers += zip(rest, found, strict=False)
        silent += rest[len(found) : len(found) + 1]
        rest = rest[len(found) + 1 :]
    return answers, [*silent, *rest]


def _ask(ask: Callable[[Item], Any], items: Sequence[Item], patience: float, deadline: float) -> list[Any]:
    """The answers for the first items, up to the one that keeps the child waiting."""

    def work(sender: int) -> None:
        with open(sender, "wb", closefd=False, buffering=0) as stream:
            for item in items:
                data = marshal.dumps(ask(item))
                stream.write(len(data).to_bytes(4, "little") + data)

    pid, receiver = bounded.start(work)
    data = bytearray()
    try:
        _receive(receiver, data, patience, deadline)
    finally:
        os.close(receiver)
        bounded.end(pid)
    return list(_answers(data))


def _receive(receiver: int, data: bytearray, patience: float, deadline: float) -> None:
    """All that the child has to say, until its end, or until it is silent for too long. It is looked at now and then,
    not answer by answer: with a thousand of them that would be most of the work."""
    os.set_blocking(receiver, False)
    last = time.monotonic()
    ended = False
    while not ended and (now := time.monotonic()) < min(last + patience, deadline):
        ended = bounded.closed(receiver, min(_GLANCE, last + patience - now, deadline - now))
        with contextlib.suppress(BlockingIOError):
            while more := os.read(receiver, 1 << 16):
                data += more
                last = time.monotonic()


def _answers(data: bytes | bytearray) -> Iterator[Any]:
    """Those that are whole."""
    at = 0
    while (begin := at + 4) <= len(data):
        at = begin + int.from_bytes(data[at:begin], "little")
        if at <= len(data):
            yield marshal.loads(data[begin:at])
