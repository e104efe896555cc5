"""Refusals of /dev/vfio/vfio and of the group nodes (floor 3, pure)."""

from __future__ import annotations

import errno

from vfioctl.errors import Busy, KernelRefusal, No, PermissionDenied, VfioctlError
from vfioctl.policy.refusals.state import Refusal, Table, ownership


def _open_group_absent(refusal: Refusal) -> VfioctlError:
    return No(
        f"no device of {refusal.group} is bound to a VFIO driver, so there is no {refusal.path or 'group node'}",
        code="no-vfio-member",
        hint=f"vfioctl bind --group {refusal.argument}",
    )


def _open_group_denied(refusal: Refusal) -> VfioctlError:
    if refusal.state.noiommu:
        return PermissionDenied(
            f"{refusal.group} is a no-IOMMU group: opening it takes the capability CAP_SYS_RAWIO",
            hint="run it as root; nothing protects the host's memory from such a device",
        )
    who = f"user {refusal.state.user}" if refusal.state.user else "the caller"
    return PermissionDenied(
        f"{who} may not open {refusal.path or 'the node of ' + refusal.group}{ownership(refusal.state)}",
        hint=f"as root: vfioctl permit {refusal.argument} --user {refusal.state.user or 'NAME'}",
    )


def _open_group_not_permitted(refusal: Refusal) -> VfioctlError:
    error = _open_group_denied(refusal)
    if not refusal.state.noiommu:
        error.hint = (
            f"{error.hint}; where the file mode does allow it, a container's device rules may not:"
            " EPERM is what a device cgroup answers"
        )
    return error


def _open_group_busy(refusal: Refusal) -> VfioctlError:
    by = f": {', '.join(refusal.state.holders)}" if refusal.state.holders else ""
    return Busy(
        f"{refusal.group} is in use{by}",
        code="group-busy",
        hint="a group has one user at a time: a virtual machine, DPDK, or a program that has one of its devices"
        f" open; see who: vfioctl holders {refusal.argument}",
    )


def group_gone(refusal: Refusal) -> VfioctlError:
    return No(
        f"the last VFIO device of {refusal.group} has just left it",
        code="no-vfio-member",
        hint=f"vfioctl list-groups {refusal.argument}, then vfioctl bind --group {refusal.argument}",
    )


def _open_container_absent(refusal: Refusal) -> VfioctlError:
    return KernelRefusal(
        f"there is no {refusal.path or '/dev/vfio/vfio'}: VFIO is not loaded",
        code="no-vfio-module",
        hint="modprobe vfio-pci  (in a container, the node has to be passed in)",
    )


def _open_container_denied(refusal: Refusal) -> VfioctlError:
    path = refusal.path or "/dev/vfio/vfio"
    return PermissionDenied(
        f"no permission to open {path}{ownership(refusal.state)}",
        hint=f"the kernel makes it open to everybody, because it gives no access to any device: chmod 0666 {path},"
        " and look for the udev rule that changed it",
    )


def _api_version(refusal: Refusal) -> VfioctlError:
    return KernelRefusal(
        f"{refusal.path or '/dev/vfio/vfio'} does not answer as VFIO does",
        code="no-vfio-module",
        hint="modprobe vfio-pci; does the node have the major and minor number of /sys/class/misc/vfio/dev?",
    )


REFUSALS: Table = {
    ("open container", errno.ENOENT): _open_container_absent,
    ("open container", errno.ENODEV): _open_container_absent,
    ("open container", errno.ENXIO): _open_container_absent,
    ("open container", errno.EACCES): _open_container_denied,
    ("open container", errno.EPERM): _open_container_denied,
    ("open group", errno.ENOENT): _open_group_absent,
    ("open group", errno.EACCES): _open_group_denied,
    ("open group", errno.EPERM): _open_group_not_permitted,
    ("open group", errno.EBUSY): _open_group_busy,
    ("open group", errno.ENODEV): group_gone,
    ("open group", errno.ENXIO): group_gone,
    ("VFIO_GET_API_VERSION", errno.ENOTTY): _api_version,
    ("VFIO_GET_API_VERSION", errno.EINVAL): _api_version,
    ("VFIO_GROUP_GET_STATUS", errno.ENODEV): group_gone,
}
