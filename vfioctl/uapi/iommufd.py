"""<linux/iommufd.h> under its own names: requests, flags and the structs that administration needs (floor 1).

A struct states its size first; a kernel that knows a longer one takes it, one that knows a shorter one takes it
as long as what it does not know is 0. A struct that has grown is declared as its first release had it, where that
has all that is needed. Nested translation (HWPT_INVALIDATE, FAULT_QUEUE, VIOMMU and what belongs to it) is for
virtual machine monitors: requests only.
"""

from __future__ import annotations

from vfioctl.uapi.cstruct import CStruct
from vfioctl.uapi.ioctl import _IO, Request

IOMMUFD_TYPE = 0x3B
IOMMUFD_CMD_BASE = 0x80


def _request(name: str, nr: int) -> Request:
    return Request(name, _IO(IOMMUFD_TYPE, IOMMUFD_CMD_BASE + nr))


IOMMU_DESTROY = _request("IOMMU_DESTROY", 0)
IOMMU_IOAS_ALLOC = _request("IOMMU_IOAS_ALLOC", 1)
IOMMU_IOAS_ALLOW_IOVAS = _request("IOMMU_IOAS_ALLOW_IOVAS", 2)
IOMMU_IOAS_COPY = _request("IOMMU_IOAS_COPY", 3)
IOMMU_IOAS_IOVA_RANGES = _request("IOMMU_IOAS_IOVA_RANGES", 4)
IOMMU_IOAS_MAP = _request("IOMMU_IOAS_MAP", 5)
IOMMU_IOAS_UNMAP = _request("IOMMU_IOAS_UNMAP", 6)
IOMMU_OPTION = _request("IOMMU_OPTION", 7)
IOMMU_VFIO_IOAS = _request("IOMMU_VFIO_IOAS", 8)
IOMMU_HWPT_ALLOC = _request("IOMMU_HWPT_ALLOC", 9)
IOMMU_GET_HW_INFO = _request("IOMMU_GET_HW_INFO", 10)
IOMMU_HWPT_SET_DIRTY_TRACKING = _request("IOMMU_HWPT_SET_DIRTY_TRACKING", 11)
IOMMU_HWPT_GET_DIRTY_BITMAP = _request("IOMMU_HWPT_GET_DIRTY_BITMAP", 12)
IOMMU_HWPT_INVALIDATE = _request("IOMMU_HWPT_INVALIDATE", 13)
IOMMU_FAULT_QUEUE_ALLOC = _request("IOMMU_FAULT_QUEUE_ALLOC", 14)
IOMMU_IOAS_MAP_FILE = _request("IOMMU_IOAS_MAP_FILE", 15)
IOMMU_VIOMMU_ALLOC = _request("IOMMU_VIOMMU_ALLOC", 16)
IOMMU_VDEVICE_ALLOC = _request("IOMMU_VDEVICE_ALLOC", 17)
IOMMU_IOAS_CHANGE_PROCESS = _request("IOMMU_IOAS_CHANGE_PROCESS", 18)
IOMMU_VEVENTQ_ALLOC = _request("IOMMU_VEVENTQ_ALLOC", 19)
IOMMU_HW_QUEUE_ALLOC = _request("IOMMU_HW_QUEUE_ALLOC", 20)
IOMMU_IOAS_NOIOMMU_GET_PA = _request("IOMMU_IOAS_NOIOMMU_GET_PA", 21)

IOMMU_IOAS_MAP_FIXED_IOVA = 1
IOMMU_IOAS_MAP_WRITEABLE = 2
IOMMU_IOAS_MAP_READABLE = 4

IOMMU_OPTION_RLIMIT_MODE = 0
IOMMU_OPTION_HUGE_PAGES = 1
IOMMU_OPTION_OP_SET = 0
IOMMU_OPTION_OP_GET = 1

IOMMU_VFIO_IOAS_GET = 0
IOMMU_VFIO_IOAS_SET = 1
IOMMU_VFIO_IOAS_CLEAR = 2

IOMMU_HW_INFO_TYPE_NONE = 0
IOMMU_HW_INFO_TYPE_INTEL_VTD = 1
IOMMU_HW_INFO_TYPE_ARM_SMMUV3 = 2
IOMMU_HW_INFO_TYPE_TEGRA241_CMDQV = 3
IOMMU_HW_INFO_TYPE_AMD = 4
IOMMU_HW_CAP_DIRTY_TRACKING = 1
IOMMU_HW_CAP_PCI_PASID_EXEC = 2
IOMMU_HW_CAP_PCI_PASID_PRIV = 4
IOMMU_HW_CAP_PCI_ATS_NOT_SUPPORTED = 8

IOMMU_HWPT_ALLOC_NEST_PARENT = 1
IOMMU_HWPT_ALLOC_DIRTY_TRACKING = 2
IOMMU_HWPT_FAULT_ID_VALID = 4
IOMMU_HWPT_ALLOC_PASID = 8
IOMMU_HWPT_DIRTY_TRACKING_ENABLE = 1
IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR = 1


class Command(CStruct, format="="):
    """A struct of iommufd; what it states of its own size is ``size``."""

    size_field = "size"


class iommu_destroy(Command, format="=II"):
    size: int = 0
    id: int = 0


class iommu_ioas_alloc(Command, format="=III"):
    size: int = 0
    flags: int = 0
    out_ioas_id: int = 0


class iommu_iova_range(CStruct, format="=QQ"):
    """``last`` is inclusive."""

    start: int = 0
    last: int = 0


class iommu_ioas_iova_ranges(Command, format="=III4xQQ"):
    size: int = 0
    ioas_id: int = 0
    num_iovas: int = 0
    allowed_iovas: int = 0
    out_iova_alignment: int = 0


class iommu_ioas_allow_iovas(Command, format="=III4xQ"):
    size: int = 0
    ioas_id: int = 0
    num_iovas: int = 0
    allowed_iovas: int = 0


class iommu_ioas_map(Command, format="=III4xQQQ"):
    size: int = 0
    flags: int = 0
    ioas_id: int = 0
    user_va: int = 0
    length: int = 0
    iova: int = 0


class iommu_ioas_map_file(Command, format="=IIIiQQQ"):
    size: int = 0
    flags: int = 0
    ioas_id: int = 0
    fd: int = 0
    start: int = 0
    length: int = 0
    iova: int = 0


class iommu_ioas_copy(Command, format="=IIIIQQQ"):
    size: int = 0
    flags: int = 0
    dst_ioas_id: int = 0
    src_ioas_id: int = 0
    length: int = 0
    dst_iova: int = 0
    src_iova: int = 0


class iommu_ioas_unmap(Command, format="=IIQQ"):
    size: int = 0
    ioas_id: int = 0
    iova: int = 0
    length: int = 0


class iommu_option(Command, format="=IIH2xIQ"):
    size: int = 0
    option_id: int = 0
    op: int = 0
    object_id: int = 0
    val64: int = 0


class iommu_vfio_ioas(Command, format="=IIH2x"):
    size: int = 0
    ioas_id: int = 0
    op: int = 0


class iommu_hw_info(Command, format="=IIIIQIB3xQ"):
    """``out_max_pasid_log2`` is 0 before Linux 6.12; ``out_capabilities`` before 6.8, which has 32 bytes only."""

    size: int = 0
    flags: int = 0
    dev_id: int = 0
    data_len: int = 0
    data_uptr: int = 0
    out_data_type: int = 0
    out_max_pasid_log2: int = 0
    out_capabilities: int = 0


class iommu_hw_info_vtd(CStruct, format="=I4xQQ"):
    flags: int = 0
    cap_reg: int = 0
    ecap_reg: int = 0


class iommu_hw_info_arm_smmuv3(CStruct, format="=I4xIIIIIIII"):
    """``idr0`` to ``idr5`` are the array ``idr``."""

    flags: int = 0
    idr0: int = 0
    idr1: int = 0
    idr2: int = 0
    idr3: int = 0
    idr4: int = 0
    idr5: int = 0
    iidr: int = 0
    aidr: int = 0


class iommu_hw_info_tegra241_cmdqv(CStruct, format="=IBBBx"):
    flags: int = 0
    version: int = 0
    log2vcmdqs: int = 0
    log2vsids: int = 0


class iommu_hw_info_amd(CStruct, format="=QQ"):
    efr: int = 0
    efr2: int = 0


class iommu_hwpt_alloc(Command, format="=IIIII4x"):
    """The 24 bytes of Linux 6.6, without the data that a nested table takes."""

    size: int = 0
    flags: int = 0
    dev_id: int = 0
    pt_id: int = 0
    out_hwpt_id: int = 0


class iommu_hwpt_set_dirty_tracking(Command, format="=III4x"):
    size: int = 0
    flags: int = 0
    hwpt_id: int = 0


class iommu_hwpt_get_dirty_bitmap(Command, format="=III4xQQQQ"):
    size: int = 0
    hwpt_id: int = 0
    flags: int = 0
    iova: int = 0
    length: int = 0
    page_size: int = 0
    data: int = 0


class iommu_ioas_change_process(Command, format="=I4x"):
    size: int = 0
