"""Refusals of sPAPR containers and of EEH (floor 3, pure).

Source: drivers/vfio/vfio_iommu_spapr_tce.c, arch/powerpc/mm/book3s64/iommu_api.c, arch/powerpc/kernel/eeh.c.
"""

from __future__ import annotations

import errno

from vfioctl.errors import Busy, PermissionDenied
from vfioctl.policy.refusals import containers
from vfioctl.policy.refusals.mappings import map_fault, map_memory
from vfioctl.policy.refusals.words import Table, When, only, says

_WINDOWS = "its windows are told by VFIO_IOMMU_SPAPR_TCE_GET_INFO"

_no_group = says(
    "the container has no group, so it has no windows",
    code="kernel",
    hint="the order is: container, group, IOMMU",
)
_other_process = says(
    "a container of POWER belongs to the process that used it first",
    code="permission",
    hint="let that process do it; a container cannot be handed on",
    kind=PermissionDenied,
)
_not_v2 = says(
    "the container is not of sPAPR v2", code="not-supported", hint="open it with the spapr-v2 backend"
)
_outside = says(
    "{place} is outside of every window", code="iova-out-of-range", hint="map inside of one; " + _WINDOWS
)


_HELD = When(
    "it is not viable",
    lambda refusal: bool(refusal.state.blocking) or refusal.state.viable is False,
)
_V1 = When("the container is of sPAPR v1", lambda refusal: refusal.state.backend == "spapr-v1")
_join_permission = (
    containers.noiommu_use
    + only(_HELD, containers.not_viable)
    + says(
        "{group} cannot be in a container of this kind: its windows do not go together with those of the others, or the"
        " platform has windows of the other version of sPAPR",
        code="not-supported",
        hint="use a container of its own, or the other one of the backends spapr-v1 and spapr-v2",
    )
)
_map_permission = says(
    "the container is not enabled",
    code="permission",
    hint="enable it before mapping",
    kind=PermissionDenied,
    when=_V1,
) + says(
    "the memory is not registered with the container, or its pages are smaller than the window's, or groups of a"
    " partition share the container",
    code="permission",
    hint="register it before mapping, from the same process; a window of large pages takes huge pages; in a"
    " partition (pseries) each group takes a container of its own",
    kind=PermissionDenied,
)

#: Calls that only sPAPR containers and EEH have.
REFUSALS: Table = {
    ("VFIO_IOMMU_SPAPR_TCE_GET_INFO", errno.ENXIO): _no_group,
    ("VFIO_IOMMU_SPAPR_TCE_GET_INFO", errno.EINVAL): _no_group,
    ("VFIO_IOMMU_ENABLE", errno.EBUSY): says(
        "the container is enabled already", code="object-busy", hint="there is nothing to do", kind=Busy
    ),
    ("VFIO_IOMMU_ENABLE", errno.ENODEV): _no_group,
    ("VFIO_IOMMU_ENABLE", errno.EPERM): says(
        "the container cannot be enabled: the platform has no 32-bit window, or another process used it first",
        code="permission",
        hint="use the spapr-v2 backend; a container stays with the process that opened it",
        kind=PermissionDenied,
    ),
    # The whole window is charged, whatever is mapped.
    ("VFIO_IOMMU_ENABLE", errno.ENOMEM): map_memory,
    ("VFIO_IOMMU_ENABLE", errno.ENOTTY): says(
        "the container is not of sPAPR v1, which alone is enabled",
        code="not-supported",
        hint="map without it",
    ),
    ("VFIO_IOMMU_DISABLE", errno.ENOTTY): says(
        "the container is not of sPAPR v1, which alone is disabled",
        code="not-supported",
        hint="unmap without it",
    ),
    ("VFIO_IOMMU_SPAPR_REGISTER_MEMORY", errno.EBUSY): says(
        "the memory is registered already", code="object-busy", hint="there is nothing to do", kind=Busy
    ),
    ("VFIO_IOMMU_SPAPR_REGISTER_MEMORY", errno.EINVAL): says(
        "the memory cannot be registered: it is not of whole pages, or overlaps memory that is registered",
        code="memory-not-pinnable",
        hint="register each buffer once, as a whole",
    ),
    ("VFIO_IOMMU_SPAPR_REGISTER_MEMORY", errno.ENOMEM): map_memory,
    ("VFIO_IOMMU_SPAPR_REGISTER_MEMORY", errno.EFAULT): map_fault,
    ("VFIO_IOMMU_SPAPR_REGISTER_MEMORY", errno.EPERM): _other_process,
    ("VFIO_IOMMU_SPAPR_REGISTER_MEMORY", errno.ENOTTY): _not_v2,
    ("VFIO_IOMMU_SPAPR_UNREGISTER_MEMORY", errno.ENOENT): says(
        "the memory is not registered like that",
        code="not-mapped",
        hint="unregister exactly what was registered",
    ),
    ("VFIO_IOMMU_SPAPR_UNREGISTER_MEMORY", errno.EBUSY): says(
        "the memory is still mapped", code="object-busy", hint="unmap it first", kind=Busy
    ),
    ("VFIO_IOMMU_SPAPR_UNREGISTER_MEMORY", errno.EINVAL): says(
        "memory is registered in whole pages",
        code="not-mapped",
        hint="unregister exactly what was registered",
    ),
    ("VFIO_IOMMU_SPAPR_UNREGISTER_MEMORY", errno.EPERM): _other_process,
    ("VFIO_IOMMU_SPAPR_UNREGISTER_MEMORY", errno.ENOTTY): _not_v2,
    ("VFIO_IOMMU_SPAPR_TCE_CREATE", errno.EINVAL): says(
        "the platform does not make such a window: not of that page size, of that many levels, or of that size",
        code="window-invalid",
        hint=_WINDOWS + "; the size is a power of two",
    ),
    ("VFIO_IOMMU_SPAPR_TCE_CREATE", errno.ENOSPC): says(
        "all windows of the container are in use",
        code="no-window-left",
        hint="remove one first; the default one starts at 0",
    ),
    ("VFIO_IOMMU_SPAPR_TCE_CREATE", errno.EPERM): says(
        "the platform makes no windows, or groups of a partition share the container, or another process used it first",
        code="not-supported",
        hint="map inside of the default window; in a partition (pseries) each group takes a container of its own;"
        " a container stays with the process that opened it",
    ),
    ("VFIO_IOMMU_SPAPR_TCE_CREATE", errno.ENOMEM): map_memory,
    ("VFIO_IOMMU_SPAPR_TCE_CREATE", errno.ENXIO): _no_group,
    ("VFIO_IOMMU_SPAPR_TCE_CREATE", errno.ENOTTY): _not_v2,
    ("VFIO_IOMMU_SPAPR_TCE_REMOVE", errno.EINVAL): says(
        "no window starts at that address", code="window-invalid", hint=_WINDOWS
    ),
    ("VFIO_IOMMU_SPAPR_TCE_REMOVE", errno.EPERM): says(
        "the platform does not remove the window, or another process used the container first",
        code="not-supported",
        hint="map inside of it; a container stays with the process that opened it",
    ),
    ("VFIO_IOMMU_SPAPR_TCE_REMOVE", errno.ENXIO): _no_group,
    ("VFIO_IOMMU_SPAPR_TCE_REMOVE", errno.ENOTTY): _not_v2,
    ("VFIO_EEH_PE_OP", errno.ENODEV): says(
        "{group} has no partitionable endpoint: EEH does not watch its devices",
        code="no-eeh",
        hint="EEH takes a POWER machine whose firmware has it, and is not of every emulated one",
    ),
    ("VFIO_EEH_PE_OP", errno.EINVAL): says(
        "EEH does not take that: the operation, or the error to inject, is not known here",
        code="eeh-invalid",
        hint="the types and functions of errors are EEH_ERR_* in <asm/eeh.h>",
    ),
    ("VFIO_EEH_PE_OP", errno.ENOTTY): says(
        "the container has no EEH: it is not of POWER",
        code="no-eeh",
        hint="VFIO_EEH is an extension of those",
    ),
    ("VFIO_EEH_PE_OP", errno.EPERM): says(
        "EEH is not enabled on this machine",
        code="no-eeh",
        hint="eeh=off may stand on the kernel's command line",
    ),
    ("VFIO_EEH_PE_OP", errno.ENOENT): says(
        "the platform cannot do that: it has no such operation of EEH",
        code="no-eeh",
        hint="the firmware decides that",
    ),
    ("VFIO_EEH_PE_OP", errno.ENXIO): says(
        "the firmware injects no errors",
        code="no-eeh",
        hint="that takes OPAL with PCI error injection, or RTAS",
    ),
    ("VFIO_EEH_PE_OP", errno.ERANGE): says(
        "the error to inject is not known here",
        code="eeh-invalid",
        hint="the types and functions of errors are EEH_ERR_* in <asm/eeh.h>",
    ),
    ("VFIO_EEH_PE_OP", errno.EIO): says(
        "the firmware could not do that to the partitionable endpoint of {group}",
        code="eeh-failed",
        hint="the kernel log says more; a frozen endpoint is brought back by: reset, end of the reset, configure",
    ),
}

#: What other calls mean when the container is of sPAPR.
ON_SPAPR: Table = {
    ("VFIO_GROUP_SET_CONTAINER", errno.EPERM): _join_permission,
    ("VFIO_SET_IOMMU", errno.EPERM): _join_permission,
    **{
        (call, errno.EBUSY): says(
            "the container cannot take {group} as well: with sPAPR v1 it has one group only",
            code="group-busy",
            hint="use a container for each group, or the spapr-v2 backend",
            kind=Busy,
        )
        for call in ("VFIO_GROUP_SET_CONTAINER", "VFIO_SET_IOMMU")
    },
    ("VFIO_SET_IOMMU", errno.EINVAL): says(
        "{group} has no windows that could be made or removed, which sPAPR v2 takes, or the container has no group yet",
        code="not-supported",
        hint="use the spapr-v1 backend",
    ),
    ("VFIO_IOMMU_MAP_DMA", errno.EPERM): _map_permission,
    ("VFIO_IOMMU_MAP_DMA", errno.ENXIO): _outside,
    # Seen where virtio-pci had a device of the same host bridge: windows are not given up once a driver has them.
    ("VFIO_IOMMU_MAP_DMA", errno.ENODEV): says(
        "the platform does not make the default window for {group}",
        code="no-window-left",
        hint="a driver on the same host bridge may have taken it: give the container all devices of the bridge, and"
        " start again",
    ),
    ("VFIO_IOMMU_MAP_DMA", errno.EINVAL): says(
        "{place} cannot be mapped: it is not a multiple of the window's page size, reaches beyond the window, or its"
        " memory is not registered",
        code="iova-out-of-range",
        hint=_WINDOWS + "; with sPAPR v2 memory is registered before it is mapped",
    ),
    ("VFIO_IOMMU_UNMAP_DMA", errno.EPERM): _map_permission,
    ("VFIO_IOMMU_UNMAP_DMA", errno.ENXIO): _outside,
    ("VFIO_IOMMU_UNMAP_DMA", errno.EINVAL): says(
        "{place} is not a multiple of the window's page size, or reaches beyond the window",
        code="iova-out-of-range",
        hint=_WINDOWS,
    ),
}
