"""Refusals to map and unmap memory (floor 3, pure)."""

from __future__ import annotations

import errno

from vfioctl.errors import Busy
from vfioctl.policy.refusals import evidence
from vfioctl.policy.refusals.state import Refusal
from vfioctl.policy.refusals.words import Table, When, only, says


def _not_the_limit(refusal: Refusal) -> bool:
    state = refusal.state
    if state.memlock_locked is None:
        return False
    wanted = state.wanted or state.size
    enough = wanted is not None and state.memlock_locked + wanted <= (state.memlock_limit or 0)
    return state.memlock_limit is None or enough


_ENOUGH = When("that much may be locked", _not_the_limit)
_OF_ANOTHER = When("another process maps", lambda refusal: refusal.state.process is not None)
_ON_FILE_SYSTEM = When(
    "it is a file, and devices are to write", lambda refusal: refusal.state.file_system is not None
)

_PINNED = "{memory} cannot be pinned: {pinner} may not lock that much memory{limit}"
_PRLIMIT = "for a running process 'prlimit --pid {PID} --memlock={BYTES}'"
_SHELL = "in a shell 'ulimit -l {KIBIBYTES}'"
_ELSEWHERE = (
    "; in a systemd unit 'LimitMEMLOCK={BYTES}' (or infinity); for a login a line '{NAME} - memlock {KIBIBYTES}' in"
    " /etc/security/limits.d"
)
memlock = says(
    _PINNED,
    code="memlock",
    hint="raise RLIMIT_MEMLOCK: " + _PRLIMIT + "; " + _SHELL + " before the container is opened" + _ELSEWHERE,
    look=evidence.MEMLOCK,
    when=_OF_ANOTHER,
) + says(
    _PINNED,
    code="memlock",
    hint="raise RLIMIT_MEMLOCK: " + _SHELL + "; " + _PRLIMIT + _ELSEWHERE,
    look=evidence.MEMLOCK,
)
no_memory = says(
    "there is not enough memory for {buffer}",
    code="no-memory",
    hint="map less, or free memory: pinned pages cannot be swapped out",
)
map_memory = only(_ENOUGH, no_memory) + memlock
map_overlap = says(
    "{place} overlaps a mapping that is there already",
    code="mapping-overlap",
    hint="unmap that one first, or choose another IOVA; without one, vfioctl chooses",
)
map_invalid = says(
    "the IOMMU cannot map {place}: not a multiple of the IOMMU's page size{page_size}, or not inside one of its IOVA"
    " ranges",
    code="iova-out-of-range",
    hint="vfioctl iommu-info --attach {GROUP} shows page sizes, ranges and reserved regions",
    look=evidence.RESERVED,
)
map_fault = says(
    "the file cannot be pinned for devices to write: it is on {file_system}, which has to know who writes",
    code="memory-not-pinnable",
    hint="map it with --prot r, or put it on tmpfs (/dev/shm) or hugetlbfs",
    when=_ON_FILE_SYSTEM,
) + says(
    "the memory cannot be pinned: it is not mapped, is read-only while the device is to write, or belongs"
    " to a file system that needs to track writes",
    code="memory-not-pinnable",
    hint="map anonymous memory, huge pages, a memfd or a file on tmpfs; or map it read-only (for the device)",
)
map_busy = says(
    "the IOMMU driver has a conflict in its page tables at {place}",
    code="kernel",
    hint="the kernel log may say more; choose another IOVA",
)
no_translation = says(
    "{group} has no IOMMU: nothing can be mapped for it",
    code="no-iommu",
    hint="in no-IOMMU mode devices use physical addresses; no program is kept apart from the host",
)
_not_there = says(
    "not all of the memory is there any more, or can be had: a file has become shorter or its file system is full,"
    " or a limit of its cgroup is reached",
    code="memory-gone",
    hint="unmap it, and see to the file or the limit",
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
    ("VFIO_IOMMU_MAP_DMA", errno.ENOSPC): says(
        "the IOMMU driver allows no more mappings in this container",
        code="no-entries-left",
        hint="use larger chunks, or raise /sys/module/vfio_iommu_type1/parameters/dma_entry_limit"
        " (it counts for containers set up afterwards)",
        look=evidence.ENTRY_LIMIT,
    ),
    ("VFIO_IOMMU_MAP_DMA", errno.EEXIST): map_overlap,
    ("VFIO_IOMMU_MAP_DMA", errno.EINVAL): map_invalid,
    ("VFIO_IOMMU_MAP_DMA", errno.EOVERFLOW): map_invalid,
    ("VFIO_IOMMU_MAP_DMA", errno.EFAULT): map_fault,
    ("VFIO_IOMMU_MAP_DMA", errno.EBUSY): map_busy,
    ("VFIO_IOMMU_MAP_DMA", errno.ENOTTY): no_translation,
    ("VFIO_IOMMU_MAP_DMA", errno.ENOENT): says(
        "{place} is not mapped, so its memory cannot be exchanged", code="kernel", hint="map it first"
    ),
    ("VFIO_IOMMU_UNMAP_DMA", errno.EINVAL): says(
        "{place} would cut a mapping, or is not aligned: type1v2 unmaps whole mappings only",
        code="unmap-partial",
        hint="unmap exactly what was mapped",
    ),
    # What wraps is EINVAL up to Linux 6.17.
    ("VFIO_IOMMU_UNMAP_DMA", errno.EOVERFLOW): unmap_wraps,
    ("VFIO_IOMMU_UNMAP_DMA", errno.EBUSY): says(
        "the memory cannot be exchanged: a mediated device is in the container",
        code="object-busy",
        hint="take that out of the container, or unmap and map again",
        kind=Busy,
    ),
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
    ("VFIO_IOMMU_DIRTY_PAGES", errno.ENOMEM): no_memory,
    ("mmap", errno.ENOMEM): no_memory,
    ("madvise", errno.ENOMEM): no_memory,
    # What the kernel answers in the place of SIGBUS.
    ("madvise", errno.EFAULT): _not_there,
    ("read", errno.EIO): _not_there,
    ("write", errno.EIO): says(
        "the memory does not take it: a file that is mapped with --prot r, or one that has become shorter",
        code="memory-gone",
        hint="write to the file itself",
    ),
}
