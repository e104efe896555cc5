"""One instance at a time: a POSIX lock on a file that also says who holds it."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable, Iterator

from vfioctl.errors import Busy

_STEP = 0.05


@contextlib.contextmanager
def held(path: str, timeout: float, waiting: Callable[[str], None]) -> Iterator[None]:
    """Holds the lock ``path`` meanwhile. The kernel drops it when the process ends, however it ends.

    Says through ``waiting`` whom it waits for; raises Busy when the lock is not free within ``timeout`` seconds.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        _acquire(path, fd, timeout, waiting)
        os.ftruncate(fd, 0)
        os.pwrite(fd, str(os.getpid()).encode(), 0)
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
        holder = os.pread(fd, 32, 0).decode(errors="replace") or "unknown"
        if time.monotonic() >= deadline:
            raise Busy(
                f"another vfioctl (process {holder}) is changing devices",
                hint=f"wait for it, or look at what it does: ps -fp {holder}",
                subject=path,
                code="locked",
            )
        if not told:
            waiting(f"waiting for another vfioctl (process {holder})")
            told = True
        time.sleep(_STEP)
