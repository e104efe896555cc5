"""What a container of sPAPR TCE answers: the rules of drivers/vfio/vfio_iommu_spapr_tce.c as Linux 6.12 and 7.2 show
them on powernv, and EEH there. Part of ``fake_vfio``."""

from __future__ import annotations

import errno
import mmap
import os

from vfioctl.uapi import spapr, vfio
from vfioctl.uapi.ioctl import Request

V1, V2 = vfio.VFIO_SPAPR_TCE_IOMMU, vfio.VFIO_SPAPR_TCE_v2_IOMMU
PAGE = 4096
WINDOW_SIZE = 1 << 31
PAGE_SIZES = 1 << 12 | 1 << 16 | 1 << 24
LEVELS = 5
SECOND_START = 1 << 59


class SpaprContainer:
    """The state of a container behind its IOMMU type. In a ``partition`` (pseries) groups share no table. ``tables``
    are both windows: start, size and page size; ``tces``: what is mapped, page by page, from IOVA to the memory.
    """

    def __init__(self, v2: bool, partition: bool) -> None:
        self.v2 = v2
        self.partition = partition
        self.groups = 1
        self.enabled = False
        self.pending = True  # the default window is made when it is needed first
        self.tables: list[tuple[int, int, int] | None] = [None, None]
        self.tces: dict[int, int] = {}
        self.registered: dict[int, int] = {}
        self.charged = 0
        self.eeh_ops: list[int] = []
        self.eeh_state = 0

    def group_comes(self) -> None:
        """tce_iommu_attach_group, for further groups."""
        _refuse(errno.EBUSY, not self.v2)
        _refuse(errno.EPERM, self.partition and self.tables != [None, None])
        self.groups += 1

    def group_leaves(self) -> None:
        """tce_iommu_release_ownership: every window is cleared, whoever else uses it."""
        self.groups -= 1
        self.tces.clear()

    def ioctl(self, request: Request, argument: bytearray | int, memlock: int | None) -> int:
        known = {
            vfio.VFIO_IOMMU_SPAPR_TCE_GET_INFO: self._info,
            vfio.VFIO_IOMMU_MAP_DMA: self._map,
            vfio.VFIO_IOMMU_UNMAP_DMA: self._unmap,
            vfio.VFIO_EEH_PE_OP: self._eeh,
        }
        of_v2 = {
            vfio.VFIO_IOMMU_SPAPR_REGISTER_MEMORY: self._register,
            vfio.VFIO_IOMMU_SPAPR_UNREGISTER_MEMORY: self._unregister,
            vfio.VFIO_IOMMU_SPAPR_TCE_CREATE: self._create,
            vfio.VFIO_IOMMU_SPAPR_TCE_REMOVE: self._remove,
        }
        self.memlock = memlock
        if not self.v2 and request == vfio.VFIO_IOMMU_ENABLE:
            _refuse(errno.EBUSY, self.enabled)
            self._charge(WINDOW_SIZE)
            self.enabled = True
            return 0
        if not self.v2 and request == vfio.VFIO_IOMMU_DISABLE:
            self._charge(-WINDOW_SIZE if self.enabled else 0)
            self.enabled = False
            return 0
        work = {**known, **(of_v2 if self.v2 else {})}.get(request)
        if work is None:
            raise OSError(errno.ENOTTY, "")
        assert isinstance(argument, bytearray)
        return work(argument) or 0

    def _info(self, buffer: bytearray) -> None:
        info = spapr.vfio_iommu_spapr_tce_info(argsz=len(buffer), dma32_window_size=WINDOW_SIZE)
        if self.v2:
            info.flags = spapr.VFIO_IOMMU_SPAPR_INFO_DDW
            info.ddw_pgsizes, info.ddw_max_dynamic_windows_supported, info.ddw_levels = PAGE_SIZES, 2, LEVELS
        buffer[:] = info.pack()

    def _map(self, buffer: bytearray) -> None:
        wanted = vfio.vfio_iommu_type1_dma_map.unpack(buffer)
        _refuse(errno.EPERM, not self.enabled)
        _refuse(errno.EINVAL, not wanted.flags or bool(wanted.flags & ~3))
        page = self._at(wanted.iova, wanted.size)
        _refuse(errno.EINVAL, bool((wanted.iova | wanted.vaddr | wanted.size) % page))
        for offset in range(0, wanted.size, page):
            vaddr = wanted.vaddr + offset
            _refuse(errno.EINVAL, self.v2 and not self._is_registered(vaddr, page))
            self.tces[wanted.iova + offset] = vaddr  # what was there is replaced without a word

    def _unmap(self, buffer: bytearray) -> None:
        wanted = vfio.vfio_iommu_type1_dma_unmap.unpack(buffer)
        _refuse(errno.EPERM, not self.enabled)
        _refuse(errno.EINVAL, bool(wanted.flags))
        page = self._at(wanted.iova, wanted.size)
        _refuse(errno.EINVAL, bool(wanted.size % page))
        for offset in range(0, wanted.size, page):
            self.tces.pop(wanted.iova + offset, None)

    def _at(self, iova: int, size: int) -> int:
        """The page size of the window that has an IOVA."""
        self._make_default()
        found = next((t for t in self.tables if t is not None and t[0] <= iova < t[0] + t[1]), None)
        _refuse(errno.ENXIO, found is None)
        assert found is not None
        _refuse(errno.EINVAL, iova + size > found[0] + found[1])
        return found[2]

    def _is_registered(self, vaddr: int, size: int) -> bool:
        return any(at <= vaddr and vaddr + size <= at + many for at, many in self.registered.items())

    def _register(self, buffer: bytearray) -> None:
        wanted = spapr.vfio_iommu_spapr_register_memory.unpack(buffer)
        _refuse(errno.EINVAL, bool(wanted.flags or (wanted.vaddr | wanted.size) % mmap.PAGESIZE))
        _refuse(errno.EBUSY, self.registered.get(wanted.vaddr) == wanted.size)
        self._charge(wanted.size)
        self.registered[wanted.vaddr] = wanted.size
        self.enabled = True

    def _unregister(self, buffer: bytearray) -> None:
        wanted = spapr.vfio_iommu_spapr_register_memory.unpack(buffer)
        _refuse(errno.ENOENT, self.registered.get(wanted.vaddr) != wanted.size)
        used = range(wanted.vaddr, wanted.vaddr + wanted.size)
        _refuse(errno.EBUSY, any(vaddr in used for vaddr in self.tces.values()))
        self._charge(-wanted.size)
        del self.registered[wanted.vaddr]

    def _create(self, buffer: bytearray) -> None:
        wanted = spapr.vfio_iommu_spapr_tce_create.unpack(buffer)
        _refuse(errno.EINVAL, bool(wanted.flags))
        self._make_default()
        wanted.start_addr = self._make(wanted.window_size, 1 << wanted.page_shift, wanted.levels)
        buffer[:] = wanted.pack()

    def _make_default(self) -> None:
        if self.pending:
            self._make(WINDOW_SIZE, PAGE, 1)
            self.pending = False

    def _make(self, size: int, page: int, levels: int) -> int:
        _refuse(errno.ENOSPC, None not in self.tables)
        _refuse(errno.EPERM, self.partition and self.groups > 1)
        _refuse(errno.EINVAL, not page & PAGE_SIZES or bool(size & (size - 1)) or not 1 <= levels <= LEVELS)
        place = self.tables.index(None)
        start = SECOND_START if place else 0
        self.tables[place] = (start, size, page)
        return start

    def _remove(self, buffer: bytearray) -> None:
        start = spapr.vfio_iommu_spapr_tce_remove.unpack(buffer).start_addr
        if self.pending and start == 0:
            self.pending = False
            return
        place = next((n for n, t in enumerate(self.tables) if t and t[0] <= start < t[0] + t[1]), None)
        _refuse(errno.EINVAL, place is None)
        assert place is not None
        first, size, _ = self.tables[place] or (0, 0, 0)
        self.tces = {iova: vaddr for iova, vaddr in self.tces.items() if not first <= iova < first + size}
        self.tables[place] = None

    def _eeh(self, buffer: bytearray) -> int:
        wanted = spapr.vfio_eeh_pe_op.unpack(buffer.ljust(spapr.vfio_eeh_pe_op.size_of, b"\0"))
        _refuse(errno.EINVAL, wanted.argsz < 12 or bool(wanted.flags) or wanted.op > 9)
        self.eeh_ops.append(wanted.op)
        if wanted.op == spapr.VFIO_EEH_PE_INJECT_ERR:
            _refuse(errno.EINVAL, wanted.argsz < 40)
            _refuse(errno.EIO, wanted.err_func not in (4, 5, 10, 11))  # configuration space, on powernv9
        return self.eeh_state if wanted.op == spapr.VFIO_EEH_PE_GET_STATE else 0

    def _charge(self, size: int) -> None:
        _refuse(errno.ENOMEM, self.memlock is not None and self.charged + size > self.memlock)
        self.charged += size


def _refuse(number: int, condition: bool) -> None:
    if condition:
        raise OSError(number, os.strerror(number))
