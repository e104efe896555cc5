"""What --root names: a directory, or an archive that is unpacked for as long as the command runs."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from vfioctl.errors import UsageError
from vfioctl.host.archive import unpack
from vfioctl.host.archive.entry import BadArchive


@contextmanager
def unpacked(path: str, timeout: float) -> Iterator[str]:
    """A private directory with what the archive holds, which is removed at the end, and by a signal that ends the
    process. Raises UsageError for what is no archive of a snapshot."""
    with _temporary() as directory:
        try:
            unpack(path, directory, timeout)
        except BadArchive as error:
            raise UsageError(
                f"--root {path}: {error.message}", hint=error.hint, subject=path, code=error.code
            ) from error
        if not os.path.isdir(os.path.join(directory, "sys")):
            raise UsageError(
                f"--root {path}: it is an archive, but of no snapshot: there is no sys in it",
                hint="vfioctl snapshot -o FILE makes one",
                subject=path,
                code="archive",
            )
        yield directory


@contextmanager
def _temporary() -> Iterator[str]:
    owner = os.getpid()
    directory = os.path.realpath(tempfile.mkdtemp(prefix="vfioctl-"))

    def remove() -> None:
        if os.getpid() == owner:  # children that only read have inherited the handler
            shutil.rmtree(directory, ignore_errors=True)

    with _before_ending(remove):
        try:
            yield directory
        finally:
            remove()


@contextmanager
def _before_ending(remove: Callable[[], None]) -> Iterator[None]:
    """Lets SIGTERM and SIGHUP call ``remove`` before they end the process, as they would. (SIGINT is an exception.)"""

    def end(number: int, frame: object) -> None:
        remove()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    previous = {
        number: signal.signal(number, end)
        for number in (signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is signal.SIG_DFL
    }
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
