"""A write to a kernel file that may never return.

unbind, remove, sriov_numvfs and reset wait for the last user of a device without limit, and a process that has
been sent a signal there cannot even be killed (drivers/vfio/vfio_main.c, vfio_unregister_group_dev).
"""

from __future__ import annotations

import os

from vfioctl.errors import DeadlinePassed
from vfioctl.host import bounded


def write(path: str, data: str, timeout: float) -> None:
    """Writes ``data`` to ``path`` in one write(2). Raises OSError with the kernel's errno, or DeadlinePassed after
    ``timeout`` seconds, and then the kernel may still be at it."""
    encoded = data.encode(errors="surrogateescape")

    def work() -> None:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, encoded)
        finally:
            os.close(fd)

    try:
        # Until the kernel has answered: otherwise the way back would begin while the write is under way.
        with bounded.postponed():
            bounded.call(work, timeout, leave=True)
    except bounded.Expired as error:
        raise DeadlinePassed(
            f"the kernel has not answered a write of {data.strip()!r} to {path} within {timeout:g} s: {error.place}",
            hint="somebody still uses the device, or its driver hangs: end that user, and the kernel goes on by itself "
            f"(do not kill process {error.place.pid}); then run: vfioctl recover",
            subject=path,
            details={"kernel": error.place._asdict()},
        ) from error
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from error
