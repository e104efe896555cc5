"""The one place that calls ioctl(2), and the one shape in which its refusals are told (floor 2)."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable

from vfioctl.uapi.ioctl import Request

_SIOCGIFADDR = Request("SIOCGIFADDR", 0x8915)


class CallError(OSError):
    """A system call that failed: ``call`` names it (``open``, or an ioctl by its C name).

    ``errno`` and ``strerror`` are OSError's; ``filename`` is set when a file could not be opened.
    """

    def __init__(self, call: str, errno: int, filename: str | None = None) -> None:
        super().__init__(errno, os.strerror(errno))
        self.call = call
        self.filename = filename

    def __str__(self) -> str:
        where = f" {self.filename}" if self.filename is not None else ""
        return f"{self.call}{where}: {self.strerror}"


class Refused(CallError):
    """One of many calls failed, the one with the values ``item``; those before it were done, those behind it not."""

    def __init__(self, call: str, errno: int, item: tuple[int, ...]) -> None:
        super().__init__(call, errno)
        self.item = item


def ioctl(fd: int, request: Request, argument: int | bytearray = 0) -> int:
    """Do the ioctl and return the kernel's integer; a ``bytearray`` receives what the kernel writes back.

    Raises :class:`CallError`. Immutable bytes are not taken: with those ``fcntl.ioctl`` returns the buffer
    in place of the integer, and the new descriptor of VFIO_GROUP_GET_DEVICE_FD would be lost.
    """
    try:
        return fcntl.ioctl(fd, request, argument)
    except OSError as error:
        raise CallError(request.name, error.errno or 0) from error


def ioctl_each(
    fd: int,
    request: Request,
    buffer: bytearray,
    places: tuple[int, int, int],
    items: Iterable[tuple[int, int, int]],
) -> None:
    """Do the ioctl once for each item, with its values at ``places`` of the buffer, which are counted in 64 bits.

    Raises :class:`Refused`. Nothing but the call is in the loop, so that tens of thousands cost little more than in C.
    """
    fields = memoryview(buffer).cast("Q")
    first, second, third = places
    call = fcntl.ioctl
    try:
        for fields[first], fields[second], fields[third] in items:
            call(fd, request, buffer)
    except OSError as error:
        item = fields[first], fields[second], fields[third]
        raise Refused(request.name, error.errno or 0, item) from error


def open_node(path: str) -> int:
    """Open a device node for reading and writing, closed on exec. Raises :class:`CallError` ("open")."""
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise CallError("open", error.errno or 0, path) from error


def dup_above(fd: int, least: int) -> int:
    """A copy of a descriptor, closed on exec, whose number is not below ``least``."""
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, least)


def interface_address(name: str) -> str | None:
    """The first IPv4 address of a network interface, or None. Request and struct ifreq: <linux/sockios.h>,
    <linux/if.h>."""
    import socket

    request = bytearray(40)
    request[: len(name.encode())] = name.encode()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            ioctl(sock.fileno(), _SIOCGIFADDR, request)
        except CallError:
            return None
    return socket.inet_ntoa(bytes(request[20:24]))
