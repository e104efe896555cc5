"""Files of sysfs whose reading takes the lock of the device, which a driver's probe, remove or reset holds: for ever,
when it waits for a user of the device. ``sriov_numvfs`` does, and ``driver_override`` until the driver core took it
over from the buses (Linux drivers/pci/pci-sysfs.c, driver_override_show and sriov_numvfs_show).
"""

from __future__ import annotations

import os
import select
from collections.abc import Sequence
from enum import Enum
from typing import Final

from vfioctl.host import bounded
from vfioctl.host.files import read

#: Seconds without an answer after which a file is taken for locked.
PATIENCE = 2.0
_NOTHING = b"\x01"  # no text of sysfs


class Lock(Enum):
    """The answer "the kernel holds the device's lock"."""

    HELD = "locked"


LOCKED: Final = Lock.HELD


def read_all(paths: Sequence[str], patience: float = PATIENCE) -> list[str | Lock | None]:
    """The text of each file, None for one that is not there, LOCKED for one that does not answer within ``patience``
    seconds. All are read by one child process, and by another one from where that got stuck."""
    answers: list[str | Lock | None] = []
    while len(answers) < len(paths):
        answers += _read_until_stuck(paths[len(answers) :], patience)
    return answers


def _read_until_stuck(paths: Sequence[str], patience: float) -> list[str | Lock | None]:
    def work(sender: int) -> None:
        for path in paths:
            text = _text(path)
            data = _NOTHING if text is None else text.encode(errors="surrogateescape")
            os.write(sender, data + b"\0")

    pid, receiver = bounded.start(work)
    data = b""
    try:
        while select.select([receiver], [], [], patience)[0]:
            more = os.read(receiver, 1 << 16)
            if not more:
                break
            data += more
    finally:
        os.close(receiver)
        bounded.end(pid)
    answers: list[str | Lock | None] = [
        None if answer == _NOTHING else answer.decode(errors="surrogateescape")
        for answer in data.split(b"\0")[:-1]
    ]
    return answers if len(answers) == len(paths) else [*answers, LOCKED]


def _text(path: str) -> str | None:
    try:
        return read(path)
    except OSError:  # forbidden, or the device has gone wrong: an answer, and not that of a lock
        return None
