"""Calls on a device's descriptor that may wait in the kernel: made by a child process, with a deadline (floor 4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from vfioctl.errors import DeadlinePassed
from vfioctl.host import bounded
from vfioctl.host.ioctl import CallError
from vfioctl.policy.refusals import State, explain

T = TypeVar("T")


def ask(device: str, work: Callable[[], T], timeout: float) -> T:
    """What ``work`` returns (see bounded.call). What fails is told by the name of its call. Raises VfioctlError."""
    try:
        return call(device, work, timeout)
    except CallError as error:
        raise explain(error.call, error.errno or 0, State(device=device)) from error


def call(device: str, work: Callable[[], T], timeout: float) -> T:
    """As :func:`ask`, for a caller who explains the :class:`CallError` himself; its call is "access" when the child
    process died of a signal. Raises DeadlinePassed."""

    def named() -> T:
        try:
            return work()
        except CallError as error:
            # The name of the call is what the way through a child process would lose.
            raise OSError(error.errno, error.strerror, error.call) from error

    try:
        return bounded.call(named, timeout)
    except bounded.Expired as expired:
        raise DeadlinePassed(
            f"{device} has not answered within {timeout:g} s: {expired.place}",
            hint="it may be being reset, or its driver may hang: look at the kernel log (dmesg)",
            subject=device,
        ) from expired
    except OSError as error:
        raise CallError(str(error.filename or "access"), error.errno or 0) from error
