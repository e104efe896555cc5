"""Which processes have a device node open, from /proc; what other users' processes hold only root can see."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

from vfioctl.errors import Busy, visible
from vfioctl.host.files import names, read


class Holder(NamedTuple):
    """A process that holds a node."""

    pid: int
    command: str
    uid: int


def being_unbound(address: str, found: Sequence[Holder]) -> Busy:
    """The error for a device whose VFIO driver the kernel is taking away, as soon as its user lets go of it."""
    who = ", ".join(f"{holder.command} (process {holder.pid})" for holder in found)
    return Busy(
        f"{address} is being taken from its VFIO driver, and the kernel waits for its user"
        + (f": {who}" if who else ""),
        hint="end that user; the kernel then goes on by itself",
        subject=address,
        code="being-unbound",
    )


def holders(path: str) -> list[Holder]:
    """The processes that have ``path`` open, as far as the caller may see."""
    return _who(lambda fd: _target(fd) == path)


_DEVICE = "anon_inode:[vfio-device]"


def vfio_device_holders(sysfs_path: str) -> list[Holder]:
    """The processes that have a VFIO device open: this one where the kernel says which (from Linux 6.18 on), else
    any. They hold its group although they may have closed the group's node."""

    def is_it(fd: str) -> bool:
        if _target(fd) != _DEVICE:
            return False
        said = read(fd.replace("/fd/", "/fdinfo/")) or ""
        return "vfio-device-syspath:" not in said or sysfs_path in said

    return _who(is_it, maps=True)  # an mmap alone holds the device, and no fd shows it


def _who(holds: Callable[[str], bool], maps: bool = False) -> list[Holder]:
    found = []
    for name in names("/proc"):
        if name.isdecimal():
            with contextlib.suppress(OSError):  # a process may end, or belong to somebody else
                fds = [f"/proc/{name}/fd/{fd}" for fd in os.listdir(f"/proc/{name}/fd")]
                if any(map(holds, fds)) or (maps and _DEVICE in (read(f"/proc/{name}/maps") or "")):
                    command = visible(read(f"/proc/{name}/comm") or "?")
                    found.append(Holder(int(name), command, os.stat(f"/proc/{name}").st_uid))
    return found


def _target(path: str) -> str:
    with contextlib.suppress(OSError):
        return os.readlink(path)
    return ""
