"""Refusals of /dev/vfio/vfio and of the group nodes (floor 3, pure)."""

from __future__ import annotations

import errno

from vfioctl.errors import Busy, No, PermissionDenied
from vfioctl.model import Look
from vfioctl.policy.refusals import evidence
from vfioctl.policy.refusals.words import Table, When, says

NOIOMMU = When("it is in no-IOMMU mode", lambda refusal: refusal.state.noiommu)

_absent = says(
    "no device of {group} is bound to a VFIO driver, so there is no {path}",
    code="no-vfio-member",
    hint="vfioctl bind --group {GROUP}",
    kind=No,
)
_noiommu_denied = says(
    "{group} is a no-IOMMU group: opening it takes the capability CAP_SYS_RAWIO",
    code="permission",
    hint="run it as root; nothing protects the host's memory from such a device",
    kind=PermissionDenied,
    when=NOIOMMU,
)
_denied = says(
    "{who} may not open {path}{ownership}",
    code="permission",
    hint="as root: vfioctl permit {GROUP} --user {NAME}",
    kind=PermissionDenied,
    look=evidence.NODE,
)
_not_permitted = says(
    "{who} may not open {path}{ownership}",
    code="permission",
    hint="as root: vfioctl permit {GROUP} --user {NAME}; where the file mode does allow it, a container's device rules"
    " may not: EPERM is what a device cgroup answers",
    kind=PermissionDenied,
    look=evidence.NODE,
)
group_gone = says(
    "the last VFIO device of {group} has just left it",
    code="no-vfio-member",
    hint="vfioctl list-groups {GROUP}, then vfioctl bind --group {GROUP}",
    kind=No,
)
_no_container = says(
    "there is no {path}: VFIO is not loaded",
    code="no-vfio-module",
    hint="modprobe vfio-pci  (in a container, the node has to be passed in)",
)
_container_denied = says(
    "no permission to open {path}{ownership}",
    code="permission",
    hint="the kernel makes it open to everybody, because it gives no access to any device: chmod 0666 {path},"
    " and look for the udev rule that changed it",
    kind=PermissionDenied,
    look=evidence.NODE,
)
_not_vfio = says(
    "{path} does not answer as VFIO does",
    code="no-vfio-module",
    hint="modprobe vfio-pci; does the node have the major and minor number of /sys/class/misc/vfio/dev?",
)
too_many_files = says(
    "too many files are open in one process",
    code="too-many-files",
    hint="raise the limit of open files: in a shell 'ulimit -n NUMBER', in a systemd unit 'LimitNOFILE=NUMBER'",
    look=(Look("/proc/self/limits", "^Max open files"),),
)

REFUSALS: Table = {
    **{
        (f"open {node}", errno.EMFILE): too_many_files for node in ("container", "group", "iommufd", "device")
    },
    ("open container", errno.ENOENT): _no_container,
    ("open container", errno.ENODEV): _no_container,
    ("open container", errno.ENXIO): _no_container,
    ("open container", errno.EACCES): _container_denied,
    ("open container", errno.EPERM): _container_denied,
    ("open group", errno.ENOENT): _absent,
    ("open group", errno.EACCES): _noiommu_denied + _denied,
    ("open group", errno.EPERM): _noiommu_denied + _not_permitted,
    ("open group", errno.EBUSY): says(
        "{group} is in use{holders}",
        code="group-busy",
        hint="a group has one user at a time: a virtual machine, DPDK, or a program that has one of its devices"
        " open; see who: vfioctl holders {GROUP}",
        kind=Busy,
        look=evidence.HELD,
    ),
    ("open group", errno.ENODEV): group_gone,
    ("open group", errno.ENXIO): group_gone,
    ("VFIO_GET_API_VERSION", errno.ENOTTY): _not_vfio,
    ("VFIO_GET_API_VERSION", errno.EINVAL): _not_vfio,
    ("VFIO_GROUP_GET_STATUS", errno.ENODEV): group_gone,
}
