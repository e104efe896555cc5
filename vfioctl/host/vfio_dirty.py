"""Dirty page tracking of a type1 container: a function per operation of VFIO_IOMMU_DIRTY_PAGES (floor 2).

Linux 5.8 and later, type1v2 only (EACCES with type1). Every function raises :class:`~vfioctl.host.ioctl.CallError`.
"""

from __future__ import annotations

from vfioctl.host.bitmap import Bitmap
from vfioctl.host.ioctl import ioctl
from vfioctl.uapi import vfio
from vfioctl.uapi.vfio import vfio_iommu_type1_dirty_bitmap, vfio_iommu_type1_dirty_bitmap_get


def iommu_dirty_pages_start(container: int) -> None:
    """Begin to note which pages devices may have written; what is mapped already counts as written."""
    _dirty_pages(container, vfio.VFIO_IOMMU_DIRTY_PAGES_FLAG_START)


def iommu_dirty_pages_stop(container: int) -> None:
    """End it, and forget what was noted."""
    _dirty_pages(container, vfio.VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP)


def iommu_dirty_pages_get(container: int, iova: int, size: int, page_size: int) -> bytes:
    """The pages of a range that were written since they were asked for last: page n is bit n % 8 of byte n // 8.

    ``page_size`` is the smallest that the IOMMU has (``IommuInfo.dirty_page_sizes``); the range holds whole mappings.
    """
    bitmap = Bitmap(size, page_size)
    wanted = vfio_iommu_type1_dirty_bitmap_get(
        iova=iova,
        size=size,
        bitmap_pgsize=page_size,
        bitmap_size=bitmap.size,
        bitmap_data=bitmap.address,
    )
    _dirty_pages(container, vfio.VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP, wanted.pack())
    return bitmap.read()


def _dirty_pages(container: int, flags: int, tail: bytes | bytearray = b"") -> None:
    argsz = vfio_iommu_type1_dirty_bitmap.size_of + len(tail)
    ioctl(
        container,
        vfio.VFIO_IOMMU_DIRTY_PAGES,
        vfio_iommu_type1_dirty_bitmap(argsz=argsz, flags=flags).pack(tail),
    )
