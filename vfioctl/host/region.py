"""The bytes of a device's regions: by mmap where the kernel lets that be, else by pread and pwrite (floor 2).

An access of a width is one access of that width, and its bytes are those that the device sees: values are for the
caller to make of them, little-endian for all that PCI defines. In a part that cannot be mapped (configuration space,
I/O ports, ROM, VGA, what surrounds an MSI-X table on kernels that do not let it be mapped) the kernel makes the access:
there 8 bytes may be two accesses of 4.

Memory that is mapped while the device's memory decoding is off kills the process that touches it (SIGBUS): call these
in a child process (host.bounded), which a read that does not come back needs as well.
"""

from __future__ import annotations

import errno
import mmap
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vfioctl.host.ioctl import CallError
from vfioctl.host.vfio_device import RegionInfo
from vfioctl.uapi import vfio

#: Bytes of an access, and the format of one such item in a memoryview.
WIDTHS = {1: "B", 2: "H", 4: "I", 8: "Q"}

#: Bytes that the kernel is asked for in one pread.
STEP = 1 << 16


def mappable(region: RegionInfo, offset: int, size: int) -> bool:
    """Whether ``size`` bytes from ``offset`` on may be mapped: they lie in one of the areas that the kernel names."""
    if not region.flags & vfio.VFIO_REGION_INFO_FLAG_MMAP:
        return False
    areas = ((0, region.size),) if region.areas is None else region.areas
    start = offset - offset % mmap.PAGESIZE
    end = _page_end(offset + size)
    return any(first <= start and end <= _page_end(first + length) for first, length in areas)


def read(device: int, region: RegionInfo, offset: int, width: int, count: int = 1) -> bytes:
    """``count`` accesses of ``width`` bytes from ``offset`` on; the offset is a multiple of the width, and all lies in
    the region. Raises :class:`CallError` ("mmap", "pread")."""
    if mappable(region, offset, width * count):
        with _mapped(device, region, offset, width * count, width, mmap.PROT_READ) as view:
            # tolist() loads item by item; copying the bytes would use whatever widths are fastest.
            return b"".join(value.to_bytes(width, sys.byteorder) for value in view.tolist())
    return b"".join(_pread(device, width, region.offset + offset + width * index) for index in range(count))


def copy(device: int, region: RegionInfo, offset: int, size: int) -> bytes:
    """``size`` bytes from ``offset`` on by whatever accesses are fast: of 4 bytes where they are this process's own.
    Raises :class:`CallError` ("mmap", "pread")."""
    if mappable(region, offset, size):
        whole = size - size % 4 if offset % 4 == 0 else 0
        parts = ((offset, 4, whole // 4), (offset + whole, 1, size - whole))
        return b"".join(read(device, region, *part) for part in parts if part[2])
    data = b""
    while len(data) < size:
        data += _pread(device, min(size - len(data), STEP), region.offset + offset + len(data))
    return data


def write(device: int, region: RegionInfo, offset: int, width: int, data: bytes) -> None:
    """Store ``data`` from ``offset`` on by accesses of ``width`` bytes. Raises :class:`CallError` ("mmap",
    "pwrite")."""
    if mappable(region, offset, len(data)):
        with _mapped(device, region, offset, len(data), width, mmap.PROT_WRITE) as view:
            for index, value in enumerate(_items(data, width)):
                view[index] = value
        return
    for start in range(0, len(data), width):
        _pwrite(device, data[start : start + width], region.offset + offset + start)


@contextmanager
def _mapped(
    device: int, region: RegionInfo, offset: int, size: int, width: int, protection: int
) -> Iterator[memoryview[int]]:
    """The bytes as items of ``width`` bytes, while the block runs."""
    before = offset % mmap.PAGESIZE
    length = _page_end(before + size)
    try:
        mapping = mmap.mmap(
            device, length, mmap.MAP_SHARED, protection, offset=region.offset + offset - before
        )
    except OSError as error:
        raise CallError("mmap", error.errno or 0) from error
    item: Any = WIDTHS[width]
    with (
        mapping,
        memoryview(mapping) as whole,
        whole[before : before + size] as part,
        part.cast(item) as view,
    ):
        yield view


def _items(data: bytes, width: int) -> list[int]:
    return [int.from_bytes(data[i : i + width], sys.byteorder) for i in range(0, len(data), width)]


def _page_end(size: int) -> int:
    return -(-size // mmap.PAGESIZE) * mmap.PAGESIZE


def _pread(device: int, width: int, position: int) -> bytes:
    try:
        data = os.pread(device, width, position)
    except OSError as error:
        raise CallError("pread", error.errno or 0) from error
    if len(data) != width:
        raise CallError("pread", errno.EIO)
    return data


def _pwrite(device: int, data: bytes, position: int) -> None:
    try:
        done = os.pwrite(device, data, position)
    except OSError as error:
        raise CallError("pwrite", error.errno or 0) from error
    if done != len(data):
        raise CallError("pwrite", errno.EIO)
