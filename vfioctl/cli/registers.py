"""Where in a region a command is to read or write: OFFSET or REGISTER arguments, and --width."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from vfioctl.errors import UsageError

if TYPE_CHECKING:
    from vfioctl.ops.regions import Region, Regions

F = TypeVar("F", bound=Callable[..., Any])

#: Bytes of an access when neither --width nor a register's name tells.
DEFAULT = 4


class Place(NamedTuple):
    """``width`` in bytes; ``register`` is its name, where it was called by one."""

    offset: int
    width: int
    register: str | None = None


def width_option(function: F) -> F:
    """--width, in bits."""
    return click.option(
        "--width",
        type=click.Choice(["8", "16", "32", "64"]),
        help="Bits of one access.  [default: the register's, else 32]",
    )(function)


def place(regions: Regions, region: Region, text: str, width: str | None) -> Place:
    """Where ``text`` is: an offset (decimal, or hexadecimal with 0x), or in configuration space a register's name."""
    from vfioctl.policy.sizes import parse_number

    bytes_ = int(width) // 8 if width else None
    if text[:1].isdigit():
        return Place(parse_number(text, "OFFSET"), bytes_ or DEFAULT)
    if region.name != "config":
        raise UsageError(
            f"{text!r} is no offset, and only configuration space has registers that have names",
            hint="an offset is decimal, or hexadecimal with 0x",
            subject=text,
            code="register",
        )
    from vfioctl.policy.pci_config import find_register

    register = find_register(regions.config(), text)
    return Place(register.offset, bytes_ or register.width, register.name)
