"""A write to a kernel file that may never return: done by a child process, with a deadline.

unbind, remove, sriov_numvfs and reset wait for the last user of a device without limit, and a process that has
been sent a signal there cannot even be killed (drivers/vfio/vfio_main.c, vfio_unregister_group_dev). So the
parent waits, not the writer; when the deadline passes the child is left alone, for killing it makes it worse.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import struct

from vfioctl.errors import DeadlinePassed

_RESULT = struct.Struct("i")
_SIGNALS = frozenset(
    {signal.SIGTERM, signal.SIGHUP, signal.SIGINT}
)  # blocked in the child as well: it inherits that


def write(path: str, data: str, timeout: float) -> None:
    """Writes ``data`` to ``path`` in one write(2). Raises OSError with the kernel's errno, or DeadlinePassed after
    ``timeout`` seconds, and then the kernel may still be at it."""
    encoded = data.encode(errors="surrogateescape")
    receiver, sender = os.pipe()
    # A signal waits until the kernel has answered: otherwise the way back would begin while the write is under way.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        child = os.fork()
        if child == 0:
            _write_and_exit(path, encoded, sender)
        os.close(sender)
        _wait(child, receiver, path, data, timeout)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _wait(child: int, receiver: int, path: str, data: str, timeout: float) -> None:
    try:
        ready, _, _ = select.select([receiver], [], [], timeout)
        if not ready:
            raise DeadlinePassed(
                f"the kernel has not answered a write of {data.strip()!r} to {path} within {timeout:g} s",
                hint="somebody still uses the device: end that, and the kernel goes on by itself; "
                f"process {child} waits in the kernel for it. Then run: vfioctl recover",
                subject=path,
            )
        answer = os.read(receiver, _RESULT.size)
    finally:
        os.close(receiver)
    os.waitpid(child, 0)
    number = _RESULT.unpack(answer)[0] if len(answer) == _RESULT.size else 0
    if not answer:
        raise OSError(errno.EIO, "the writing process died", path)
    if number:
        raise OSError(number, os.strerror(number), path)


def _write_and_exit(path: str, data: bytes, sender: int) -> None:
    number = errno.EIO
    try:
        os.setpgid(0, 0)  # a Ctrl-C on the terminal is for the parent, which decides what happens next
        # A writer that is left behind must not keep the caller's pipes open: $(vfioctl ...) would wait for it.
        nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        for stream in (0, 1, 2):
            os.dup2(nowhere, stream)
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, data)
        finally:
            os.close(fd)
        number = 0
    except OSError as error:
        number = error.errno or errno.EIO
    finally:
        with contextlib.suppress(OSError):
            os.write(sender, _RESULT.pack(number))
        os._exit(0)
