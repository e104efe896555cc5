"""What VFIO tells of a PCI device of s390 (zPCI), in the capabilities of VFIO_DEVICE_GET_INFO (floor 2).

Source: drivers/vfio/pci/vfio_pci_zdev.c, <linux/vfio_zdev.h>.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from vfioctl.uapi import capability, pci
from vfioctl.uapi.capability import Capability
from vfioctl.uapi.cstruct import CStruct


class ZpciInfo(NamedTuple):
    """Fields by their C names: ``base`` (addresses of DMA, ids; ``fh``, the function handle, from 6.0 on) and ``group``
    (what the devices of one kind share); ``util_str`` is text in EBCDIC, ``pfip`` the path of the function."""

    base: Mapping[str, int]
    group: Mapping[str, int]
    util_str: bytes = b""
    pfip: bytes = b""


def zpci_info(info: bytearray, cap_offset: int) -> ZpciInfo | None:
    """The zPCI capabilities of a device info buffer, or None when there are none."""
    base: dict[str, int] = {}
    group: dict[str, int] = {}
    texts = {pci.VFIO_DEVICE_INFO_CAP_ZPCI_UTIL: b"", pci.VFIO_DEVICE_INFO_CAP_ZPCI_PFIP: b""}
    for found in capability.walk(info, cap_offset):
        if found.id == pci.VFIO_DEVICE_INFO_CAP_ZPCI_BASE:
            base |= _fields(found, pci.vfio_device_info_cap_zpci_base)
            # The walk knows no lengths: what lies behind an older version is the next capability.
            if found.version >= 2:
                base |= _fields(found, pci.vfio_device_info_cap_zpci_base_fh)
        elif found.id == pci.VFIO_DEVICE_INFO_CAP_ZPCI_GROUP:
            group |= _fields(found, pci.vfio_device_info_cap_zpci_group)
        elif found.id in texts:
            header = pci.vfio_device_info_cap_zpci_util
            size = _fields(found, header).get("size", 0)
            texts[found.id] = bytes(found.data[header.size_of : header.size_of + size])
    if not base:
        return None
    return ZpciInfo(base, group, *texts.values())


def _fields(found: Capability, kind: type[CStruct]) -> dict[str, int]:
    return kind.unpack(found.data).values() if len(found.data) >= kind.size_of else {}
