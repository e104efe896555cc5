"""The device that a command drives: its argument, and its open descriptor."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from vfioctl.cli.arguments import resolve
from vfioctl.errors import UsageError
from vfioctl.model import Device, Snapshot

if TYPE_CHECKING:
    from vfioctl.cli.session import Session
    from vfioctl.ops.device import OpenDevice


@contextmanager
def opened(
    session: Session, text: str, container: str | None, *, stays: bool = False
) -> Iterator[OpenDevice]:
    """The device that ``text`` names, from the container that holds it, or from one of its own. Raises VfioctlError.

    ``stays``: what is done to it is of use only in a container that stays open.
    """
    from vfioctl.ops import device

    snapshot = session.snapshot((text,))
    found = one_device(session, snapshot, text)
    with device.opened(session.machine, found, container, tell=session.tell) as kept:
        if stays and kept.temporary:
            raise UsageError(
                f"no open container holds {kept.name}, and this would end with the command",
                hint=f"vfioctl container open NAME {found.address}",
                subject=kept.name,
                code="no-container",
            )
        yield kept


def one_device(session: Session, snapshot: Snapshot, text: str) -> Device:
    """The device that ``text`` names. Raises UsageError for a group: its members are to be named one by one."""
    found = resolve(session, snapshot, text)
    if isinstance(found, Device):
        return found
    raise UsageError(
        f"{text} is a group, and this is about one device",
        hint=f"its devices: {', '.join(device.address for device in found.devices) or 'none'}",
        subject=text,
    )
