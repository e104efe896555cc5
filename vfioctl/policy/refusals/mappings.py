"""Refusals to map and unmap memory (floor 3, pure)."""

from __future__ import annotations

import errno

from vfioctl.errors import KernelRefusal, VfioctlError
from vfioctl.policy.refusals.state import Refusal, State, Table, place
from vfioctl.policy.refusals.words import says
from vfioctl.policy.sizes import format_size


def map_memory(refusal: Refusal) -> VfioctlError:
    """The refusal to pin memory: more than may be locked, or more than there is."""
    state = refusal.state
    if state.memlock_locked is not None:
        wanted = state.wanted or state.size
        enough = wanted is not None and state.memlock_locked + wanted <= (state.memlock_limit or 0)
        if state.memlock_limit is None or enough:
            return no_memory(state)
    return memlock_refusal(state)


def memlock_refusal(state: State) -> KernelRefusal:
    """The refusal when more memory would be locked than may be."""
    wanted = state.wanted or state.size
    size = "the memory" if wanted is None else format_size(wanted)
    facts = ""
    need = "BYTES"
    if state.memlock_limit is not None and state.memlock_locked is not None:
        facts = f": the limit is {format_size(state.memlock_limit)}, {format_size(state.memlock_locked)} are locked"
        if wanted is not None:
            need = str(state.memlock_locked + wanted)
            facts += f", {format_size(state.memlock_locked + wanted)} are needed in all"
    kilobytes = str(-(-int(need) // 1024)) if need.isdecimal() else "KIBIBYTES"
    shell = f"in a shell 'ulimit -l {kilobytes}'"
    running = f"for a running process 'prlimit --pid {state.process or 'PID'} --memlock={need}'"
    ways = (shell, running) if state.process is None else (running, f"{shell} before the container is opened")
    who = "this process" if state.process is None else f"process {state.process}"
    if state.per_user:
        who = "the processes of this user together"
    return KernelRefusal(
        f"{size} cannot be pinned: {who} may not lock that much memory{facts}",
        code="memlock",
        errno=errno.ENOMEM,
        hint=f"raise RLIMIT_MEMLOCK: {'; '.join(ways)}; in a systemd unit 'LimitMEMLOCK={need}' (or infinity); for a"
        f" login a line '{state.user or 'NAME'} - memlock {kilobytes}' in /etc/security/limits.d",
    )


def no_memory(state: State) -> KernelRefusal:
    """The refusal when memory itself is short, not the limit of locked memory."""
    size = "the buffer" if state.size is None else format_size(state.size)
    return KernelRefusal(
        f"there is not enough memory for {size}",
        code="no-memory",
        errno=errno.ENOMEM,
        hint="map less, or free memory: pinned pages cannot be swapped out",
    )


def _no_memory(refusal: Refusal) -> VfioctlError:
    return no_memory(refusal.state)


def _map_entries(refusal: Refusal) -> VfioctlError:
    return KernelRefusal(
        "the IOMMU driver allows no more mappings in this container",
        code="no-entries-left",
        hint="use larger chunks, or raise /sys/module/vfio_iommu_type1/parameters/dma_entry_limit"
        " (it counts for containers set up afterwards)",
    )


def map_overlap(refusal: Refusal) -> VfioctlError:
    """The refusal to map over a mapping."""
    return KernelRefusal(
        f"{place(refusal.state)} overlaps a mapping that is there already",
        code="mapping-overlap",
        hint="unmap that one first, or choose another IOVA; without one, vfioctl chooses",
    )


def map_invalid(refusal: Refusal) -> VfioctlError:
    """The refusal to map there."""
    page = refusal.state.page_size
    multiple = "the IOMMU's page size" if page is None else f"the IOMMU's page size {format_size(page)}"
    return KernelRefusal(
        f"the IOMMU cannot map {place(refusal.state)}: not a multiple of {multiple}, or not inside one of its"
        " IOVA ranges",
        code="iova-out-of-range",
        hint=f"vfioctl iommu-info --attach {refusal.argument} shows page sizes, ranges and reserved regions",
    )


def map_fault(refusal: Refusal) -> VfioctlError:
    """The refusal to map that memory."""
    system = refusal.state.file_system
    if system is not None:
        return KernelRefusal(
            f"the file cannot be pinned for devices to write: it is on {system}, which has to know who writes",
            code="memory-not-pinnable",
            hint="map it with --prot r, or put it on tmpfs (/dev/shm) or hugetlbfs",
        )
    return KernelRefusal(
        "the memory cannot be pinned: it is not mapped, is read-only while the device is to write, or belongs"
        " to a file system that needs to track writes",
        code="memory-not-pinnable",
        hint="map anonymous memory, huge pages, a memfd or a file on tmpfs; or map it read-only (for the device)",
    )


def _not_there(refusal: Refusal) -> VfioctlError:
    return KernelRefusal(
        "not all of the memory is there any more, or can be had: a file has become shorter or its file system is full,"
        " or a limit of its cgroup is reached",
        code="memory-gone",
        hint="unmap it, and see to the file or the limit",
    )


def _read_only(refusal: Refusal) -> VfioctlError:
    return KernelRefusal(
        "the memory does not take it: a file that is mapped with --prot r, or one that has become shorter",
        code="memory-gone",
        hint="write to the file itself",
    )


def map_busy(refusal: Refusal) -> VfioctlError:
    """The refusal of page tables that conflict."""
    return KernelRefusal(
        f"the IOMMU driver has a conflict in its page tables at {place(refusal.state)}",
        code="kernel",
        hint="the kernel log may say more; choose another IOVA",
    )


def no_translation(refusal: Refusal) -> VfioctlError:
    """The refusal to map for a no-IOMMU group."""
    return KernelRefusal(
        f"{refusal.group} has no IOMMU: nothing can be mapped for it",
        code="no-iommu",
        hint="in no-IOMMU mode devices use physical addresses; no program is kept apart from the host",
    )


def _unmap_invalid(refusal: Refusal) -> VfioctlError:
    return KernelRefusal(
        f"{place(refusal.state)} would cut a mapping, or is not aligned: type1v2 unmaps whole mappings only",
        code="unmap-partial",
        hint="unmap exactly what was mapped",
    )


unmap_nothing = says(
    "nothing is mapped at {place}, or it would cut a mapping: iommufd unmaps whole mappings only",
    code="unmap-partial",
    hint="unmap exactly what was mapped",
)
unmap_wraps = says(
    "{place} goes beyond the last address",
    code="iova-out-of-range",
    hint="unmap exactly what was mapped",
)

REFUSALS: Table = {
    ("VFIO_IOMMU_MAP_DMA", errno.ENOMEM): map_memory,
    ("VFIO_IOMMU_MAP_DMA", errno.ENOSPC): _map_entries,
    ("VFIO_IOMMU_MAP_DMA", errno.EEXIST): map_overlap,
    ("VFIO_IOMMU_MAP_DMA", errno.EINVAL): map_invalid,
    ("VFIO_IOMMU_MAP_DMA", errno.EOVERFLOW): map_invalid,
    ("VFIO_IOMMU_MAP_DMA", errno.EFAULT): map_fault,
    ("VFIO_IOMMU_MAP_DMA", errno.EBUSY): map_busy,
    ("VFIO_IOMMU_MAP_DMA", errno.ENOTTY): no_translation,
    ("VFIO_IOMMU_MAP_DMA", errno.ENOENT): says(
        "{place} is not mapped, so its memory cannot be exchanged", code="kernel", hint="map it first"
    ),
    ("VFIO_IOMMU_UNMAP_DMA", errno.EINVAL): _unmap_invalid,
    # What wraps is EINVAL up to Linux 6.17.
    ("VFIO_IOMMU_UNMAP_DMA", errno.EOVERFLOW): unmap_wraps,
    ("VFIO_IOMMU_UNMAP_DMA", errno.ENOTTY): no_translation,
    # iommufd in the place of the container.
    ("VFIO_IOMMU_UNMAP_DMA", errno.ENOENT): unmap_nothing,
    ("VFIO_IOMMU_GET_INFO", errno.EINVAL): says(
        "the container has no IOMMU yet",
        code="no-iommu",
        hint="the order is: container, group, IOMMU, mappings",
    ),
    ("VFIO_IOMMU_GET_INFO", errno.ENOTTY): no_translation,
    ("VFIO_IOMMU_DIRTY_PAGES", errno.EACCES): says(
        "the container is of type1 (v1), which does not track dirty pages",
        code="not-supported",
        hint="open it with the type1v2 backend",
    ),
    ("VFIO_IOMMU_DIRTY_PAGES", errno.EINVAL): says(
        "dirty pages cannot be told for {place}: they are not being tracked, or the range or its page size is not what"
        " the container has",
        code="dirty-pages",
        hint="begin to track first; the range has to hold whole mappings, in the smallest page size of the IOMMU",
    ),
    ("VFIO_IOMMU_DIRTY_PAGES", errno.ENOTTY): says(
        "this container does not track dirty pages",
        code="not-supported",
        hint="type1v2 does from Linux 5.8 on; with iommufd a page table made for it does",
    ),
    ("VFIO_IOMMU_DIRTY_PAGES", errno.ENOMEM): _no_memory,
    ("mmap", errno.ENOMEM): _no_memory,
    ("madvise", errno.ENOMEM): _no_memory,
    # What the kernel answers in the place of SIGBUS.
    ("madvise", errno.EFAULT): _not_there,
    ("read", errno.EIO): _not_there,
    ("write", errno.EIO): _read_only,
}
