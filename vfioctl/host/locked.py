"""Files of sysfs whose reading takes the lock of the device, which a driver's probe, remove or reset holds: for ever,
when it waits for a user of the device. ``sriov_numvfs`` does, and ``driver_override`` until the driver core took it
over from the buses (Linux drivers/pci/pci-sysfs.c, driver_override_show and sriov_numvfs_show).
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Final

from vfioctl.host.files import read
from vfioctl.host.survey import survey

#: Seconds without an answer after which a file is taken for locked.
PATIENCE = 2.0


class Lock(Enum):
    """The answer "the kernel holds the device's lock"."""

    HELD = "locked"


LOCKED: Final = Lock.HELD


def read_all(paths: Sequence[str], patience: float = PATIENCE) -> list[str | Lock | None]:
    """The text of each file, None for one that is not there, LOCKED for one that does not answer within ``patience``
    seconds."""
    answers, _ = survey(lambda index: _text(paths[index]), range(len(paths)), patience)
    found: dict[int, str | None] = dict(answers)
    return [found.get(index, LOCKED) for index in range(len(paths))]


def _text(path: str) -> str | None:
    try:
        return read(path)
    except OSError:  # forbidden, or the device has gone wrong: an answer, and not that of a lock
        return None
