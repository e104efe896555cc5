"""<linux/vfio.h> under its own names: requests, flags, indices and structs (floor 1).

Numbers 112 to 121 mean different things on a device, a type1 and an sPAPR container file descriptor.
No size, offset or constant differs between architectures; the request numbers do (see ``ioctl.py``).
"""

from __future__ import annotations

from vfioctl.uapi.cstruct import CStruct
from vfioctl.uapi.ioctl import _IO, Request

VFIO_API_VERSION = 0
VFIO_TYPE = 0x3B
VFIO_BASE = 100


def _request(name: str, nr: int) -> Request:
    return Request(name, _IO(VFIO_TYPE, VFIO_BASE + nr))


# Container, any IOMMU type
VFIO_GET_API_VERSION = _request("VFIO_GET_API_VERSION", 0)
VFIO_CHECK_EXTENSION = _request("VFIO_CHECK_EXTENSION", 1)
VFIO_SET_IOMMU = _request("VFIO_SET_IOMMU", 2)

# Group
VFIO_GROUP_GET_STATUS = _request("VFIO_GROUP_GET_STATUS", 3)
VFIO_GROUP_SET_CONTAINER = _request("VFIO_GROUP_SET_CONTAINER", 4)
VFIO_GROUP_UNSET_CONTAINER = _request("VFIO_GROUP_UNSET_CONTAINER", 5)
VFIO_GROUP_GET_DEVICE_FD = _request("VFIO_GROUP_GET_DEVICE_FD", 6)

# Device
VFIO_DEVICE_GET_INFO = _request("VFIO_DEVICE_GET_INFO", 7)
VFIO_DEVICE_GET_REGION_INFO = _request("VFIO_DEVICE_GET_REGION_INFO", 8)
VFIO_DEVICE_GET_IRQ_INFO = _request("VFIO_DEVICE_GET_IRQ_INFO", 9)
VFIO_DEVICE_SET_IRQS = _request("VFIO_DEVICE_SET_IRQS", 10)
VFIO_DEVICE_RESET = _request("VFIO_DEVICE_RESET", 11)
VFIO_DEVICE_GET_PCI_HOT_RESET_INFO = _request("VFIO_DEVICE_GET_PCI_HOT_RESET_INFO", 12)
VFIO_DEVICE_PCI_HOT_RESET = _request("VFIO_DEVICE_PCI_HOT_RESET", 13)
VFIO_DEVICE_QUERY_GFX_PLANE = _request("VFIO_DEVICE_QUERY_GFX_PLANE", 14)
VFIO_DEVICE_GET_GFX_DMABUF = _request("VFIO_DEVICE_GET_GFX_DMABUF", 15)
VFIO_DEVICE_IOEVENTFD = _request("VFIO_DEVICE_IOEVENTFD", 16)
VFIO_DEVICE_FEATURE = _request("VFIO_DEVICE_FEATURE", 17)
VFIO_DEVICE_BIND_IOMMUFD = _request("VFIO_DEVICE_BIND_IOMMUFD", 18)
VFIO_DEVICE_ATTACH_IOMMUFD_PT = _request("VFIO_DEVICE_ATTACH_IOMMUFD_PT", 19)
VFIO_DEVICE_DETACH_IOMMUFD_PT = _request("VFIO_DEVICE_DETACH_IOMMUFD_PT", 20)

# Migration data
VFIO_MIG_GET_PRECOPY_INFO = _request("VFIO_MIG_GET_PRECOPY_INFO", 21)

# Container with an IOMMU
VFIO_IOMMU_GET_INFO = _request("VFIO_IOMMU_GET_INFO", 12)
VFIO_IOMMU_MAP_DMA = _request("VFIO_IOMMU_MAP_DMA", 13)
VFIO_IOMMU_UNMAP_DMA = _request("VFIO_IOMMU_UNMAP_DMA", 14)
VFIO_IOMMU_DIRTY_PAGES = _request("VFIO_IOMMU_DIRTY_PAGES", 17)
VFIO_IOMMU_ENABLE = _request("VFIO_IOMMU_ENABLE", 15)
VFIO_IOMMU_DISABLE = _request("VFIO_IOMMU_DISABLE", 16)
VFIO_IOMMU_SPAPR_TCE_GET_INFO = _request("VFIO_IOMMU_SPAPR_TCE_GET_INFO", 12)
VFIO_IOMMU_SPAPR_REGISTER_MEMORY = _request("VFIO_IOMMU_SPAPR_REGISTER_MEMORY", 17)
VFIO_IOMMU_SPAPR_UNREGISTER_MEMORY = _request("VFIO_IOMMU_SPAPR_UNREGISTER_MEMORY", 18)
VFIO_IOMMU_SPAPR_TCE_CREATE = _request("VFIO_IOMMU_SPAPR_TCE_CREATE", 19)
VFIO_IOMMU_SPAPR_TCE_REMOVE = _request("VFIO_IOMMU_SPAPR_TCE_REMOVE", 20)
VFIO_EEH_PE_OP = _request("VFIO_EEH_PE_OP", 21)

# Extensions; those ending in _IOMMU are also arguments of VFIO_SET_IOMMU
VFIO_TYPE1_IOMMU = 1
VFIO_SPAPR_TCE_IOMMU = 2
VFIO_TYPE1v2_IOMMU = 3
VFIO_DMA_CC_IOMMU = 4
VFIO_EEH = 5
VFIO_TYPE1_NESTING_IOMMU = 6
VFIO_SPAPR_TCE_v2_IOMMU = 7
VFIO_NOIOMMU_IOMMU = 8
VFIO_UNMAP_ALL = 9
VFIO_UPDATE_VADDR = 10

VFIO_GROUP_FLAGS_VIABLE = 1
VFIO_GROUP_FLAGS_CONTAINER_SET = 2

VFIO_IOMMU_INFO_PGSIZES = 1
VFIO_IOMMU_INFO_CAPS = 2
VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE = 1
VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION = 2
VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL = 3

VFIO_DMA_MAP_FLAG_READ = 1
VFIO_DMA_MAP_FLAG_WRITE = 2
VFIO_DMA_MAP_FLAG_VADDR = 4
VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP = 1
VFIO_DMA_UNMAP_FLAG_ALL = 2
VFIO_DMA_UNMAP_FLAG_VADDR = 4

VFIO_IOMMU_DIRTY_PAGES_FLAG_START = 1
VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP = 2
VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP = 4

VFIO_DEVICE_FLAGS_RESET = 0x1
VFIO_DEVICE_FLAGS_PCI = 0x2
VFIO_DEVICE_FLAGS_PLATFORM = 0x4
VFIO_DEVICE_FLAGS_AMBA = 0x8
VFIO_DEVICE_FLAGS_CCW = 0x10
VFIO_DEVICE_FLAGS_AP = 0x20
VFIO_DEVICE_FLAGS_FSL_MC = 0x40
VFIO_DEVICE_FLAGS_CAPS = 0x80
VFIO_DEVICE_FLAGS_CDX = 0x100

VFIO_REGION_INFO_FLAG_READ = 1
VFIO_REGION_INFO_FLAG_WRITE = 2
VFIO_REGION_INFO_FLAG_MMAP = 4
VFIO_REGION_INFO_FLAG_CAPS = 8
VFIO_REGION_INFO_CAP_SPARSE_MMAP = 1
VFIO_REGION_INFO_CAP_TYPE = 2
VFIO_REGION_INFO_CAP_MSIX_MAPPABLE = 3

VFIO_PCI_BAR0_REGION_INDEX = 0
VFIO_PCI_BAR1_REGION_INDEX = 1
VFIO_PCI_BAR2_REGION_INDEX = 2
VFIO_PCI_BAR3_REGION_INDEX = 3
VFIO_PCI_BAR4_REGION_INDEX = 4
VFIO_PCI_BAR5_REGION_INDEX = 5
VFIO_PCI_ROM_REGION_INDEX = 6
VFIO_PCI_CONFIG_REGION_INDEX = 7
VFIO_PCI_VGA_REGION_INDEX = 8
VFIO_PCI_NUM_REGIONS = 9

VFIO_IRQ_INFO_EVENTFD = 1
VFIO_IRQ_INFO_MASKABLE = 2
VFIO_IRQ_INFO_AUTOMASKED = 4
VFIO_IRQ_INFO_NORESIZE = 8
VFIO_IRQ_SET_DATA_NONE = 1
VFIO_IRQ_SET_DATA_BOOL = 2
VFIO_IRQ_SET_DATA_EVENTFD = 4
VFIO_IRQ_SET_ACTION_MASK = 8
VFIO_IRQ_SET_ACTION_UNMASK = 16
VFIO_IRQ_SET_ACTION_TRIGGER = 32

VFIO_PCI_INTX_IRQ_INDEX = 0
VFIO_PCI_MSI_IRQ_INDEX = 1
VFIO_PCI_MSIX_IRQ_INDEX = 2
VFIO_PCI_ERR_IRQ_INDEX = 3
VFIO_PCI_REQ_IRQ_INDEX = 4
VFIO_PCI_NUM_IRQS = 5


class vfio_info_cap_header(CStruct, format="=HHI"):
    id: int = 0
    version: int = 0
    next: int = 0


class vfio_group_status(CStruct, format="=II"):
    argsz: int = 0
    flags: int = 0


class vfio_iommu_type1_info(CStruct, format="=IIQI4x"):
    argsz: int = 0
    flags: int = 0
    iova_pgsizes: int = 0
    cap_offset: int = 0


# Structs that begin with a vfio_info_cap_header skip it (8x): whoever walks the chain has read it.
class vfio_iommu_type1_info_cap_iova_range(CStruct, format="=8xI4x"):
    """Followed by ``nr_iovas`` times ``vfio_iova_range``."""

    nr_iovas: int = 0


class vfio_iova_range(CStruct, format="=QQ"):
    """``end`` is inclusive."""

    start: int = 0
    end: int = 0


class vfio_iommu_type1_info_cap_migration(CStruct, format="=8xI4xQQ"):
    flags: int = 0
    pgsize_bitmap: int = 0
    max_dirty_bitmap_size: int = 0


class vfio_iommu_type1_info_dma_avail(CStruct, format="=8xI"):
    avail: int = 0


class vfio_iommu_type1_dma_map(CStruct, format="=IIQQQ"):
    argsz: int = 0
    flags: int = 0
    vaddr: int = 0
    iova: int = 0
    size: int = 0


class vfio_iommu_type1_dma_unmap(CStruct, format="=IIQQ"):
    argsz: int = 0
    flags: int = 0
    iova: int = 0
    size: int = 0


class vfio_iommu_type1_dirty_bitmap(CStruct, format="=II"):
    """Followed by ``vfio_iommu_type1_dirty_bitmap_get`` with GET_BITMAP."""

    argsz: int = 0
    flags: int = 0


class vfio_iommu_type1_dirty_bitmap_get(CStruct, format="=QQQQQ"):
    """The last three are its ``struct vfio_bitmap``: page size in bytes, bytes of the bitmap, its address."""

    iova: int = 0
    size: int = 0
    bitmap_pgsize: int = 0
    bitmap_size: int = 0
    bitmap_data: int = 0


class vfio_device_info(CStruct, format="=IIIII4x"):
    argsz: int = 0
    flags: int = 0
    num_regions: int = 0
    num_irqs: int = 0
    cap_offset: int = 0


class vfio_region_info(CStruct, format="=IIIIQQ"):
    argsz: int = 0
    flags: int = 0
    index: int = 0
    cap_offset: int = 0
    size: int = 0
    offset: int = 0


class vfio_region_info_cap_sparse_mmap(CStruct, format="=8xI4x"):
    """Followed by ``nr_areas`` times ``vfio_region_sparse_mmap_area``."""

    nr_areas: int = 0


class vfio_region_sparse_mmap_area(CStruct, format="=QQ"):
    offset: int = 0
    size: int = 0


class vfio_region_info_cap_type(CStruct, format="=8xII"):
    type: int = 0
    subtype: int = 0


class vfio_irq_info(CStruct, format="=IIII"):
    argsz: int = 0
    flags: int = 0
    index: int = 0
    count: int = 0


class vfio_irq_set(CStruct, format="=IIIII"):
    """Followed by ``count`` items of 0, 1 or 4 bytes, by the DATA flag."""

    argsz: int = 0
    flags: int = 0
    index: int = 0
    start: int = 0
    count: int = 0
