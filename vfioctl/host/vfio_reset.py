"""Resetting a VFIO device, alone or with all that share its slot or bus (floor 2).

Every function raises :class:`~vfioctl.host.ioctl.CallError`.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Sequence
from typing import NamedTuple

from vfioctl.host.ioctl import CallError, ioctl
from vfioctl.uapi import pci, vfio

#: More devices than any bus or slot has (256 functions of 256 buses, behind a bridge).
_DEVICES_LIMIT = 1 << 16


class AffectedDevice(NamedTuple):
    """A PCI device that a hot reset would reset too. Where the asking device was opened through its group, ``group`` is
    the number of its group; where it was opened by its own node, ``devid`` is its id in the iommufd, None when it
    belongs to a group of that iommufd without being bound itself, and then ``owned`` says whether it does."""

    address: str
    group: int | None = None
    devid: int | None = None
    owned: bool | None = None


class HotResetInfo(NamedTuple):
    """Answer of VFIO_DEVICE_GET_PCI_HOT_RESET_INFO. ``owned``: whether the iommufd has all of the devices, so that the
    reset may be done; None where groups have to be shown for that."""

    devices: tuple[AffectedDevice, ...]
    owned: bool | None = None


def device_reset(device: int) -> None:
    """Reset the function; EINVAL when it has no reset (VFIO_DEVICE_FLAGS_RESET is clear)."""
    ioctl(device, vfio.VFIO_DEVICE_RESET)


def device_get_pci_hot_reset_info(device: int) -> HotResetInfo:
    """Which devices a reset of the slot or bus reaches, this one among them; ENODEV when there is no such reset."""
    header, item = pci.vfio_pci_hot_reset_info, pci.vfio_pci_dependent_device
    room = 64
    while True:
        # The count that comes with ENOSPC is not looked at: whether fcntl.ioctl hands it on differs between Pythons.
        argsz = header.size_of + room * item.size_of
        buffer = header(argsz=argsz).pack(bytes(room * item.size_of))
        try:
            ioctl(device, vfio.VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, buffer)
            break
        except CallError as error:
            if error.errno != errno.ENOSPC or room >= _DEVICES_LIMIT:
                raise
        room *= 8
    info = header.unpack(buffer)
    by_devid = bool(info.flags & pci.VFIO_PCI_HOT_RESET_FLAG_DEV_ID)
    found = (item.unpack(buffer, header.size_of + at * item.size_of) for at in range(min(info.count, room)))
    return HotResetInfo(
        tuple(_affected(each, by_devid) for each in found),
        bool(info.flags & pci.VFIO_PCI_HOT_RESET_FLAG_DEV_ID_OWNED) if by_devid else None,
    )


def device_pci_hot_reset(device: int, groups: Sequence[int] = ()) -> None:
    """Reset the slot or bus with every device in it.

    ``groups`` are the descriptors of the groups of all of them; none when the device was opened by its own node, whose
    iommufd has to have them all.
    """
    tail = struct.pack(f"={len(groups)}i", *groups)
    argsz = pci.vfio_pci_hot_reset.size_of + len(tail)
    ioctl(
        device,
        vfio.VFIO_DEVICE_PCI_HOT_RESET,
        pci.vfio_pci_hot_reset(argsz=argsz, count=len(groups)).pack(tail),
    )


def _affected(found: pci.vfio_pci_dependent_device, by_devid: bool) -> AffectedDevice:
    device, function = found.devfn >> 3, found.devfn & 7
    address = f"{found.segment:04x}:{found.bus:02x}:{device:02x}.{function}"
    if not by_devid:
        return AffectedDevice(address, group=found.group_id)
    special = found.group_id in (pci.VFIO_PCI_DEVID_OWNED, pci.VFIO_PCI_DEVID_NOT_OWNED)
    return AffectedDevice(
        address,
        devid=None if special else found.group_id,
        owned=found.group_id != pci.VFIO_PCI_DEVID_NOT_OWNED,
    )
