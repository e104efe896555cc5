"""Every refusal of an open device, of iommufd and of sPAPR: status, stable code, words of the cause and of the cure.

Those of containers, groups and type1 are in test_refusals.py.
"""

from __future__ import annotations

import errno

import pytest

from tests.policy.test_refusals import ROWS as OTHERS
from vfioctl.errors import ExitStatus, VfioctlError
from vfioctl.policy.refusals import ON_SPAPR, TABLE, State, explain

DEVICE = "0000:06:0d.0"
here = State(group=26, kernel=(6, 12), device=DEVICE, iova=0x1000, size=4096)
NODES = {"open-iommufd": "/dev/iommu", "open-device": "/dev/vfio/devices/vfio0"}

#: call, errno, status and code; words of the message; words of the hint
ROWS = """
VFIO_GROUP_SET_CONTAINER ENOMEM 7 no-memory | the kernel has no memory | free memory; with existing
VFIO_GROUP_UNSET_CONTAINER ENODEV 1 no-vfio-member | the last VFIO device of | vfioctl list-groups 26, then
VFIO_SET_IOMMU EFAULT 7 memory-not-pinnable | the memory cannot be pinned: | map anonymous memory, huge
VFIO_IOMMU_MAP_DMA ENOENT 7 kernel | is not mapped, so its | map it first
VFIO_IOMMU_UNMAP_DMA EOVERFLOW 7 iova-out-of-range | goes beyond the last address | unmap exactly what was
VFIO_IOMMU_UNMAP_DMA EBUSY 6 object-busy | the memory cannot be exchanged | take that out
VFIO_IOMMU_UNMAP_DMA ENOTTY 7 no-iommu | has no IOMMU: nothing can | in no-IOMMU mode devices
VFIO_IOMMU_UNMAP_DMA ENOENT 7 unmap-partial | or it would cut a | unmap exactly what was
VFIO_IOMMU_GET_INFO EINVAL 7 no-iommu | the container has no IOMMU | the order is: container,
VFIO_IOMMU_GET_INFO ENOTTY 7 no-iommu | has no IOMMU: nothing can | in no-IOMMU mode devices
VFIO_IOMMU_DIRTY_PAGES EACCES 7 not-supported | the container is of type1 | open it with the
VFIO_IOMMU_DIRTY_PAGES EINVAL 7 dirty-pages | they are not being tracked, | begin to track first;
VFIO_IOMMU_DIRTY_PAGES ENOTTY 7 not-supported | this container does not track | type1v2 does from Linux
VFIO_IOMMU_DIRTY_PAGES ENOMEM 7 no-memory | there is not enough memory | map less, or free
VFIO_GROUP_GET_DEVICE_FD EIO 7 device-dead | does not start: it cannot | the kernel log (dmesg)
VFIO_GROUP_GET_DEVICE_FD ENOMEM 7 no-memory | no memory left to open | free memory
VFIO_GROUP_GET_DEVICE_FD EMFILE 7 too-many-files | too many files are open | LimitNOFILE
VFIO_GROUP_GET_DEVICE_FD EBUSY 6 device-busy | does not let it be | a mediated device has
VFIO_DEVICE_GET_INFO EIO 7 device-dead | does not wake up: its | the kernel log (dmesg)
VFIO_DEVICE_GET_REGION_INFO EIO 7 device-dead | does not wake up: its | the kernel log (dmesg)
VFIO_DEVICE_GET_IRQ_INFO EIO 7 device-dead | does not wake up: its | the kernel log (dmesg)
VFIO_DEVICE_SET_IRQS EIO 7 device-dead | does not wake up: its | the kernel log (dmesg)
VFIO_DEVICE_RESET EIO 7 device-dead | does not wake up: its | the kernel log (dmesg)
VFIO_DEVICE_GET_PCI_HOT_RESET_INFO EIO 7 device-dead | does not wake up: its | the kernel log (dmesg)
VFIO_DEVICE_PCI_HOT_RESET EIO 7 device-dead | does not wake up: its | the kernel log (dmesg)
VFIO_DEVICE_FEATURE EIO 7 device-dead | does not wake up: its | the kernel log (dmesg)
VFIO_DEVICE_GET_INFO EINVAL 7 kernel | is not ready for use: | a device that was
VFIO_DEVICE_GET_REGION_INFO EINVAL 3 not-found | has no such region | its regions are numbered
VFIO_DEVICE_GET_IRQ_INFO EINVAL 3 not-found | has no such kind of | a PCI device has
VFIO_DEVICE_SET_IRQS EINVAL 7 irq-invalid | does not take that for | one of INTx, MSI
VFIO_DEVICE_SET_IRQS ENOTTY 7 not-supported | cannot do that to interrupts | masking is for INTx;
VFIO_DEVICE_SET_IRQS EBADF 7 irq-invalid | the descriptor that is to | give an eventfd
VFIO_DEVICE_SET_IRQS EBUSY 6 irq-busy | is in use: its line | use MSI or MSI-X;
VFIO_DEVICE_SET_IRQS ENOSPC 6 irq-busy | the machine has no interrupt | ask for fewer; /proc/interrupts
VFIO_DEVICE_SET_IRQS ENOMEM 7 no-memory | the kernel has no memory | free memory
VFIO_DEVICE_RESET EINVAL 7 no-reset | has no way to be | a reset of its
VFIO_DEVICE_RESET ENOTTY 7 no-reset | has no method left to | look at its reset_method
VFIO_DEVICE_RESET EAGAIN 6 busy | is locked: it is being | try again
VFIO_DEVICE_RESET EBUSY 6 busy | is locked: it is being | try again
VFIO_DEVICE_GET_PCI_HOT_RESET_INFO ENODEV 7 no-reset | neither the slot nor the | the device is in
VFIO_DEVICE_GET_PCI_HOT_RESET_INFO ENOTTY 7 no-reset | neither the slot nor the | the device is in
VFIO_DEVICE_GET_PCI_HOT_RESET_INFO EAGAIN 6 busy | devices came or went on | try again
VFIO_DEVICE_GET_PCI_HOT_RESET_INFO EPERM 4 reset-scope | a device of the same | the IOMMU does not
VFIO_DEVICE_PCI_HOT_RESET EINVAL 7 reset-scope | would reach a device that | bind every device of
VFIO_DEVICE_PCI_HOT_RESET EBADF 7 reset-scope | a group that was to | keep the groups of
VFIO_DEVICE_PCI_HOT_RESET ENODEV 7 no-reset | neither the slot nor the | the device is in
VFIO_DEVICE_PCI_HOT_RESET ENOTTY 7 no-reset | neither the slot nor the | the device is in
VFIO_DEVICE_PCI_HOT_RESET EAGAIN 6 busy | a device of the slot | try again
VFIO_DEVICE_PCI_HOT_RESET EBUSY 6 busy | a device of the slot | try again
VFIO_DEVICE_FEATURE ENOTTY 7 not-supported | does not have the feature: | migration takes a variant
VFIO_DEVICE_FEATURE EINVAL 7 feature-invalid | does not take that of | a device sleeps once;
IOMMU_IOAS_MAP EEXIST 7 mapping-overlap | overlaps a mapping that is | unmap that one first,
IOMMU_IOAS_MAP EINVAL 7 iova-out-of-range | not a multiple of the | vfioctl iommu-info --attach 26
IOMMU_IOAS_MAP EOVERFLOW 7 iova-out-of-range | not a multiple of the | vfioctl iommu-info --attach 26
IOMMU_IOAS_MAP EFAULT 7 memory-not-pinnable | the memory cannot be pinned: | map anonymous memory, huge
IOMMU_IOAS_MAP ENOMEM 7 memlock | 4K cannot be pinned: this | raise RLIMIT_MEMLOCK: in a
IOMMU_IOAS_MAP EBUSY 7 kernel | the IOMMU driver has a | the kernel log may
IOMMU_IOAS_MAP ENOENT 7 no-such-object | the iommufd has no such | it was destroyed, or
IOMMU_IOAS_MAP ENOSPC 7 iova-out-of-range | the address space has no | map less at once;
IOMMU_IOAS_MAP_FILE EEXIST 7 mapping-overlap | overlaps a mapping that is | unmap that one first,
IOMMU_IOAS_MAP_FILE EINVAL 7 memory-not-pinnable | it is neither a memfd | map a memfd; vfioctl
IOMMU_IOAS_MAP_FILE EOVERFLOW 7 iova-out-of-range | not a multiple of the | vfioctl iommu-info --attach 26
IOMMU_IOAS_MAP_FILE EFAULT 7 memory-not-pinnable | the memory cannot be pinned: | map anonymous memory, huge
IOMMU_IOAS_MAP_FILE ENOMEM 7 memlock | 4K cannot be pinned: this | raise RLIMIT_MEMLOCK: in a
IOMMU_IOAS_MAP_FILE EBUSY 7 kernel | the IOMMU driver has a | the kernel log may
IOMMU_IOAS_MAP_FILE ENOENT 7 no-such-object | the iommufd has no such | it was destroyed, or
IOMMU_IOAS_MAP_FILE ENOSPC 7 iova-out-of-range | the address space has no | map less at once;
IOMMU_IOAS_COPY EEXIST 7 mapping-overlap | overlaps a mapping that is | unmap that one first,
IOMMU_IOAS_COPY EINVAL 7 iova-out-of-range | not a multiple of the | vfioctl iommu-info --attach 26
IOMMU_IOAS_COPY EOVERFLOW 7 iova-out-of-range | not a multiple of the | vfioctl iommu-info --attach 26
IOMMU_IOAS_COPY EFAULT 7 memory-not-pinnable | the memory cannot be pinned: | map anonymous memory, huge
IOMMU_IOAS_COPY ENOMEM 7 memlock | 4K cannot be pinned: this | raise RLIMIT_MEMLOCK: in a
IOMMU_IOAS_COPY EBUSY 7 kernel | the IOMMU driver has a | the kernel log may
IOMMU_IOAS_COPY ENOENT 7 not-mapped | not all of the range | copy what is mapped
IOMMU_IOAS_COPY ENOSPC 7 iova-out-of-range | the address space has no | map less at once;
IOMMU_GET_HW_INFO ENOTTY 7 not-supported | the iommufd of this kernel | use a newer kernel
IOMMU_HWPT_ALLOC ENOTTY 7 not-supported | the iommufd of this kernel | use a newer kernel
IOMMU_HWPT_SET_DIRTY_TRACKING ENOTTY 7 not-supported | the iommufd of this kernel | use a newer kernel
IOMMU_HWPT_GET_DIRTY_BITMAP ENOTTY 7 not-supported | the iommufd of this kernel | use a newer kernel
IOMMU_IOAS_MAP_FILE ENOTTY 7 not-supported | the iommufd of this kernel | use a newer kernel
IOMMU_IOAS_CHANGE_PROCESS ENOTTY 7 not-supported | the iommufd of this kernel | use a newer kernel
IOMMU_IOAS_ALLOC ENOTTY 7 no-iommufd | what was opened does not | is /dev/iommu the node
IOMMU_DESTROY ENOENT 7 no-such-object | the iommufd has no such | it was destroyed, or
IOMMU_DESTROY EBUSY 6 object-busy | the address space or page | detach or close what
IOMMU_IOAS_IOVA_RANGES ENOENT 7 no-such-object | the iommufd has no such | it was destroyed, or
IOMMU_IOAS_ALLOW_IOVAS ENOENT 7 no-such-object | the iommufd has no such | it was destroyed, or
IOMMU_IOAS_ALLOW_IOVAS EADDRINUSE 7 iova-reserved | addresses that an attached device | leave them out: vfioctl
IOMMU_IOAS_ALLOW_IOVAS EINVAL 7 iova-out-of-range | the ranges overlap, or one | give ranges that are
IOMMU_IOAS_MAP_FILE EBADF 7 memory-not-pinnable | the file to map is | keep its descriptor open
IOMMU_IOAS_COPY EPERM 7 read-only | the copy is to be | copy it read-only, or
IOMMU_IOAS_UNMAP ENOENT 7 unmap-partial | or it would cut a | unmap exactly what was
IOMMU_IOAS_UNMAP EINVAL 7 unmap-partial | there is nothing to unmap: | give its size in
IOMMU_IOAS_UNMAP EOVERFLOW 7 iova-out-of-range | goes beyond the last address | unmap exactly what was
IOMMU_IOAS_UNMAP EBUSY 6 object-busy | is in use by the | try again; a hardware
IOMMU_IOAS_UNMAP EDEADLOCK 6 object-busy | the driver of a mediated | close the mediated device
IOMMU_OPTION EPERM 4 permission | choosing how locked memory is | run it as root,
IOMMU_OPTION EBUSY 6 object-busy | how locked memory is charged | choose it right after
IOMMU_OPTION EINVAL 7 kernel | the option does not take | options are 0 or
IOMMU_OPTION ENOENT 7 no-such-object | the iommufd has no such | it was destroyed, or
IOMMU_OPTION EOPNOTSUPP 7 not-supported | this kernel does not know | use a newer kernel
IOMMU_VFIO_IOAS ENODEV 7 no-such-object | the iommufd has no address | set one first
IOMMU_VFIO_IOAS ENOENT 7 no-such-object | the iommufd has no such | it was destroyed, or
IOMMU_GET_HW_INFO ENOENT 7 no-such-object | the iommufd has no such | it was destroyed, or
IOMMU_GET_HW_INFO EOPNOTSUPP 7 not-supported | it has none, or its | vfioctl iommu-info 26 shows
IOMMU_HWPT_ALLOC EOPNOTSUPP 7 not-supported | cannot make such a page | make a plain one,
IOMMU_HWPT_ALLOC EINVAL 7 no-such-object | can be made of that: | make it of an
IOMMU_HWPT_ALLOC ENOENT 7 no-such-object | the iommufd has no such | it was destroyed, or
IOMMU_HWPT_ALLOC ENODEV 7 no-iommu | has no IOMMU: nothing can | in no-IOMMU mode devices
IOMMU_HWPT_ALLOC EADDRINUSE 7 iova-reserved | needs for itself are mapped | vfioctl iommu-info --attach 26
IOMMU_HWPT_ALLOC ENOMEM 7 memlock | 4K cannot be pinned: this | raise RLIMIT_MEMLOCK: in a
IOMMU_HWPT_ALLOC EFAULT 7 memory-not-pinnable | the memory cannot be pinned: | map anonymous memory, huge
IOMMU_HWPT_SET_DIRTY_TRACKING EOPNOTSUPP 7 not-supported | the page table was not | make one for it,
IOMMU_HWPT_SET_DIRTY_TRACKING ENOENT 7 no-such-object | the iommufd has no such | it was destroyed, or
IOMMU_HWPT_GET_DIRTY_BITMAP EOPNOTSUPP 7 not-supported | the page table was not | make one for it,
IOMMU_HWPT_GET_DIRTY_BITMAP ENOENT 7 no-such-object | the iommufd has no such | it was destroyed, or
IOMMU_HWPT_GET_DIRTY_BITMAP EINVAL 7 dirty-pages | they are not being tracked, | begin to track first;
IOMMU_IOAS_CHANGE_PROCESS EINVAL 7 not-supported | memory that is not of | only mappings of files
IOMMU_IOAS_CHANGE_PROCESS EBUSY 6 object-busy | something is being unmapped right | try again
IOMMU_IOAS_CHANGE_PROCESS ENOMEM 7 memlock | 4K cannot be pinned: this | raise RLIMIT_MEMLOCK: in a
open-iommufd ENOENT 7 no-iommufd | there is no /dev/iommu: this | modprobe iommufd (Linux 6.2
open-iommufd ENODEV 7 no-iommufd | there is no /dev/iommu: this | modprobe iommufd (Linux 6.2
open-iommufd ENXIO 7 no-iommufd | there is no /dev/iommu: this | modprobe iommufd (Linux 6.2
open-iommufd EACCES 4 permission | no permission to open /dev/iommu | as root: setfacl -m
open-iommufd EPERM 4 permission | opening /dev/iommu is not permitted, | EPERM is what a
open-device ENOENT 1 no-device-node | is not bound to a | device nodes take Linux
open-device ENODEV 1 no-device-node | is just leaving its VFIO | then vfioctl bind
open-device ENXIO 1 no-device-node | is just leaving its VFIO | then vfioctl bind
open-device EACCES 4 permission | the caller may not open | as root: vfioctl permit
open-device EPERM 4 permission | the caller may not open | --user NAME; where the
VFIO_DEVICE_BIND_IOMMUFD EINVAL 7 kernel | cannot be bound to the | the kernel log and
VFIO_DEVICE_BIND_IOMMUFD EBUSY 6 group-busy | is open through its own | a device is bound
VFIO_DEVICE_BIND_IOMMUFD EBADF 7 kernel | the kernel does not take | is /dev/iommu the node
VFIO_DEVICE_BIND_IOMMUFD EBADFD 7 kernel | the kernel does not take | is /dev/iommu the node
VFIO_DEVICE_BIND_IOMMUFD EPERM 1 not-viable | is not viable: a host | (vfioctl check-viable 26 tells
VFIO_DEVICE_BIND_IOMMUFD EACCES 4 permission | takes a VF token: its | give the token that
VFIO_DEVICE_BIND_IOMMUFD EAGAIN 6 busy | is locked: it is being | try again
VFIO_DEVICE_BIND_IOMMUFD ENODEV 1 no-device-node | is just leaving its VFIO | then vfioctl bind
VFIO_DEVICE_BIND_IOMMUFD E2BIG 7 not-supported | this kernel takes no VF | that came with Linux
VFIO_DEVICE_BIND_IOMMUFD ENOTTY 7 no-device-node | this kernel has no device | they take Linux 6.6
VFIO_DEVICE_ATTACH_IOMMUFD_PT ENOENT 7 no-such-object | the iommufd has no such | it was destroyed, or
VFIO_DEVICE_ATTACH_IOMMUFD_PT EINVAL 7 kernel | cannot use that page table: | bind the device first;
VFIO_DEVICE_ATTACH_IOMMUFD_PT EADDRINUSE 7 iova-reserved | needs for itself are mapped | vfioctl iommu-info --attach 26
VFIO_DEVICE_ATTACH_IOMMUFD_PT ENOMEM 7 memlock | 4K cannot be pinned: this | raise RLIMIT_MEMLOCK: in a
VFIO_DEVICE_ATTACH_IOMMUFD_PT EFAULT 7 memory-not-pinnable | the memory cannot be pinned: | map anonymous memory, huge
VFIO_DEVICE_ATTACH_IOMMUFD_PT EBUSY 6 device-busy | is attached already, by itself | detach it first
VFIO_DEVICE_ATTACH_IOMMUFD_PT EOPNOTSUPP 7 not-supported | cannot be attached with a | attach it without; PASIDs
VFIO_DEVICE_ATTACH_IOMMUFD_PT ENOTTY 7 not-supported | cannot be attached or detached: | a device that was
VFIO_DEVICE_DETACH_IOMMUFD_PT EINVAL 7 kernel | cannot be detached: it is | bind it first; closing
VFIO_DEVICE_DETACH_IOMMUFD_PT EOPNOTSUPP 7 not-supported | cannot be attached with a | attach it without; PASIDs
VFIO_DEVICE_DETACH_IOMMUFD_PT ENOTTY 7 not-supported | cannot be attached or detached: | a device that was
VFIO_IOMMU_SPAPR_TCE_GET_INFO ENXIO 7 kernel | the container has no group, | the order is: container,
VFIO_IOMMU_SPAPR_TCE_GET_INFO EINVAL 7 kernel | the container has no group, | the order is: container,
VFIO_IOMMU_ENABLE EBUSY 6 object-busy | the container is enabled already | there is nothing to
VFIO_IOMMU_ENABLE ENODEV 7 kernel | the container has no group, | the order is: container,
VFIO_IOMMU_ENABLE EPERM 4 permission | the container cannot be enabled: | use the spapr-v2 backend;
VFIO_IOMMU_ENABLE ENOMEM 7 memlock | 4K cannot be pinned: this | raise RLIMIT_MEMLOCK: in a
VFIO_IOMMU_ENABLE ENOTTY 7 not-supported | the container is not of | map without it
VFIO_IOMMU_DISABLE ENOTTY 7 not-supported | the container is not of | unmap without it
VFIO_IOMMU_SPAPR_REGISTER_MEMORY EBUSY 6 object-busy | the memory is registered already | there is nothing to
VFIO_IOMMU_SPAPR_REGISTER_MEMORY EINVAL 7 memory-not-pinnable | the memory cannot be registered: | each buffer once
VFIO_IOMMU_SPAPR_REGISTER_MEMORY ENOMEM 7 memlock | 4K cannot be pinned: this | raise RLIMIT_MEMLOCK: in a
VFIO_IOMMU_SPAPR_REGISTER_MEMORY EFAULT 7 memory-not-pinnable | the memory cannot be pinned: | map anonymous memory
VFIO_IOMMU_SPAPR_REGISTER_MEMORY EPERM 4 permission | a container of POWER belongs | let that process do
VFIO_IOMMU_SPAPR_REGISTER_MEMORY ENOTTY 7 not-supported | the container is not of | open it with the
VFIO_IOMMU_SPAPR_UNREGISTER_MEMORY ENOENT 7 not-mapped | the memory is not registered | unregister exactly what was
VFIO_IOMMU_SPAPR_UNREGISTER_MEMORY EBUSY 6 object-busy | the memory is still mapped | unmap it first
VFIO_IOMMU_SPAPR_UNREGISTER_MEMORY EINVAL 7 not-mapped | memory is registered in whole | unregister exactly what was
VFIO_IOMMU_SPAPR_UNREGISTER_MEMORY EPERM 4 permission | a container of POWER belongs | let that process do
VFIO_IOMMU_SPAPR_UNREGISTER_MEMORY ENOTTY 7 not-supported | the container is not of | open it with the
VFIO_IOMMU_SPAPR_TCE_CREATE EINVAL 7 window-invalid | the platform does not make | its windows are told
VFIO_IOMMU_SPAPR_TCE_CREATE ENOSPC 7 no-window-left | all windows of the container | remove one first; the
VFIO_IOMMU_SPAPR_TCE_CREATE EPERM 7 not-supported | the platform makes no windows, | map inside of the
VFIO_IOMMU_SPAPR_TCE_CREATE ENOMEM 7 memlock | 4K cannot be pinned: this | raise RLIMIT_MEMLOCK: in a
VFIO_IOMMU_SPAPR_TCE_CREATE ENXIO 7 kernel | the container has no group, | the order is: container,
VFIO_IOMMU_SPAPR_TCE_CREATE ENOTTY 7 not-supported | the container is not of | open it with the
VFIO_IOMMU_SPAPR_TCE_REMOVE EINVAL 7 window-invalid | no window starts at that | its windows are told
VFIO_IOMMU_SPAPR_TCE_REMOVE EPERM 7 not-supported | the platform does not remove | map inside of it;
VFIO_IOMMU_SPAPR_TCE_REMOVE ENXIO 7 kernel | the container has no group, | the order is: container,
VFIO_IOMMU_SPAPR_TCE_REMOVE ENOTTY 7 not-supported | the container is not of | open it with the
VFIO_EEH_PE_OP ENODEV 7 no-eeh | has no partitionable endpoint: EEH | EEH takes a POWER
VFIO_EEH_PE_OP EINVAL 7 eeh-invalid | EEH does not take that: | the types and functions
VFIO_EEH_PE_OP ENOTTY 7 no-eeh | the container has no EEH: | VFIO_EEH is an extension
VFIO_EEH_PE_OP EPERM 7 no-eeh | EEH is not enabled on | eeh=off may stand on
VFIO_EEH_PE_OP ENOENT 7 no-eeh | the platform cannot do that: | the firmware decides that
VFIO_EEH_PE_OP ENXIO 7 no-eeh | the firmware injects no errors | that takes OPAL with
VFIO_EEH_PE_OP ERANGE 7 eeh-invalid | the error to inject is | the types and functions
VFIO_EEH_PE_OP EIO 7 eeh-failed | the firmware could not do | the kernel log says
"""

#: The same, of calls that mean something else on sPAPR.
SPAPR_ROWS = """
VFIO_GROUP_SET_CONTAINER EPERM 7 not-supported | cannot be in a container | use a container of
VFIO_SET_IOMMU EPERM 7 not-supported | cannot be in a container | use a container of
VFIO_GROUP_SET_CONTAINER EBUSY 6 group-busy | as well: with sPAPR v1 | use a container for
VFIO_SET_IOMMU EBUSY 6 group-busy | as well: with sPAPR v1 | use a container for
VFIO_SET_IOMMU EINVAL 7 not-supported | has no windows that | the spapr-v1 backend
VFIO_IOMMU_MAP_DMA EPERM 4 permission | the memory is not registered | register it before mapping,
VFIO_IOMMU_MAP_DMA ENODEV 7 no-window-left | the default window for | the same host bridge
VFIO_IOMMU_MAP_DMA ENXIO 7 iova-out-of-range | is outside of every window | map inside of one;
VFIO_IOMMU_MAP_DMA EINVAL 7 iova-out-of-range | cannot be mapped: it is | its windows are told
VFIO_IOMMU_UNMAP_DMA EPERM 4 permission | the memory is not registered | register it before mapping,
VFIO_IOMMU_UNMAP_DMA ENXIO 7 iova-out-of-range | is outside of every window | map inside of one;
VFIO_IOMMU_UNMAP_DMA EINVAL 7 iova-out-of-range | is not a multiple of | its windows are told
"""

Row = tuple[str, str, int, str, str, str]


def rows(table: str) -> list[Row]:
    found = []
    for line in table.strip().splitlines():
        first, message, hint = line.split(" | ")
        call, name, status, code = first.split()
        found.append((call, name, int(status), code, message, hint))
    return found


def check(state: State, row: Row) -> None:
    call, name, status, code, message, hint = row
    path = NODES.get(call)
    error = explain("open" if path else call, getattr(errno, name), state, path)
    assert (error.status, error.code, error.errno_name) == (ExitStatus(status), code, name)
    assert message in error.message
    assert error.hint is not None
    assert hint in error.hint
    of_device = call.startswith("VFIO_DEVICE_") and code != "not-viable"
    assert error.subject == (DEVICE if of_device else "26")


@pytest.mark.parametrize("row", rows(ROWS), ids=lambda row: "-".join(row[:2]))
def test_refusal(row: Row) -> None:
    check(here, row)


@pytest.mark.parametrize("row", rows(SPAPR_ROWS), ids=lambda row: "-".join(row[:2]))
def test_refusal_of_spapr(row: Row) -> None:
    check(here._replace(backend="spapr-v2"), row)


def test_every_entry_has_a_row() -> None:
    tested = {(call.replace("-", " "), getattr(errno, name)) for call, name, *_ in rows(ROWS)}
    others = {(call, getattr(errno, name)) for call, name, *_ in OTHERS}
    calls = {each for each in TABLE if not each[0].startswith(("open ", "write ", "set ", "load "))}
    assert calls - tested - others == {("VFIO_GET_API_VERSION", errno.EINVAL)}
    assert not tested & others
    assert set(ON_SPAPR) == {(call, getattr(errno, name)) for call, name, *_ in rows(SPAPR_ROWS)}


@pytest.mark.parametrize(("call", "number"), ON_SPAPR)
@pytest.mark.parametrize("backend", ["spapr-v1", "spapr-v2"])
def test_any_state_of_spapr_will_do(call: str, number: int, backend: str) -> None:
    error = explain(call, number, State(backend=backend))
    assert isinstance(error, VfioctlError)
    assert error.message and error.hint
    assert "None" not in error.message + error.hint


BIND = "VFIO_DEVICE_BIND_IOMMUFD"
ATTACH = "VFIO_DEVICE_ATTACH_IOMMUFD_PT"
MAP = "VFIO_IOMMU_MAP_DMA"
SET_CONTAINER = "VFIO_GROUP_SET_CONTAINER"
blocked = here._replace(viable=False, blocking=(("0000:06:0d.1", "snd_emu10k1"),))
unsafe = here._replace(viable=True, interrupts_isolated=False)
limited = here._replace(size=16 << 20, memlock_limit=8 << 20, memlock_locked=1 << 20)
spapr_v1 = here._replace(backend="spapr-v1")


@pytest.mark.parametrize(
    ("call", "name", "state", "code", "message", "hint"),
    [
        (BIND, "EINVAL", here._replace(direct_region=True), "direct-region", "1:1", "reserved_regions"),
        (BIND, "EINVAL", here._replace(holders=("qemu (42)",)), "device-busy", "qemu (42)", "one user"),
        (BIND, "EBUSY", here._replace(holders=("qemu (42)",)), "group-busy", "node: qemu (42)", "holders 26"),
        (BIND, "EPERM", blocked, "not-viable", "0000:06:0d.1 (snd_emu10k1)", "vfioctl bind --group 26"),
        (BIND, "EPERM", unsafe, "interrupts-not-isolated", "forge", "/sys/module/iommufd/"),
        (BIND, "EPERM", here._replace(noiommu=True), "permission", "CAP_SYS_RAWIO", "root"),
        ("VFIO_GROUP_GET_DEVICE_FD", "EPERM", unsafe, "interrupts-not-isolated", "forge", "module/iommufd/"),
        ("VFIO_GROUP_GET_DEVICE_FD", "EINVAL", here._replace(direct_region=True), "direct-region", "1:1", "RMRR"),
        ("VFIO_SET_IOMMU", "EPERM", unsafe, "interrupts-not-isolated", "forge", "/vfio_iommu_type1/"),
        (SET_CONTAINER, "EPERM", unsafe, "interrupts-not-isolated", "forge", "/vfio_iommu_type1/"),
        (ATTACH, "ENOMEM", limited, "memlock", "17M are needed", "ulimit -l 17408"),
        (ATTACH, "ENOMEM", limited._replace(per_user=True), "memlock", "of this user together", "ulimit"),
        (ATTACH, "ENOMEM", limited._replace(memlock_limit=None), "no-memory", "not enough memory", "free"),
        (MAP, "EPERM", spapr_v1, "permission", "not enabled", "enable it"),
        (SET_CONTAINER, "EPERM", blocked._replace(backend="spapr-v2"), "not-viable", "snd_emu10k1", "bind"),
        (MAP, "EEXIST", spapr_v1, "mapping-overlap", "overlaps", "unmap"),
    ],
)  # fmt: skip
def test_one_errno_with_several_meanings(
    call: str, name: str, state: State, code: str, message: str, hint: str
) -> None:
    error = explain(call, getattr(errno, name), state)
    assert (error.code, error.errno_name) == (code, name)
    assert message in error.message
    assert hint in (error.hint or "")


@pytest.mark.parametrize("path", ["/dev/iommu", "/dev/vfio/devices/vfio0"])
def test_nodes_that_may_not_be_opened(path: str) -> None:
    error = explain("open", errno.EPERM, here._replace(noiommu=True, user="eve"), path)
    assert (error.status, error.code) == (ExitStatus.PERMISSION, "permission")
    assert ("CAP_SYS_RAWIO" in error.message) is (path != "/dev/iommu")


def test_ownership_of_a_device_node() -> None:
    state = here._replace(node_owner="root:root", node_mode="0600", user="eve")
    error = explain("open", errno.EACCES, state, "/dev/vfio/devices/vfio0")
    assert error.message == "user eve may not open /dev/vfio/devices/vfio0 (owner root:root, mode 0600)"
    assert error.hint == f"as root: vfioctl permit {DEVICE} --user eve"
