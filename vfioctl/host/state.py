"""vfioctl's own state under /run/vfioctl: the lock, the journal of an unfinished change, and the home drivers.

It lives in /run because what it describes dies with the boot too. Every file is replaced whole: written, synced,
renamed, and the directory synced; so a crash leaves the old one or the new one.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

from vfioctl.errors import GuardRefusal, PermissionDenied
from vfioctl.host import lock
from vfioctl.host.journal import (
    VERSION,
    Home,
    Journal,
    homes_from_json,
    homes_to_json,
    journal_from_json,
    journal_to_json,
    unreadable,
)


class StateDirectory:
    """The directory, made on first use: root's alone, and refused when anybody else could write to it."""

    def __init__(self, path: str) -> None:
        self.path = path

    def ensure(self) -> None:
        """Makes or checks the directory. Raises PermissionDenied."""
        try:
            os.makedirs(os.path.dirname(self.path), exist_ok=True)
            with contextlib.suppress(FileExistsError):
                os.mkdir(self.path, 0o700)
        except PermissionError as error:
            raise PermissionDenied(
                f"{self.path} may not be written: changing devices needs root",
                hint="run it as root (sudo)",
                subject=self.path,
                errno=error.errno,
            ) from error
        self.check()

    def check(self) -> None:
        """Raises PermissionDenied when anybody but its owner could have written what is in the directory."""
        status = os.lstat(self.path)
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
            if os.geteuid() != 0 and stat.S_ISDIR(status.st_mode) and status.st_uid == 0:
                raise PermissionDenied(
                    "changing devices needs root",
                    hint="run it as root (sudo)",
                    subject=self.path,
                    errno=errno.EACCES,
                )
            raise PermissionDenied(
                f"{self.path} is not a directory that only its owner (uid {os.geteuid()}) can write to",
                hint=f"find out who made it; then remove it: rm -r {self.path}",
                subject=self.path,
                code="state-directory",
            )

    @contextlib.contextmanager
    def lock(self, timeout: float, waiting: Callable[[str], None]) -> Iterator[None]:
        """One change at a time. Raises Busy, naming the holder, when it is not free within ``timeout`` seconds."""
        self.ensure()
        with lock.held(os.path.join(self.path, "lock"), timeout, waiting):
            yield

    def save_journal(self, journal: Journal) -> None:
        """Records the state before a change. It is on the disk when this returns."""
        self._save("journal.json", journal_to_json(journal))

    def load_journal(self, name: str = "journal.json") -> Journal | None:
        """The journal of an unfinished change, or None. Raises VfioctlError when it cannot be understood."""
        data = self._load(name)
        return None if data is None else journal_from_json(data, os.path.join(self.path, name))

    def clear_journal(self, name: str = "journal.json") -> None:
        """The change is over: what is there now is what was wanted, or what was there before."""
        path = os.path.join(self.path, name)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        # /run does not outlive the power: what the kernel shows is what counts
        with contextlib.suppress(OSError):
            _sync(os.path.dirname(path))

    def move(self, name: str, to: str) -> None:
        """Renames a file. Raises OSError when it has not been."""
        path = os.path.join(self.path, to)
        os.rename(os.path.join(self.path, name), path)
        with contextlib.suppress(OSError):
            _sync(os.path.dirname(path))

    def refuse_unfinished(self) -> None:
        """Raises GuardRefusal when an earlier change was interrupted."""
        if os.path.exists(os.path.join(self.path, "journal.json")):
            raise unfinished(self.path)

    def homes(self) -> dict[str, Home]:
        """Where each device that vfioctl took was before, by key; empty for who may not read it."""
        try:
            data = self._load("homes.json")
        except (PermissionError, PermissionDenied):
            if os.geteuid() == 0:
                raise
            return {}
        return {} if data is None else homes_from_json(data, os.path.join(self.path, "homes.json"))

    def save_homes(self, homes: Mapping[str, Home]) -> None:
        """Replaces the record of home drivers."""
        self._save("homes.json", homes_to_json(homes))

    def _save(self, name: str, data: Mapping[str, Any]) -> None:
        self.ensure()
        path = os.path.join(self.path, name)
        temporary = f"{path}.new"
        rest = json.dumps(data, indent=1).encode() + b"\n"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            fd = os.open(temporary, flags, 0o600)
            try:
                while rest:  # a disk that is nearly full takes a part, and says ENOSPC to the next one
                    rest = rest[os.write(fd, rest) :]
                os.fsync(fd)
            finally:
                os.close(fd)
            os.rename(temporary, path)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise OSError(error.errno, error.strerror, temporary) from error
        _sync(self.path)

    def _load(self, name: str) -> dict[str, Any] | None:
        path = os.path.join(self.path, name)
        if os.path.lexists(self.path):
            self.check()
        try:
            with open(path, encoding="utf-8") as file:
                data = json.load(file)
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise unreadable(path, str(error)) from error
        if not isinstance(data, dict) or data.get("version") != VERSION:
            raise unreadable(path, "it is of another version of vfioctl")
        return cast(dict[str, Any], data)


def _sync(directory: str) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def unfinished(path: str) -> GuardRefusal:
    """The error for a record in the directory ``path`` that an earlier change has left."""
    return GuardRefusal(
        "an earlier change was interrupted and has not been put right",
        hint="vfioctl recover",
        subject=path,
        code="unfinished-change",
    )
