"""``_IO()`` of <asm/ioctl.h>: how an ioctl without an argument struct is numbered (floor 1)."""

from __future__ import annotations

import os

#: Machines whose ``_IOC_NONE`` is 1 in bit 29 (arch/{powerpc,mips,sparc,alpha}/include/uapi/asm/ioctl.h);
#: everywhere else it is 0. Prefixes of what uname(2) calls them.
_IOC_NONE_IS_BIT_29 = ("ppc", "powerpc", "mips", "sparc", "alpha")


def ioc_none(machine: str) -> int:
    """The direction bits of a request that transfers nothing, on ``machine`` (as in ``uname -m``)."""
    return 1 << 29 if machine.startswith(_IOC_NONE_IS_BIT_29) else 0


#: ``_IOC_NONE`` in place, on the machine this runs on.
IOC_NONE = ioc_none(os.uname().machine)


def _IO(type: int, nr: int, none: int = IOC_NONE) -> int:
    """The request number of command ``nr`` of family ``type``, both of 8 bits."""
    return none | type << 8 | nr


class Request(int):
    """An ioctl request number that knows its C name, which is what error messages show."""

    name: str

    def __new__(cls, name: str, value: int) -> Request:
        request = super().__new__(cls, value)
        request.name = name
        return request

    def __repr__(self) -> str:
        return f"{self.name} ({int(self):#010x})"
