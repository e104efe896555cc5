"""The error family and the exit statuses (floor 0).

Every failure that vfioctl foresees is a :class:`VfioctlError`: it carries the exit status, a stable
machine-readable code, what happened, what to do about it and, where the kernel said no, its errno.
"""

from __future__ import annotations

import errno as _errno
from collections.abc import Mapping
from enum import IntEnum
from typing import Any


class ExitStatus(IntEnum):
    """What ``$?`` means to a script; see "EXIT STATUS" in the manual."""

    OK = 0
    NO = 1
    USAGE = 2
    NOT_FOUND = 3
    PERMISSION = 4
    GUARD = 5
    BUSY = 6
    KERNEL = 7
    RESTORED = 8
    BROKEN = 9
    TIMEOUT = 124


#: Which of several answers decides the status: the later in this list, the worse.
SEVERITY = (
    ExitStatus.OK,
    ExitStatus.NO,
    ExitStatus.USAGE,
    ExitStatus.NOT_FOUND,
    ExitStatus.PERMISSION,
    ExitStatus.GUARD,
    ExitStatus.BUSY,
    ExitStatus.KERNEL,
    ExitStatus.TIMEOUT,
    ExitStatus.RESTORED,
    ExitStatus.BROKEN,
)


def worst(*statuses: ExitStatus) -> ExitStatus:
    """The status that stands for all of ``statuses``; OK for none."""
    return max(statuses, key=SEVERITY.index, default=ExitStatus.OK)


def errno_name(number: int) -> str:
    """The symbolic name of an errno, e.g. ``EPERM``; its number when it has none."""
    # Python's table has the C library's second name for this one.
    return "EOPNOTSUPP" if number == _errno.EOPNOTSUPP else _errno.errorcode.get(number, str(number))


def visible(text: str) -> str:
    """``text`` with everything that is not printable, line breaks too, as a backslash escape. For text from outside
    (sysfs, process names, mount points, arguments) where it enters a message: it can neither steer a terminal nor
    pretend to be a line of its own."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class VfioctlError(Exception):
    """A foreseen failure.

    ``code`` is stable and meant for programs, ``message`` says what happened, ``hint`` is the cure,
    ``subject`` is the group, device or file concerned, ``errno`` what the kernel answered (a number), ``details``
    what else a program may want to know: further keys of the JSON error.
    """

    status = ExitStatus.KERNEL
    code = "error"

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        subject: str | None = None,
        errno: int | None = None,
        code: str | None = None,
        status: ExitStatus | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.subject = subject
        self.errno = errno
        self.details: Mapping[str, Any] = details or {}
        if code is not None:
            self.code = code
        if status is not None:
            self.status = status

    @property
    def errno_name(self) -> str | None:
        """``EPERM`` and the like, or None when no kernel call failed."""
        return None if self.errno is None else errno_name(self.errno)


class No(VfioctlError):
    """A clean "no": the question was understood and the answer is negative."""

    status = ExitStatus.NO
    code = "no"


class UsageError(VfioctlError):
    """The request itself is malformed or cannot mean anything."""

    status = ExitStatus.USAGE
    code = "usage"


class NotFound(VfioctlError):
    """A well-formed name that names nothing on this host."""

    status = ExitStatus.NOT_FOUND
    code = "not-found"


class PermissionDenied(VfioctlError):
    """The caller may not do this."""

    status = ExitStatus.PERMISSION
    code = "permission"


class GuardRefusal(VfioctlError):
    """A guard stopped a change; ``code`` is the name that ``--allow`` takes, where one is allowed."""

    status = ExitStatus.GUARD
    code = "guard"


class Busy(VfioctlError):
    """Somebody else holds the object."""

    status = ExitStatus.BUSY
    code = "busy"


class KernelRefusal(VfioctlError):
    """The kernel answered with an errno."""

    status = ExitStatus.KERNEL
    code = "kernel"


class Restored(VfioctlError):
    """The change failed and the state before it was put back and read back."""

    status = ExitStatus.RESTORED
    code = "failed-restored"


class NotRestored(VfioctlError):
    """The change failed and something could not be put back; the message says exactly what."""

    status = ExitStatus.BROKEN
    code = "failed-not-restored"


class DeadlinePassed(VfioctlError):
    """A deadline passed before the kernel answered."""

    status = ExitStatus.TIMEOUT
    code = "timeout"
