"""sPAPR TCE containers of POWER, and EEH: a function per ioctl (floor 2).

Every function raises :class:`~vfioctl.host.ioctl.CallError`. Addresses and sizes are in bytes. Mapping and unmapping
inside a window are those of ``host/vfio.py``; here a mapping over another one replaces it silently.
Source: drivers/vfio/vfio_iommu_spapr_tce.c, drivers/vfio/vfio_spapr_eeh.c.
"""

from __future__ import annotations

from typing import NamedTuple

from vfioctl.host.ioctl import ioctl
from vfioctl.uapi import spapr, vfio


class DynamicWindows(NamedTuple):
    """What windows VFIO_IOMMU_SPAPR_TCE_CREATE can make: page sizes as a bitmap of shifts, how many windows in all,
    and up to how many levels a table may have."""

    page_sizes: int
    windows: int
    levels: int


class TceInfo(NamedTuple):
    """Answer of VFIO_IOMMU_SPAPR_TCE_GET_INFO: the 32-bit window, and None for ``dynamic`` where there are none
    (sPAPR v1)."""

    window_start: int
    window_size: int
    dynamic: DynamicWindows | None = None


def tce_get_info(container: int) -> TceInfo:
    """The default window, and what further ones can be made; ENXIO without a group."""
    buffer = spapr.vfio_iommu_spapr_tce_info().pack()
    ioctl(container, vfio.VFIO_IOMMU_SPAPR_TCE_GET_INFO, buffer)
    info = spapr.vfio_iommu_spapr_tce_info.unpack(buffer)
    dynamic = None
    if info.flags & spapr.VFIO_IOMMU_SPAPR_INFO_DDW:
        dynamic = DynamicWindows(info.ddw_pgsizes, info.ddw_max_dynamic_windows_supported, info.ddw_levels)
    return TceInfo(info.dma32_window_start, info.dma32_window_size, dynamic)


def enable(container: int) -> None:
    """sPAPR v1: charge the whole 32-bit window to the locked memory of the caller; nothing is mapped before."""
    ioctl(container, vfio.VFIO_IOMMU_ENABLE)


def disable(container: int) -> None:
    """sPAPR v1: give the charge back; nothing to do is no error."""
    ioctl(container, vfio.VFIO_IOMMU_DISABLE)


def register_memory(container: int, vaddr: int, size: int) -> None:
    """sPAPR v2: pin memory and charge it to the caller, which has to be done before mapping it."""
    buffer = spapr.vfio_iommu_spapr_register_memory(vaddr=vaddr, size=size).pack()
    ioctl(container, vfio.VFIO_IOMMU_SPAPR_REGISTER_MEMORY, buffer)


def unregister_memory(container: int, vaddr: int, size: int) -> None:
    """sPAPR v2: let go of memory as it was registered; EBUSY while it is mapped."""
    buffer = spapr.vfio_iommu_spapr_register_memory(vaddr=vaddr, size=size).pack()
    ioctl(container, vfio.VFIO_IOMMU_SPAPR_UNREGISTER_MEMORY, buffer)


def tce_create(container: int, page_shift: int, window_size: int, levels: int = 1) -> int:
    """sPAPR v2: make a window of ``window_size`` bytes, in pages of ``1 << page_shift``; returns where it starts."""
    question = spapr.vfio_iommu_spapr_tce_create(
        page_shift=page_shift, window_size=window_size, levels=levels
    )
    buffer = question.pack()
    ioctl(container, vfio.VFIO_IOMMU_SPAPR_TCE_CREATE, buffer)
    return spapr.vfio_iommu_spapr_tce_create.unpack(buffer).start_addr


def tce_remove(container: int, start: int) -> None:
    """sPAPR v2: remove the window that starts there; 0 is the default one."""
    buffer = spapr.vfio_iommu_spapr_tce_remove(start_addr=start).pack()
    ioctl(container, vfio.VFIO_IOMMU_SPAPR_TCE_REMOVE, buffer)


def eeh_pe_op(container: int, op: int) -> int:
    """Do a VFIO_EEH_PE_* to the partitionable endpoint of every group of the container, up to the first that fails.

    Returns the kernel's integer: VFIO_EEH_PE_STATE_* for VFIO_EEH_PE_GET_STATE, which means something with one group
    only. ``op`` is any but VFIO_EEH_PE_INJECT_ERR.
    """
    # Without the description of an error, as every kernel since 3.17 knows the struct.
    return ioctl(container, vfio.VFIO_EEH_PE_OP, spapr.vfio_eeh_pe_op(argsz=12, op=op).pack())


def eeh_inject_error(container: int, type: int, function: int, address: int = 0, mask: int = 0) -> None:
    """Let a PCI error happen: ``type`` and ``function`` are EEH_ERR_* of arch/powerpc/include/uapi/asm/eeh.h, and
    ``address`` and ``mask`` say where, 0 anywhere. Linux 4.2 and later."""
    question = spapr.vfio_eeh_pe_op(
        op=spapr.VFIO_EEH_PE_INJECT_ERR,
        err_type=type,
        err_func=function,
        err_addr=address,
        err_mask=mask,
    )
    ioctl(container, vfio.VFIO_EEH_PE_OP, question.pack())
