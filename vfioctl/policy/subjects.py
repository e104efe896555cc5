"""What an argument names: a group by its number, a device by its address; hostile text names nothing.

Malformed is :class:`UsageError` (2), well-formed but absent is :class:`NotFound` (3).
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from typing import NamedTuple

from vfioctl.errors import NotFound, UsageError
from vfioctl.model import Device, IommuGroup, Snapshot, shown

_BDF = re.compile(r"(?:(?P<domain>[0-9a-f]{4,8}):)?(?P<rest>[0-9a-f]{2}:[01][0-9a-f]\.[0-7])")
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_ON_BUS = re.compile(r"(?P<bus>[A-Za-z0-9_-]+)/(?P<name>[A-Za-z0-9_.:,@+-]+)")
_HOST_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.:-]{0,31}")


class Name(NamedTuple):
    """A parsed argument. ``kind`` is ``group``, ``address`` (bus and name) or ``host`` (eth0, nvme0n1)."""

    kind: str
    text: str
    bus: str | None = None
    number: int | None = None

    @property
    def key(self) -> str | None:
        """The device, as ``bus/address``; None for a group."""
        return None if self.bus is None else f"{self.bus}/{self.text}"

    def __str__(self) -> str:
        return f"IOMMU group {self.text}" if self.key is None else shown(self.key)


def parse(text: str) -> Name:
    """Parses an argument that names a group or a device. Raises UsageError when it can name neither."""
    low = text.lower()
    if re.fullmatch(r"[0-9]{1,9}", text, re.ASCII):
        return Name("group", text, number=int(text))
    if match := _BDF.fullmatch(low):
        return Name("address", f"{match['domain'] or '0000'}:{match['rest']}", bus="pci")
    if _UUID.fullmatch(low):
        return Name("address", low, bus="mdev")
    if ".." not in text:
        if match := _ON_BUS.fullmatch(text):
            inner = _BDF.fullmatch(match["name"].lower()) if match["bus"] == "pci" else None
            name = f"{inner['domain'] or '0000'}:{inner['rest']}" if inner else match["name"]
            return Name("address", name, bus=match["bus"])
        if _HOST_NAME.fullmatch(text):
            return Name("host", text)
    raise UsageError(
        f"{text!r} names neither a group nor a device",
        hint="a group is its number (26); a device is a PCI address (0000:01:00.0, 01:00.0), bus/name "
        "(platform/fe000000.dma), an mdev UUID, or a network or block name (eth0, nvme0n1)",
        subject=text,
    )


def named_on_bus(texts: Iterable[str]) -> list[str]:
    """The devices (bus/name) that are named by a bus other than PCI: they may be in no group, so that only who looks
    for them finds them. Malformed arguments are passed over."""
    found = []
    for text in texts:
        with contextlib.suppress(UsageError):
            name = parse(text)
            if name.kind == "address" and name.bus != "pci":
                found.append(f"{name.bus}/{name.text}")
    return found


def find_group(snapshot: Snapshot, number: int) -> IommuGroup:
    """The group of that number. Raises NotFound."""
    for group in snapshot.groups:
        if group.id == number:
            return group
    raise NotFound(
        f"there is no IOMMU group {number}",
        hint="vfioctl list-groups shows those there are",
        subject=str(number),
        code="no-such-group",
    )


def find_device(snapshot: Snapshot, bus: str | None, name: str) -> Device:
    """The device of that name on that bus. Raises NotFound."""
    for device in snapshot.devices:
        if device.address == name and device.bus == bus:
            return device
    elsewhere = [d.address for d in snapshot.devices if d.bus == "pci" and d.address.endswith(name[4:])]
    hint = "vfioctl list-devices shows those there are"
    if bus == "pci" and elsewhere and name.startswith("0000:"):
        hint = f"in another domain there is {', '.join(elsewhere)}; write the domain out"
    raise NotFound(
        f"there is no device {name if bus == 'pci' else f'{bus}/{name}'}",
        hint=hint,
        subject=name,
        code="no-such-device",
    )
