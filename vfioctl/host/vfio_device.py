"""VFIO device descriptors: what kind of device, and its regions; a function per ioctl (floor 2).

Every function raises :class:`~vfioctl.host.ioctl.CallError`. Opening a device resets it and so does closing
it: nothing that only looks goes this far.
"""

from __future__ import annotations

from typing import NamedTuple

from vfioctl.host.vfio import info_buffer
from vfioctl.host.vfio_zpci import ZpciInfo, zpci_info
from vfioctl.uapi import capability, pci, vfio


class DeviceInfo(NamedTuple):
    """Answer of VFIO_DEVICE_GET_INFO; ``flags`` are VFIO_DEVICE_FLAGS_*, ``atomic_completion`` VFIO_PCI_ATOMIC_*: the
    widths of AtomicOps that the root port completes (6.5). None stands for what this kernel does not tell."""

    flags: int
    num_regions: int
    num_irqs: int
    atomic_completion: int | None = None
    zpci: ZpciInfo | None = None


class RegionInfo(NamedTuple):
    """Answer of VFIO_DEVICE_GET_REGION_INFO, in bytes.

    ``offset`` is where pread(2), pwrite(2) and mmap(2) on the device descriptor find the region. ``areas``
    are the (offset, size) parts that may be mapped, None when the whole may; ``type`` is (type, subtype) of
    a device-specific region. Size 0: the region is not implemented.
    """

    flags: int
    size: int
    offset: int
    areas: tuple[tuple[int, int], ...] | None = None
    type: tuple[int, int] | None = None
    msix_mappable: bool = False


def device_get_info(device: int) -> DeviceInfo:
    """What kind of device this is, and how many regions and interrupt indices it has."""
    buffer = info_buffer(device, vfio.VFIO_DEVICE_GET_INFO, vfio.vfio_device_info())
    info = vfio.vfio_device_info.unpack(buffer)
    found = DeviceInfo(info.flags, info.num_regions, info.num_irqs)
    if not info.flags & vfio.VFIO_DEVICE_FLAGS_CAPS:
        return found
    atomic = pci.vfio_device_info_cap_pci_atomic_comp
    data = capability.find(buffer, info.cap_offset, pci.VFIO_DEVICE_INFO_CAP_PCI_ATOMIC_COMP, atomic)
    if data is not None:
        found = found._replace(atomic_completion=atomic.unpack(data).flags)
    return found._replace(zpci=zpci_info(buffer, info.cap_offset))


def device_get_region_info(device: int, index: int) -> RegionInfo:
    """A region by index; EINVAL when the device has no such index."""
    buffer = info_buffer(device, vfio.VFIO_DEVICE_GET_REGION_INFO, vfio.vfio_region_info(index=index))
    info = vfio.vfio_region_info.unpack(buffer)
    region = RegionInfo(info.flags, info.size, info.offset)
    if not info.flags & vfio.VFIO_REGION_INFO_FLAG_CAPS:
        return region
    sparse, kind = vfio.vfio_region_info_cap_sparse_mmap, vfio.vfio_region_info_cap_type
    data = capability.find(buffer, info.cap_offset, vfio.VFIO_REGION_INFO_CAP_SPARSE_MMAP, sparse)
    if data is not None:
        count = sparse.unpack(data).nr_areas
        areas = capability.items(data, sparse.size_of, vfio.vfio_region_sparse_mmap_area, count)
        region = region._replace(areas=tuple((area.offset, area.size) for area in areas))
    data = capability.find(buffer, info.cap_offset, vfio.VFIO_REGION_INFO_CAP_TYPE, kind)
    if data is not None:
        found = kind.unpack(data)
        region = region._replace(type=(found.type, found.subtype))
    header = vfio.vfio_info_cap_header
    mappable = capability.find(buffer, info.cap_offset, vfio.VFIO_REGION_INFO_CAP_MSIX_MAPPABLE, header)
    return region._replace(msix_mappable=mappable is not None)
