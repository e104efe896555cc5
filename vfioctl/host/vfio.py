"""Containers, groups and type1 mappings: a function per ioctl over a file descriptor (floor 2).

Every function raises :class:`~vfioctl.host.ioctl.CallError`, which carries the errno and the ioctl's name.
Addresses and sizes are in bytes. ``dev`` is the directory that stands for /dev.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple
from uuid import UUID

from vfioctl.host import bounded
from vfioctl.host.ioctl import CallError, ioctl, ioctl_each, open_node
from vfioctl.uapi import capability, vfio
from vfioctl.uapi.cstruct import CStruct, s32, u32
from vfioctl.uapi.ioctl import Request

#: No info struct the kernel has is near this size; a larger ``argsz`` is a broken answer.
INFO_LIMIT = 1 << 20


class GroupStatus(NamedTuple):
    """Answer of VFIO_GROUP_GET_STATUS."""

    viable: bool
    container_set: bool


class IommuInfo(NamedTuple):
    """Answer of VFIO_IOMMU_GET_INFO; None stands for what this kernel does not tell.

    ``page_sizes`` is a bitmap whose lowest bit is the granule of every mapping (0: not told); ``iova_ranges``
    are (first, last) with the last address included; ``dma_avail`` is the number of mappings still allowed.
    """

    page_sizes: int
    iova_ranges: tuple[tuple[int, int], ...] | None = None
    dma_avail: int | None = None
    dirty_page_sizes: int | None = None
    max_dirty_bitmap_size: int | None = None


def container_path(dev: str = "/dev") -> str:
    """The node that every container is opened from."""
    return os.path.join(dev, "vfio", "vfio")


def group_path(group: int | str, dev: str = "/dev") -> str:
    """The node of a group: its number, or ``noiommu-N``."""
    return os.path.join(dev, "vfio", str(group))


@contextmanager
def opened(path: str) -> Iterator[int]:
    """The descriptor of a node while the block runs."""
    fd = open_node(path)
    try:
        yield fd
    finally:
        os.close(fd)


def get_api_version(container: int) -> int:
    """The version of the interface: 0 on every kernel so far."""
    return ioctl(container, vfio.VFIO_GET_API_VERSION)


def check_extension(container: int, extension: int) -> bool:
    """Whether an extension is there. Without an IOMMU set, every loaded backend is asked."""
    return ioctl(container, vfio.VFIO_CHECK_EXTENSION, extension) > 0


def set_iommu(container: int, iommu_type: int) -> None:
    """Choose the IOMMU type and attach the container's groups to it; possible once, after a group is in."""
    ioctl(container, vfio.VFIO_SET_IOMMU, iommu_type)


def group_get_status(group: int) -> GroupStatus:
    """Whether the group is viable and in a container; changes nothing."""
    buffer = vfio.vfio_group_status().pack()
    ioctl(group, vfio.VFIO_GROUP_GET_STATUS, buffer)
    flags = vfio.vfio_group_status.unpack(buffer).flags
    return GroupStatus(
        viable=bool(flags & vfio.VFIO_GROUP_FLAGS_VIABLE),
        container_set=bool(flags & vfio.VFIO_GROUP_FLAGS_CONTAINER_SET),
    )


def group_status_of(path: str, timeout: float) -> GroupStatus:
    """The status of the group whose node is ``path``, opened for it. Opening takes a lock of the group, so a child does
    it. Raises CallError, or bounded.Expired after ``timeout`` seconds."""

    def ask() -> tuple[tuple[bool, ...], tuple[str, int, str | None] | None]:
        try:
            with opened(path) as group:
                return tuple(group_get_status(group)), None
        except CallError as error:
            return (), (error.call, error.errno or 0, error.filename)

    answer, refusal = bounded.call(ask, timeout)
    if refusal is not None:
        raise CallError(*refusal)
    return GroupStatus(*answer)


def group_set_container(group: int, container: int) -> None:
    """Put the group into the container; from 5.19 on this claims its DMA and blocks that of its devices."""
    ioctl(group, vfio.VFIO_GROUP_SET_CONTAINER, s32(value=container).pack())


def group_unset_container(group: int) -> None:
    """Take the group out; EBUSY while one of its devices is open. The last to leave drops all mappings."""
    ioctl(group, vfio.VFIO_GROUP_UNSET_CONTAINER)


def group_get_device_fd(group: int, name: str, token: UUID | None = None) -> int:
    """Open a device by its sysfs name, which **resets** it; returns a descriptor that is closed on exec.

    ``token`` is the VF token (Linux 5.7). ValueError for a name that holds a NUL.
    """
    if "\0" in name:
        raise ValueError("a device name holds no NUL")
    if token is not None:
        name += f" vf_token={token}"
    return ioctl(group, vfio.VFIO_GROUP_GET_DEVICE_FD, bytearray(os.fsencode(name) + b"\0"))


def iommu_get_info(container: int) -> IommuInfo:
    """Page sizes and, by the capability chain, IOVA ranges, entries left and dirty tracking."""
    buffer = info_buffer(container, vfio.VFIO_IOMMU_GET_INFO, vfio.vfio_iommu_type1_info())
    info = vfio.vfio_iommu_type1_info.unpack(buffer)
    page_sizes = info.iova_pgsizes if info.flags & vfio.VFIO_IOMMU_INFO_PGSIZES else 0
    if not info.flags & vfio.VFIO_IOMMU_INFO_CAPS:
        return IommuInfo(page_sizes)
    return _with_capabilities(IommuInfo(page_sizes), buffer, info.cap_offset)


def iommu_map_dma(container: int, vaddr: int, iova: int, size: int, flags: int) -> None:
    """Pin ``size`` bytes at ``vaddr`` and let the devices reach them at ``iova``.

    ``flags`` are VFIO_DMA_MAP_FLAG_*, as the device sees it. The kernel blocks until all pages are pinned.
    """
    buffer = vfio.vfio_iommu_type1_dma_map(flags=flags, vaddr=vaddr, iova=iova, size=size).pack()
    ioctl(container, vfio.VFIO_IOMMU_MAP_DMA, buffer)


def iommu_unmap_dma(container: int, iova: int, size: int, flags: int = 0) -> int:
    """Unmap the mappings inside a range; returns the bytes unmapped, 0 when nothing was there.

    With VFIO_DMA_UNMAP_FLAG_ALL (5.12), ``iova`` and ``size`` are 0 and everything goes. type1v2 refuses a
    range that cuts a mapping (EINVAL); type1 unmaps the whole mapping or, silently, nothing.
    """
    buffer = vfio.vfio_iommu_type1_dma_unmap(flags=flags, iova=iova, size=size).pack()
    ioctl(container, vfio.VFIO_IOMMU_UNMAP_DMA, buffer)
    return vfio.vfio_iommu_type1_dma_unmap.unpack(buffer).size


def iommu_unmap_all(container: int) -> int:
    """Unmap everything, where VFIO_UNMAP_ALL is an extension (5.12); returns the bytes."""
    return iommu_unmap_dma(container, 0, 0, vfio.VFIO_DMA_UNMAP_FLAG_ALL)


def iommu_map_dma_each(container: int, mappings: Iterable[tuple[int, int, int]], flags: int) -> None:
    """Map each (vaddr, iova, size) in turn. Raises :class:`~vfioctl.host.ioctl.Refused` with the one that fails; those
    before it stand."""
    buffer = vfio.vfio_iommu_type1_dma_map(flags=flags).pack()
    # argsz and flags, vaddr, iova, size
    ioctl_each(container, vfio.VFIO_IOMMU_MAP_DMA, buffer, (1, 2, 3), mappings)


def info_buffer(fd: int, request: Request, question: CStruct) -> bytearray:
    """Ask with the fixed part and again with as many bytes as the kernel says its answer takes."""
    buffer = question.pack()
    while True:
        ioctl(fd, request, buffer)
        needed = u32.unpack(buffer).value
        if not len(buffer) < needed <= INFO_LIMIT:
            return buffer
        # A group added meanwhile may make the answer grow once more, hence the loop.
        buffer = question.pack(bytes(needed - question.size_of))
        buffer[: u32.size_of] = u32(value=needed).pack()


def _with_capabilities(info: IommuInfo, buffer: bytearray, cap_offset: int) -> IommuInfo:
    cap_range, cap_avail, cap_migration = (
        vfio.vfio_iommu_type1_info_cap_iova_range,
        vfio.vfio_iommu_type1_info_dma_avail,
        vfio.vfio_iommu_type1_info_cap_migration,
    )
    data = capability.find(buffer, cap_offset, vfio.VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE, cap_range)
    if data is not None:
        count = cap_range.unpack(data).nr_iovas
        found = capability.items(data, cap_range.size_of, vfio.vfio_iova_range, count)
        info = info._replace(iova_ranges=tuple((item.start, item.end) for item in found))
    data = capability.find(buffer, cap_offset, vfio.VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL, cap_avail)
    if data is not None:
        info = info._replace(dma_avail=cap_avail.unpack(data).avail)
    data = capability.find(buffer, cap_offset, vfio.VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION, cap_migration)
    if data is not None:
        dirty = cap_migration.unpack(data)
        info = info._replace(
            dirty_page_sizes=dirty.pgsize_bitmap, max_dirty_bitmap_size=dirty.max_dirty_bitmap_size
        )
    return info
