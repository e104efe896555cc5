"""Which processes have a device node open, from /proc; what other users' processes hold only root can see."""

from __future__ import annotations

import contextlib
import os
from typing import NamedTuple

from vfioctl.host.files import names


class Holder(NamedTuple):
    """A process that holds a node."""

    pid: int
    command: str
    uid: int


def holders(path: str) -> list[Holder]:
    """The processes that have ``path`` open, as far as the caller may see."""
    found = []
    for name in names("/proc"):
        if name.isdecimal():
            with contextlib.suppress(OSError):  # a process may end, or belong to somebody else
                fds = f"/proc/{name}/fd"
                if any(_target(os.path.join(fds, fd)) == path for fd in os.listdir(fds)):
                    with open(f"/proc/{name}/comm", encoding="utf-8", errors="surrogateescape") as file:
                        found.append(Holder(int(name), file.read().strip(), os.stat(f"/proc/{name}").st_uid))
    return found


def _target(path: str) -> str:
    with contextlib.suppress(OSError):
        return os.readlink(path)
    return ""
