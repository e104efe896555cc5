"""iommufd (/dev/iommu): address spaces, mappings and hardware page tables; a function per ioctl (floor 2).

Every function raises :class:`~vfioctl.host.ioctl.CallError`. ``iommufd`` is the descriptor, an id a small integer of
it: of an IOAS (address space), a HWPT (hardware page table) or a bound device. Addresses and sizes are in bytes.
"""

from __future__ import annotations

import errno
import os
from array import array
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from vfioctl.host.ioctl import CallError, ioctl, ioctl_each
from vfioctl.uapi import iommufd as uapi

#: No IOMMU has as many holes; a longer list is a broken answer.
_RANGES_LIMIT = 1 << 16


class IovaRanges(NamedTuple):
    """Answer of IOMMU_IOAS_IOVA_RANGES: (first, last) with the last address included, and the alignment of mappings."""

    ranges: tuple[tuple[int, int], ...]
    alignment: int


def iommufd_path(dev: str = "/dev") -> str:
    """The node that every iommufd is opened from."""
    return os.path.join(dev, "iommu")


def destroy(iommufd: int, id: int) -> None:
    """Destroy an IOAS or a HWPT; EBUSY while something uses it."""
    ioctl(iommufd, uapi.IOMMU_DESTROY, uapi.iommu_destroy(id=id).pack())


def ioas_alloc(iommufd: int) -> int:
    """Make an address space; returns its id."""
    buffer = uapi.iommu_ioas_alloc().pack()
    ioctl(iommufd, uapi.IOMMU_IOAS_ALLOC, buffer)
    return uapi.iommu_ioas_alloc.unpack(buffer).out_ioas_id


def ioas_iova_ranges(iommufd: int, ioas: int) -> IovaRanges:
    """Where can be mapped: everything, until a device is attached."""
    room = 64
    while True:
        # The number that comes with EMSGSIZE is not looked at: whether fcntl.ioctl hands it on differs between Pythons.
        pairs = array("Q", bytes(16 * room))
        address, _ = pairs.buffer_info()
        buffer = uapi.iommu_ioas_iova_ranges(ioas_id=ioas, num_iovas=room, allowed_iovas=address).pack()
        try:
            ioctl(iommufd, uapi.IOMMU_IOAS_IOVA_RANGES, buffer)
            break
        except CallError as error:
            if error.errno != errno.EMSGSIZE or room >= _RANGES_LIMIT:
                raise
        room *= 8
    info = uapi.iommu_ioas_iova_ranges.unpack(buffer)
    found = pairs[: 2 * info.num_iovas]
    return IovaRanges(tuple(zip(found[::2], found[1::2], strict=True)), info.out_iova_alignment)


def ioas_allow_iovas(iommufd: int, ioas: int, ranges: Sequence[tuple[int, int]]) -> None:
    """Promise to map in these (first, last) only; a device that needs a hole there is then not attached. No range:
    anywhere, as at first."""
    pairs = array("Q", (address for pair in ranges for address in pair))
    address, _ = pairs.buffer_info()
    question = uapi.iommu_ioas_allow_iovas(ioas_id=ioas, num_iovas=len(ranges), allowed_iovas=address)
    ioctl(iommufd, uapi.IOMMU_IOAS_ALLOW_IOVAS, question.pack())


def ioas_map(iommufd: int, ioas: int, vaddr: int, size: int, flags: int, iova: int | None = None) -> int:
    """Let the devices of an IOAS reach ``size`` bytes at ``vaddr``; returns where, which is ``iova`` unless None.

    ``flags`` are IOMMU_IOAS_MAP_READABLE and _WRITEABLE, as the device sees it. Pages are pinned now if a device is
    attached, and otherwise when one is.
    """
    question = uapi.iommu_ioas_map(
        flags=flags | _fixed(iova), ioas_id=ioas, user_va=vaddr, length=size, iova=iova or 0
    )
    buffer = question.pack()
    ioctl(iommufd, uapi.IOMMU_IOAS_MAP, buffer)
    return uapi.iommu_ioas_map.unpack(buffer).iova


def ioas_map_each(iommufd: int, ioas: int, mappings: Iterable[tuple[int, int, int]], flags: int) -> None:
    """Map each (vaddr, iova, size) in turn. Raises :class:`~vfioctl.host.ioctl.Refused` with the one that fails; those
    before it stand."""
    flags |= uapi.IOMMU_IOAS_MAP_FIXED_IOVA
    buffer = uapi.iommu_ioas_map(flags=flags, ioas_id=ioas).pack()
    # size and flags, ioas_id, user_va, length, iova
    ioctl_each(iommufd, uapi.IOMMU_IOAS_MAP, buffer, (2, 4, 3), mappings)


def ioas_map_file(
    iommufd: int, ioas: int, fd: int, start: int, size: int, flags: int, iova: int | None = None
) -> int:
    """As :func:`ioas_map`, of ``size`` bytes from ``start`` on in a memfd or a dma-buf (Linux 6.13)."""
    question = uapi.iommu_ioas_map_file(
        flags=flags | _fixed(iova), ioas_id=ioas, fd=fd, start=start, length=size, iova=iova or 0
    )
    buffer = question.pack()
    ioctl(iommufd, uapi.IOMMU_IOAS_MAP_FILE, buffer)
    return uapi.iommu_ioas_map_file.unpack(buffer).iova


def ioas_copy(
    iommufd: int, source: int, source_iova: int, size: int, target: int, flags: int, iova: int | None = None
) -> int:
    """Map in the IOAS ``target`` what ``source`` has mapped in a range, without charging it twice; returns where."""
    question = uapi.iommu_ioas_copy(
        flags=flags | _fixed(iova),
        dst_ioas_id=target,
        src_ioas_id=source,
        length=size,
        dst_iova=iova or 0,
        src_iova=source_iova,
    )
    buffer = question.pack()
    ioctl(iommufd, uapi.IOMMU_IOAS_COPY, buffer)
    return uapi.iommu_ioas_copy.unpack(buffer).dst_iova


def ioas_unmap(iommufd: int, ioas: int, iova: int, size: int) -> int:
    """Unmap the mappings of a range; returns the bytes. ENOENT when nothing is there, or when it would cut one."""
    buffer = uapi.iommu_ioas_unmap(ioas_id=ioas, iova=iova, length=size).pack()
    ioctl(iommufd, uapi.IOMMU_IOAS_UNMAP, buffer)
    return uapi.iommu_ioas_unmap.unpack(buffer).length


def ioas_unmap_all(iommufd: int, ioas: int) -> int:
    """Unmap everything; returns the bytes, 0 when nothing was there."""
    return ioas_unmap(iommufd, ioas, 0, 2**64 - 1)


def ioas_change_process(iommufd: int) -> None:
    """Charge all mappings to the calling process from now on (Linux 6.13; those of files only)."""
    ioctl(iommufd, uapi.IOMMU_IOAS_CHANGE_PROCESS, uapi.iommu_ioas_change_process().pack())


def option_get(iommufd: int, option: int, object: int = 0) -> int:
    """An IOMMU_OPTION_*; ``object`` is the IOAS, where the option is of one."""
    question = uapi.iommu_option(option_id=option, op=uapi.IOMMU_OPTION_OP_GET, object_id=object)
    buffer = question.pack()
    ioctl(iommufd, uapi.IOMMU_OPTION, buffer)
    return uapi.iommu_option.unpack(buffer).val64


def option_set(iommufd: int, option: int, value: int, object: int = 0) -> None:
    """Set an IOMMU_OPTION_*: RLIMIT_MODE (1: memory is charged per process, as type1 does; before anything is made),
    HUGE_PAGES of an IOAS (0: pages of the CPU's size only)."""
    question = uapi.iommu_option(option_id=option, op=uapi.IOMMU_OPTION_OP_SET, object_id=object, val64=value)
    ioctl(iommufd, uapi.IOMMU_OPTION, question.pack())


def vfio_ioas_get(iommufd: int) -> int:
    """The IOAS that the container ioctls on this descriptor use; ENODEV when there is none."""
    buffer = uapi.iommu_vfio_ioas(op=uapi.IOMMU_VFIO_IOAS_GET).pack()
    ioctl(iommufd, uapi.IOMMU_VFIO_IOAS, buffer)
    return uapi.iommu_vfio_ioas.unpack(buffer).ioas_id


def vfio_ioas_set(iommufd: int, ioas: int) -> None:
    """Let the container ioctls on this descriptor use an IOAS."""
    question = uapi.iommu_vfio_ioas(ioas_id=ioas, op=uapi.IOMMU_VFIO_IOAS_SET)
    ioctl(iommufd, uapi.IOMMU_VFIO_IOAS, question.pack())


def vfio_ioas_clear(iommufd: int) -> None:
    """Let the container ioctls on this descriptor have no IOAS."""
    ioctl(iommufd, uapi.IOMMU_VFIO_IOAS, uapi.iommu_vfio_ioas(op=uapi.IOMMU_VFIO_IOAS_CLEAR).pack())


def _fixed(iova: int | None) -> int:
    return 0 if iova is None else uapi.IOMMU_IOAS_MAP_FIXED_IOVA
