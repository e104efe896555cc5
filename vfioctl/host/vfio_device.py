"""VFIO device descriptors: regions, interrupts, reset; a function per ioctl (floor 2).

Every function raises :class:`~vfioctl.host.ioctl.CallError`. Opening a device resets it and so does closing
it: nothing that only looks goes this far.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from vfioctl.host.ioctl import ioctl
from vfioctl.host.vfio import info_buffer
from vfioctl.uapi import capability, vfio


class DeviceInfo(NamedTuple):
    """Answer of VFIO_DEVICE_GET_INFO; ``flags`` are VFIO_DEVICE_FLAGS_*."""

    flags: int
    num_regions: int
    num_irqs: int


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


class IrqInfo(NamedTuple):
    """Answer of VFIO_DEVICE_GET_IRQ_INFO; ``flags`` are VFIO_IRQ_INFO_*, ``vectors`` how many."""

    flags: int
    vectors: int


def device_get_info(device: int) -> DeviceInfo:
    """What kind of device this is, and how many regions and interrupt indices it has."""
    buffer = info_buffer(device, vfio.VFIO_DEVICE_GET_INFO, vfio.vfio_device_info())
    info = vfio.vfio_device_info.unpack(buffer)
    return DeviceInfo(info.flags, info.num_regions, info.num_irqs)


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


def device_get_irq_info(device: int, index: int) -> IrqInfo:
    """An interrupt index; EINVAL when the device has no such index."""
    buffer = vfio.vfio_irq_info(index=index).pack()
    ioctl(device, vfio.VFIO_DEVICE_GET_IRQ_INFO, buffer)
    info = vfio.vfio_irq_info.unpack(buffer)
    return IrqInfo(info.flags, info.count)


def device_set_irqs(device: int, index: int, start: int, eventfds: Sequence[int]) -> int:
    """Let vectors ``start`` and up signal these eventfds (-1: none).

    Returns 0; before MSI-X vectors could be added one by one, a positive number says how many vectors could
    be had, and then nothing was set up.
    """
    data = struct.pack(f"={len(eventfds)}i", *eventfds)
    flags = vfio.VFIO_IRQ_SET_DATA_EVENTFD | vfio.VFIO_IRQ_SET_ACTION_TRIGGER
    return _set_irqs(device, flags, index, start, len(eventfds), data)


def device_disable_irqs(device: int, index: int) -> None:
    """Take all vectors of an index down."""
    _set_irqs(device, vfio.VFIO_IRQ_SET_DATA_NONE | vfio.VFIO_IRQ_SET_ACTION_TRIGGER, index, 0, 0)


def device_unmask_irq(device: int, index: int, start: int = 0) -> None:
    """Let an interrupt that was masked when it fired (INTx) fire again."""
    _set_irqs(device, vfio.VFIO_IRQ_SET_DATA_NONE | vfio.VFIO_IRQ_SET_ACTION_UNMASK, index, start, 1)


def device_trigger_irq(device: int, index: int, start: int = 0) -> None:
    """Signal a vector's eventfd from software, without the device."""
    _set_irqs(device, vfio.VFIO_IRQ_SET_DATA_NONE | vfio.VFIO_IRQ_SET_ACTION_TRIGGER, index, start, 1)


def device_reset(device: int) -> None:
    """Reset the function; EINVAL when it has no reset (VFIO_DEVICE_FLAGS_RESET is clear)."""
    ioctl(device, vfio.VFIO_DEVICE_RESET)


def _set_irqs(device: int, flags: int, index: int, start: int, count: int, data: bytes = b"") -> int:
    argsz = vfio.vfio_irq_set.size_of + len(data)
    request = vfio.vfio_irq_set(argsz=argsz, flags=flags, index=index, start=start, count=count)
    return ioctl(device, vfio.VFIO_DEVICE_SET_IRQS, request.pack(data))
