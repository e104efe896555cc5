"""Refusals of /dev/iommu and of device nodes, and to bind and attach a device by its own node (floor 3, pure).

Source: drivers/vfio/device_cdev.c, drivers/vfio/iommufd.c, drivers/iommu/iommufd/device.c.
"""

from __future__ import annotations

import errno

from vfioctl.errors import Busy, No, PermissionDenied
from vfioctl.policy.refusals import evidence
from vfioctl.policy.refusals.containers import DIRECT, direct_region
from vfioctl.policy.refusals.devices import device_locked, device_permission, device_token
from vfioctl.policy.refusals.iommufd import no_object, reserved_addresses
from vfioctl.policy.refusals.mappings import map_fault, map_memory
from vfioctl.policy.refusals.nodes import NOIOMMU
from vfioctl.policy.refusals.words import Table, When, only, says

_no_iommufd = says(
    "there is no {path}: this kernel has no iommufd, or it is not loaded",
    code="no-iommufd",
    hint="modprobe iommufd (Linux 6.2 and later, with CONFIG_IOMMUFD); without it, containers of type1 do the same",
)
_no_device_node = says(
    "there is no {path}: {device} is not bound to a VFIO driver, or this kernel has no device nodes",
    code="no-device-node",
    hint="vfioctl bind {DEVICE}; device nodes take Linux 6.6 and CONFIG_VFIO_DEVICE_CDEV, without which the group's"
    " node does the same",
    kind=No,
)
_device_gone = says(
    "{device} is just leaving its VFIO driver",
    code="no-device-node",
    hint="vfioctl show {DEVICE}, then vfioctl bind {DEVICE}",
    kind=No,
)
_not_an_iommufd = says(
    "the kernel does not take the descriptor for {device}: it is not an iommufd",
    code="kernel",
    hint="is /dev/iommu the node of the misc device iommu? Compare /sys/class/misc/iommu/dev",
)
_no_pasid = says(
    "{device} cannot be attached with a PASID: it, its driver or the IOMMU has none",
    code="not-supported",
    hint="attach it without; PASIDs take Linux 6.15 and a device with that capability",
)
_not_by_its_node = says(
    "{device} cannot be attached or detached: it was opened through its group, or this kernel has no device nodes",
    code="not-supported",
    hint="a device that was opened through its group uses the container of that",
)


_denied = says(
    "{who} may not open {path}{ownership}",
    code="permission",
    hint="as root: vfioctl permit {SUBJECT} --user {NAME}",
    kind=PermissionDenied,
    look=evidence.NODE,
)
_not_permitted = says(
    "{device} has no IOMMU: opening it takes the capability CAP_SYS_RAWIO",
    code="permission",
    hint="run it as root; nothing protects the host's memory from such a device",
    kind=PermissionDenied,
    when=NOIOMMU,
) + says(
    "{who} may not open {path}{ownership}",
    code="permission",
    hint="as root: vfioctl permit {SUBJECT} --user {NAME}; where the file mode does allow it, a container's device"
    " rules may not: EPERM is what a device cgroup answers",
    kind=PermissionDenied,
    look=evidence.NODE,
)
_HELD = When("somebody is seen to have it", lambda refusal: bool(refusal.state.holders))

REFUSALS: Table = {
    ("open iommufd", errno.ENOENT): _no_iommufd,
    ("open iommufd", errno.ENODEV): _no_iommufd,
    ("open iommufd", errno.ENXIO): _no_iommufd,
    ("open iommufd", errno.EACCES): says(
        "no permission to open {path}",
        code="permission",
        hint="as root: setfacl -m u:NAME:rw {path}; it gives no access to any device",
        kind=PermissionDenied,
        look=evidence.NODE,
    ),
    ("open iommufd", errno.EPERM): says(
        "opening {path} is not permitted, whatever its mode says",
        code="permission",
        hint="EPERM is what a device cgroup answers: allow the node in the container's device rules",
        kind=PermissionDenied,
        look=evidence.NODE,
    ),
    ("open device", errno.ENOENT): _no_device_node,
    ("open device", errno.ENODEV): _device_gone,
    ("open device", errno.ENXIO): _device_gone,
    ("open device", errno.EACCES): _denied,
    ("open device", errno.EPERM): _not_permitted,
    ("VFIO_DEVICE_BIND_IOMMUFD", errno.EINVAL): only(DIRECT, direct_region)
    + says(
        "{device} is bound to another iommufd{holders}",
        code="device-busy",
        hint="a device has one user at a time: end that one first",
        kind=Busy,
        when=_HELD,
    )
    + says(
        "{device} cannot be bound to the iommufd: it is bound already, the firmware demands a 1:1 mapping for it,"
        " its IOMMU is not coherent with the CPU's caches, or it takes no VF token",
        code="kernel",
        hint="vfioctl holders {DEVICE}; the kernel log and a line ending in 'direct' in"
        " /sys/kernel/iommu_groups/{GROUP}/reserved_regions tell which",
        look=evidence.DIRECT,
    ),
    ("VFIO_DEVICE_BIND_IOMMUFD", errno.EBUSY): says(
        "{group} is open through its own node{holders}",
        code="group-busy",
        hint="a device is bound by its own node only while nobody has that of its group open: vfioctl holders {GROUP}",
        kind=Busy,
    ),
    ("VFIO_DEVICE_BIND_IOMMUFD", errno.EBADF): _not_an_iommufd,
    ("VFIO_DEVICE_BIND_IOMMUFD", errno.EBADFD): _not_an_iommufd,
    ("VFIO_DEVICE_BIND_IOMMUFD", errno.EPERM): device_permission,
    ("VFIO_DEVICE_BIND_IOMMUFD", errno.EACCES): device_token,
    ("VFIO_DEVICE_BIND_IOMMUFD", errno.EAGAIN): device_locked,
    ("VFIO_DEVICE_BIND_IOMMUFD", errno.ENODEV): _device_gone,
    ("VFIO_DEVICE_BIND_IOMMUFD", errno.E2BIG): says(
        "this kernel takes no VF token where a device is bound by its own node",
        code="not-supported",
        hint="that came with Linux 6.17: open the device through its group",
    ),
    ("VFIO_DEVICE_BIND_IOMMUFD", errno.ENOTTY): says(
        "this kernel has no device nodes to bind",
        code="no-device-node",
        hint="they take Linux 6.6 and CONFIG_VFIO_DEVICE_CDEV: open the device through its group",
    ),
    ("VFIO_DEVICE_ATTACH_IOMMUFD_PT", errno.ENOENT): no_object,
    ("VFIO_DEVICE_ATTACH_IOMMUFD_PT", errno.EINVAL): says(
        "{device} cannot use that page table: it is of another IOMMU, another device of {group} is attached to another"
        " one, the device is not bound, or this kernel knows no PASIDs",
        code="kernel",
        hint="bind the device first; attach it to the address space, for which the kernel finds or makes a page table",
    ),
    ("VFIO_DEVICE_ATTACH_IOMMUFD_PT", errno.EADDRINUSE): reserved_addresses,
    # What is mapped before a device is attached is pinned only now.
    ("VFIO_DEVICE_ATTACH_IOMMUFD_PT", errno.ENOMEM): map_memory,
    ("VFIO_DEVICE_ATTACH_IOMMUFD_PT", errno.EFAULT): map_fault,
    ("VFIO_DEVICE_ATTACH_IOMMUFD_PT", errno.EBUSY): says(
        "{device} is attached already, by itself or with a PASID",
        code="device-busy",
        hint="detach it first",
        kind=Busy,
    ),
    ("VFIO_DEVICE_ATTACH_IOMMUFD_PT", errno.EOPNOTSUPP): _no_pasid,
    ("VFIO_DEVICE_ATTACH_IOMMUFD_PT", errno.ENOTTY): _not_by_its_node,
    ("VFIO_DEVICE_DETACH_IOMMUFD_PT", errno.EINVAL): says(
        "{device} cannot be detached: it is not bound to an iommufd, or this kernel knows no PASIDs",
        code="kernel",
        hint="bind it first; closing it detaches it too",
    ),
    ("VFIO_DEVICE_DETACH_IOMMUFD_PT", errno.EOPNOTSUPP): _no_pasid,
    ("VFIO_DEVICE_DETACH_IOMMUFD_PT", errno.ENOTTY): _not_by_its_node,
}
