"""Refusals of iommufd: address spaces, mappings, page tables (floor 3, pure). Source: drivers/iommu/iommufd."""

from __future__ import annotations

import errno

from vfioctl.errors import Busy, PermissionDenied
from vfioctl.policy.refusals.mappings import (
    map_busy,
    map_fault,
    map_invalid,
    map_memory,
    map_overlap,
    no_translation,
    unmap_nothing,
    unmap_wraps,
)
from vfioctl.policy.refusals.words import Table, says

#: The calls that came after Linux 6.2, and with which release.
_SINCE = {
    "IOMMU_GET_HW_INFO": "6.6",
    "IOMMU_HWPT_ALLOC": "6.6",
    "IOMMU_HWPT_SET_DIRTY_TRACKING": "6.7",
    "IOMMU_HWPT_GET_DIRTY_BITMAP": "6.7",
    "IOMMU_IOAS_MAP_FILE": "6.13",
    "IOMMU_IOAS_CHANGE_PROCESS": "6.13",
}

no_object = says(
    "the iommufd has no such address space, page table or device",
    code="no-such-object",
    hint="it was destroyed, or belongs to another iommufd: each descriptor counts its own",
)
reserved_addresses = says(
    "addresses that {device} needs for itself are mapped already",
    code="iova-reserved",
    hint="vfioctl iommu-info --attach {GROUP} shows them; unmap what is there, or attach the device before mapping",
)
_hwpt_unsupported = says(
    "the page table was not made for tracking dirty pages",
    code="not-supported",
    hint="make one for it, where the IOMMU has that capability",
)
_MAPPING_CALLS = ("IOMMU_IOAS_MAP", "IOMMU_IOAS_MAP_FILE", "IOMMU_IOAS_COPY")


def _mapping() -> Table:
    table: Table = {}
    for call in _MAPPING_CALLS:
        table |= {
            (call, errno.EEXIST): map_overlap,
            (call, errno.EINVAL): map_invalid,
            (call, errno.EOVERFLOW): map_invalid,
            (call, errno.EFAULT): map_fault,
            (call, errno.ENOMEM): map_memory,
            (call, errno.EBUSY): map_busy,
            (call, errno.ENOENT): no_object,
            (call, errno.ENOSPC): says(
                "the address space has no room left for the mapping",
                code="iova-out-of-range",
                hint="map less at once; vfioctl iommu-info --attach {GROUP} shows the ranges",
            ),
        }
    return table


def _too_new() -> Table:
    return {
        (call, errno.ENOTTY): says(
            "the iommufd of this kernel does not know {call}, which came with Linux " + release,
            code="not-supported",
            hint="use a newer kernel",
        )
        for call, release in _SINCE.items()
    }


REFUSALS: Table = {
    **_mapping(),
    **_too_new(),
    ("IOMMU_IOAS_ALLOC", errno.ENOTTY): says(
        "what was opened does not answer as an iommufd",
        code="no-iommufd",
        hint="is /dev/iommu the node of the misc device iommu? Compare /sys/class/misc/iommu/dev; a program of 32 bits"
        " cannot use it on a kernel of 64",
    ),
    ("IOMMU_DESTROY", errno.ENOENT): no_object,
    ("IOMMU_DESTROY", errno.EBUSY): says(
        "the address space or page table is in use: a device is attached to it, or a page table is made of it",
        code="object-busy",
        hint="detach or close what uses it first; a device leaves the iommufd when it is closed",
        kind=Busy,
    ),
    ("IOMMU_IOAS_IOVA_RANGES", errno.ENOENT): no_object,
    ("IOMMU_IOAS_ALLOW_IOVAS", errno.ENOENT): no_object,
    ("IOMMU_IOAS_ALLOW_IOVAS", errno.EADDRINUSE): says(
        "addresses that an attached device needs for itself cannot be promised",
        code="iova-reserved",
        hint="leave them out: vfioctl iommu-info --attach {GROUP} shows what is reserved",
    ),
    ("IOMMU_IOAS_ALLOW_IOVAS", errno.EINVAL): says(
        "the ranges overlap, or one of them has less than two bytes",
        code="iova-out-of-range",
        hint="give ranges that are apart, with the last address above the first",
    ),
    ("IOMMU_IOAS_MAP_FILE", errno.EBADF): says(
        "the file to map is not open", code="memory-not-pinnable", hint="keep its descriptor open meanwhile"
    ),
    ("IOMMU_IOAS_MAP_FILE", errno.EINVAL): says(
        "the file cannot be mapped at {place}: it is neither a memfd nor a dma-buf, or the range is not aligned or not"
        " inside one of the IOVA ranges",
        code="memory-not-pinnable",
        hint="map a memfd; vfioctl iommu-info --attach {GROUP} shows page sizes and ranges",
    ),
    ("IOMMU_IOAS_COPY", errno.ENOENT): says(
        "not all of the range is mapped where it is to be copied from, or an address space is gone",
        code="not-mapped",
        hint="copy what is mapped without a gap",
    ),
    ("IOMMU_IOAS_COPY", errno.EPERM): says(
        "the copy is to be written by devices, and its source is mapped read-only",
        code="read-only",
        hint="copy it read-only, or map the source for writing",
    ),
    ("IOMMU_IOAS_UNMAP", errno.ENOENT): unmap_nothing,
    ("IOMMU_IOAS_UNMAP", errno.EINVAL): says(
        "there is nothing to unmap: the range is empty", code="unmap-partial", hint="give its size in bytes"
    ),
    ("IOMMU_IOAS_UNMAP", errno.EOVERFLOW): unmap_wraps,
    ("IOMMU_IOAS_UNMAP", errno.EBUSY): says(
        "{place} is in use by the kernel, or is being mapped or unmapped right now",
        code="object-busy",
        hint="try again; a hardware queue of a virtual IOMMU keeps its memory",
        kind=Busy,
    ),
    ("IOMMU_IOAS_UNMAP", errno.EDEADLOCK): says(
        "the driver of a mediated device does not let go of {place}",
        code="object-busy",
        hint="close the mediated device first; the kernel log names it",
        kind=Busy,
    ),
    ("IOMMU_OPTION", errno.EPERM): says(
        "choosing how locked memory is charged takes the capability CAP_SYS_RESOURCE",
        code="permission",
        hint="run it as root, or keep the charge per user",
        kind=PermissionDenied,
    ),
    ("IOMMU_OPTION", errno.EBUSY): says(
        "how locked memory is charged is chosen before the iommufd has any object",
        code="object-busy",
        hint="choose it right after opening",
        kind=Busy,
    ),
    ("IOMMU_OPTION", errno.EINVAL): says(
        "the option does not take that value, or not while something is mapped",
        code="kernel",
        hint="options are 0 or 1; the size of pages is chosen before a device is attached",
    ),
    ("IOMMU_OPTION", errno.ENOENT): no_object,
    ("IOMMU_OPTION", errno.EOPNOTSUPP): says(
        "this kernel does not know the option", code="not-supported", hint="use a newer kernel"
    ),
    ("IOMMU_VFIO_IOAS", errno.ENODEV): says(
        "the iommufd has no address space for the calls of containers",
        code="no-such-object",
        hint="set one first",
    ),
    ("IOMMU_VFIO_IOAS", errno.ENOENT): no_object,
    ("IOMMU_GET_HW_INFO", errno.ENOENT): no_object,
    ("IOMMU_GET_HW_INFO", errno.EOPNOTSUPP): says(
        "nothing is known of the IOMMU of {device}: it has none, or its driver tells nothing",
        code="not-supported",
        hint="vfioctl iommu-info {GROUP} shows what sysfs tells",
    ),
    ("IOMMU_HWPT_ALLOC", errno.EOPNOTSUPP): says(
        "the IOMMU of {device} cannot make such a page table: it does not track dirty pages, or nest, or take PASIDs",
        code="not-supported",
        hint="make a plain one, or one that its capabilities allow",
    ),
    ("IOMMU_HWPT_ALLOC", errno.EINVAL): says(
        "no page table for {device} can be made of that: it is no address space, or does not suit the IOMMU",
        code="no-such-object",
        hint="make it of an address space of the same iommufd",
    ),
    ("IOMMU_HWPT_ALLOC", errno.ENOENT): no_object,
    ("IOMMU_HWPT_ALLOC", errno.ENODEV): no_translation,
    ("IOMMU_HWPT_ALLOC", errno.EADDRINUSE): reserved_addresses,
    # A page table takes over what is mapped already, and pins it.
    ("IOMMU_HWPT_ALLOC", errno.ENOMEM): map_memory,
    ("IOMMU_HWPT_ALLOC", errno.EFAULT): map_fault,
    ("IOMMU_HWPT_SET_DIRTY_TRACKING", errno.EOPNOTSUPP): _hwpt_unsupported,
    ("IOMMU_HWPT_SET_DIRTY_TRACKING", errno.ENOENT): no_object,
    ("IOMMU_HWPT_GET_DIRTY_BITMAP", errno.EOPNOTSUPP): _hwpt_unsupported,
    ("IOMMU_HWPT_GET_DIRTY_BITMAP", errno.ENOENT): no_object,
    ("IOMMU_HWPT_GET_DIRTY_BITMAP", errno.EINVAL): says(
        "dirty pages cannot be told for {place}: they are not being tracked, it is not mapped, or the page size is not"
        " the IOMMU's",
        code="dirty-pages",
        hint="begin to track first; the range has to be mapped, and a multiple of the page size",
    ),
    ("IOMMU_IOAS_CHANGE_PROCESS", errno.EINVAL): says(
        "memory that is not of a file stays charged to the process that mapped it",
        code="not-supported",
        hint="only mappings of files (memfd) can be handed on",
    ),
    ("IOMMU_IOAS_CHANGE_PROCESS", errno.EBUSY): says(
        "something is being unmapped right now", code="object-busy", hint="try again", kind=Busy
    ),
    ("IOMMU_IOAS_CHANGE_PROCESS", errno.ENOMEM): map_memory,
}
