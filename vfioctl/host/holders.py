"""Which processes have a device node open, from /proc; what other users' processes hold only root can see."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

from vfioctl.errors import Busy, visible
from vfioctl.host.files import names, read


class Holder(NamedTuple):
    """A process that holds a node or a device; not ``certain``: it holds some VFIO device, perhaps this one."""

    pid: int
    command: str
    uid: int
    certain: bool = True

    def __str__(self) -> str:
        return f"{'' if self.certain else 'perhaps '}{self.command} (process {self.pid}, uid {self.uid})"


def being_unbound(address: str, found: Sequence[Holder]) -> Busy:
    """The error for a device whose VFIO driver the kernel is taking away, as soon as its user lets go of it."""
    who = ", ".join(map(str, found))
    return Busy(
        f"{address} is being taken from its VFIO driver, and the kernel waits for its user"
        + (f": {who}" if who else ""),
        hint="end that user; the kernel then goes on by itself",
        subject=address,
        code="being-unbound",
    )


def being_changed(address: str) -> Busy:
    """The error for a device whose lock the kernel holds: nothing can be asked of it, and nothing done to it."""
    return Busy(
        f"the kernel is at work on {address} and does not answer: a driver is being bound, unbound or reset, or its "
        "virtual functions are being made or taken away",
        hint="see who waits for it (ps -eo pid,stat,wchan:32,args | grep ' D'), and in the kernel log; then try again",
        subject=address,
        code="being-changed",
    )


def holders(path: str) -> list[Holder]:
    """The processes that have ``path`` open, as far as the caller may see."""
    return _who(lambda process: any(_target(fd) == path for fd in _fds(process)) or None)


_DEVICE = "anon_inode:[vfio-device]"


def vfio_device_holders(sysfs_path: str) -> list[Holder]:
    """The processes that have the VFIO device open: they hold its group although they may have closed its node. Where
    the kernel does not say which device it is (an fd before Linux 6.18, an mmap alone), those that may have it."""

    def holds(process: str) -> bool | None:
        opened = [fd for fd in _fds(process) if _target(fd) == _DEVICE]
        said = [read(fd.replace("/fd/", "/fdinfo/")) or "" for fd in opened]
        if any("vfio-device-syspath:" in text and sysfs_path in text for text in said):
            return True
        mapped = not opened and _DEVICE in (read(f"{process}/maps") or "")
        return False if mapped or any("vfio-device-syspath:" not in text for text in said) else None

    found = _who(holds)
    return [holder for holder in found if holder.certain] or found


def _who(holds: Callable[[str], bool | None]) -> list[Holder]:
    """The processes of which ``holds`` (given /proc/PID) says True: certainly, or False: perhaps."""
    found = []
    for name in names("/proc"):
        if name.isdecimal():
            process = f"/proc/{name}"
            with contextlib.suppress(OSError):  # a process may end, or belong to somebody else
                answer = holds(process)
                if answer is not None:
                    command = visible(read(f"{process}/comm") or "?")
                    found.append(Holder(int(name), command, os.stat(process).st_uid, answer))
    return found


def _fds(process: str) -> list[str]:
    return [f"{process}/fd/{fd}" for fd in os.listdir(f"{process}/fd")]


def _target(path: str) -> str:
    with contextlib.suppress(OSError):
        return os.readlink(path)
    return ""
