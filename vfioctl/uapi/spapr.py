"""sPAPR TCE windows and EEH of <linux/vfio.h> under their own names: flags and structs (floor 1).

The request numbers are in ``vfio.py``. A TCE (translation control entry) is the page table entry of a POWER IOMMU.
"""

from __future__ import annotations

from vfioctl.uapi.cstruct import CStruct

VFIO_IOMMU_SPAPR_INFO_DDW = 1

VFIO_EEH_PE_DISABLE = 0
VFIO_EEH_PE_ENABLE = 1
VFIO_EEH_PE_UNFREEZE_IO = 2
VFIO_EEH_PE_UNFREEZE_DMA = 3
VFIO_EEH_PE_GET_STATE = 4
VFIO_EEH_PE_RESET_DEACTIVATE = 5
VFIO_EEH_PE_RESET_HOT = 6
VFIO_EEH_PE_RESET_FUNDAMENTAL = 7
VFIO_EEH_PE_CONFIGURE = 8
VFIO_EEH_PE_INJECT_ERR = 9

VFIO_EEH_PE_STATE_NORMAL = 0
VFIO_EEH_PE_STATE_RESET = 1
VFIO_EEH_PE_STATE_STOPPED = 2
VFIO_EEH_PE_STATE_STOPPED_DMA = 4
VFIO_EEH_PE_STATE_UNAVAIL = 5

EEH_ERR_TYPE_32 = 0
EEH_ERR_TYPE_64 = 1

#: EEH_ERR_FUNC_* of <asm/eeh.h>, whose numbers are their places here.
EEH_ERR_FUNC = (
    *("LD_MEM_ADDR", "LD_MEM_DATA", "LD_IO_ADDR", "LD_IO_DATA", "LD_CFG_ADDR", "LD_CFG_DATA"),
    *("ST_MEM_ADDR", "ST_MEM_DATA", "ST_IO_ADDR", "ST_IO_DATA", "ST_CFG_ADDR", "ST_CFG_DATA"),
    *("DMA_RD_ADDR", "DMA_RD_DATA", "DMA_RD_MASTER", "DMA_RD_TARGET"),
    *("DMA_WR_ADDR", "DMA_WR_DATA", "DMA_WR_MASTER", "DMA_WR_TARGET"),
)


class vfio_iommu_spapr_tce_info(CStruct, format="=IIIIQII"):
    """The last three are its ``ddw`` (dynamic DMA windows), which a kernel before 4.2 does not fill."""

    argsz: int = 0
    flags: int = 0
    dma32_window_start: int = 0
    dma32_window_size: int = 0
    ddw_pgsizes: int = 0
    ddw_max_dynamic_windows_supported: int = 0
    ddw_levels: int = 0


class vfio_iommu_spapr_register_memory(CStruct, format="=IIQQ"):
    argsz: int = 0
    flags: int = 0
    vaddr: int = 0
    size: int = 0


class vfio_iommu_spapr_tce_create(CStruct, format="=III4xQI4xQ"):
    argsz: int = 0
    flags: int = 0
    page_shift: int = 0
    window_size: int = 0
    levels: int = 0
    start_addr: int = 0


class vfio_iommu_spapr_tce_remove(CStruct, format="=IIQ"):
    argsz: int = 0
    flags: int = 0
    start_addr: int = 0


class vfio_eeh_pe_op(CStruct, format="=III4xIIQQ"):
    """12 bytes do but for INJECT_ERR, which came with Linux 4.2 and reads the last four: the struct's ``err``."""

    argsz: int = 0
    flags: int = 0
    op: int = 0
    err_type: int = 0
    err_func: int = 0
    err_addr: int = 0
    err_mask: int = 0
