"""The hardware behind an iommufd: what the IOMMU of a device is, its page tables and dirty tracking (floor 2).

Every function raises :class:`~vfioctl.host.ioctl.CallError`. Linux 6.6 and later; dirty tracking 6.7.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from typing import NamedTuple

from vfioctl.host.bitmap import Bitmap
from vfioctl.host.ioctl import ioctl
from vfioctl.uapi import iommufd as uapi
from vfioctl.uapi.cstruct import CStruct

#: What follows the answer of IOMMU_GET_HW_INFO, by its type.
_REGISTERS: dict[int, type[CStruct]] = {
    uapi.IOMMU_HW_INFO_TYPE_INTEL_VTD: uapi.iommu_hw_info_vtd,
    uapi.IOMMU_HW_INFO_TYPE_ARM_SMMUV3: uapi.iommu_hw_info_arm_smmuv3,
    uapi.IOMMU_HW_INFO_TYPE_TEGRA241_CMDQV: uapi.iommu_hw_info_tegra241_cmdqv,
    uapi.IOMMU_HW_INFO_TYPE_AMD: uapi.iommu_hw_info_amd,
}
_DATA_SIZE = 256


class HwInfo(NamedTuple):
    """Answer of IOMMU_GET_HW_INFO: ``type`` is IOMMU_HW_INFO_TYPE_*, ``capabilities`` IOMMU_HW_CAP_*; ``registers``
    are the IOMMU's, by the C names, none for a type that says nothing. PASIDs have ``max_pasid_log2`` bits, 0: none."""

    type: int
    capabilities: int
    max_pasid_log2: int
    registers: Mapping[str, int]


def get_hw_info(iommufd: int, device: int) -> HwInfo:
    """What the IOMMU of a bound device is."""
    data = array("B", bytes(_DATA_SIZE))
    address, _ = data.buffer_info()
    buffer = uapi.iommu_hw_info(dev_id=device, data_len=len(data), data_uptr=address).pack()
    ioctl(iommufd, uapi.IOMMU_GET_HW_INFO, buffer)
    info = uapi.iommu_hw_info.unpack(buffer)
    kind = _REGISTERS.get(info.out_data_type)
    known = kind is not None and kind.size_of <= info.data_len
    return HwInfo(
        info.out_data_type,
        info.out_capabilities,
        info.out_max_pasid_log2,
        kind.unpack(data.tobytes()).values() if kind is not None and known else {},
    )


def hwpt_alloc(iommufd: int, device: int, pt_id: int, flags: int = 0) -> int:
    """Make a hardware page table of an IOAS that suits a device; returns its id, to attach to.

    ``flags`` are IOMMU_HWPT_ALLOC_*: DIRTY_TRACKING where the capabilities have it.
    """
    buffer = uapi.iommu_hwpt_alloc(flags=flags, dev_id=device, pt_id=pt_id).pack()
    ioctl(iommufd, uapi.IOMMU_HWPT_ALLOC, buffer)
    return uapi.iommu_hwpt_alloc.unpack(buffer).out_hwpt_id


def hwpt_set_dirty_tracking(iommufd: int, hwpt: int, on: bool) -> None:
    """Begin or end to note which pages devices have written; the HWPT was made for that."""
    flags = uapi.IOMMU_HWPT_DIRTY_TRACKING_ENABLE if on else 0
    question = uapi.iommu_hwpt_set_dirty_tracking(flags=flags, hwpt_id=hwpt)
    ioctl(iommufd, uapi.IOMMU_HWPT_SET_DIRTY_TRACKING, question.pack())


def hwpt_get_dirty_bitmap(
    iommufd: int, hwpt: int, iova: int, size: int, page_size: int, clear: bool = True
) -> bytes:
    """The pages of a range that were written since they were cleared last: page n is bit n % 8 of byte n // 8."""
    bitmap = Bitmap(size, page_size)
    question = uapi.iommu_hwpt_get_dirty_bitmap(
        hwpt_id=hwpt,
        flags=0 if clear else uapi.IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR,
        iova=iova,
        length=size,
        page_size=page_size,
        data=bitmap.address,
    )
    ioctl(iommufd, uapi.IOMMU_HWPT_GET_DIRTY_BITMAP, question.pack())
    return bitmap.read()
