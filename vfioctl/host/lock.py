"""One instance at a time: a POSIX lock on a file that also says who holds it."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable, Iterator

from vfioctl.errors import Busy, visible
from vfioctl.host.files import read

_STEP = 0.05
_LONGEST = 1024  # bytes of the lock file


@contextlib.contextmanager
def held(path: str, timeout: float, waiting: Callable[[str], None]) -> Iterator[None]:
    """Holds the lock ``path`` meanwhile. The kernel drops it when the process ends, however it ends.

    Says through ``waiting`` whom it waits for; raises Busy when the lock is not free within ``timeout`` seconds.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        _acquire(path, fd, timeout, waiting)
        with contextlib.suppress(OSError):  # a disk that is full must not keep recover from its work
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()} {_command()}".encode(errors="surrogateescape")[:_LONGEST], 0)
        yield
    finally:
        os.close(fd)


def _acquire(path: str, fd: int, timeout: float, waiting: Callable[[str], None]) -> None:
    deadline = time.monotonic() + timeout
    told = False
    while True:
        try:
            os.lockf(fd, os.F_TLOCK, 0)
            return
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise
        holder, _, doing = os.pread(fd, _LONGEST, 0).decode(errors="replace").partition(" ")
        who = f"process {holder or 'unknown'}" + (f": {visible(doing)}" if doing else "")
        if time.monotonic() >= deadline:
            raise Busy(
                f"another vfioctl ({who}) is changing devices",
                hint=f"wait for it (--wait SECONDS), or look at what it does: ps -fp {holder}",
                subject=path,
                code="locked",
            )
        if not told:
            waiting(f"waiting for another vfioctl ({who})")
            told = True
        time.sleep(_STEP)


def _command() -> str:
    """What this process was called to do, without the interpreter before it."""
    words = (read("/proc/self/cmdline") or "").rstrip("\0").split("\0")
    return " ".join(["vfioctl", *words[1:]] if words[0].endswith("vfioctl") else words)
