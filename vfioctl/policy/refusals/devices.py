"""Refusals to open a device of a group (floor 3, pure)."""

from __future__ import annotations

import errno

from vfioctl.errors import Busy, KernelRefusal, NotFound, PermissionDenied, VfioctlError
from vfioctl.policy.refusals import containers
from vfioctl.policy.refusals.state import Refusal, Table
from vfioctl.policy.refusals.words import says


def _device_absent(refusal: Refusal) -> VfioctlError:
    return NotFound(
        f"{refusal.state.device or 'the device'} is not bound to a VFIO driver in {refusal.group}",
        hint=f"vfioctl list-devices --group {refusal.argument}",
    )


def _device_invalid(refusal: Refusal) -> VfioctlError:
    # Up to 5.18 a group that is not viable is refused only here.
    if refusal.state.viable is False:
        return containers.not_viable(refusal.state, refusal.number)
    # With iommufd in the place of the container, such a region is refused only here.
    if refusal.state.direct_region:
        return containers.direct_region(refusal)
    return KernelRefusal(
        f"{refusal.state.device or 'the device'} cannot be opened: {refusal.group} has no container with an IOMMU"
        " yet, or the VF token is malformed",
        hint="the order is: container, group, IOMMU, device; a VF token is vf_token= and a UUID of 36 characters",
    )


def device_token(refusal: Refusal) -> VfioctlError:
    """The refusal of a device that takes a VF token."""
    return PermissionDenied(
        f"{refusal.state.device or 'the device'} takes a VF token: its physical function belongs to a VFIO user",
        hint="give the token that the user of the physical function has set (vf_token=UUID)",
    )


def device_locked(refusal: Refusal) -> VfioctlError:
    """The refusal of a device that somebody else is changing."""
    return Busy(
        f"{refusal.state.device or 'the device'} is locked: it is being reset or bound right now",
        hint="try again",
    )


def device_permission(refusal: Refusal) -> VfioctlError:
    """The refusal to claim a device for iommufd."""
    # iommufd serving as the container claims ownership per device, so viability shows only here.
    if refusal.state.noiommu or refusal.state.viable is False:
        return containers.set_container_permission(refusal)
    if refusal.state.interrupts_isolated is False:
        return containers.set_iommu_permission(refusal)
    return containers.not_viable(refusal.state, refusal.number)


REFUSALS: Table = {
    ("VFIO_GROUP_GET_DEVICE_FD", errno.EIO): says(
        "{device} does not start: it cannot be enabled, or its power cannot be turned on",
        code="device-dead",
        hint="the kernel log (dmesg) says more; the slot or the machine may have to be switched off and on",
    ),
    ("VFIO_GROUP_GET_DEVICE_FD", errno.EBUSY): says(
        "the driver of {device} does not let it be opened now{holders}",
        code="device-busy",
        hint="vfioctl holders {DEVICE}; a mediated device has one user at a time",
        kind=Busy,
    ),
    ("VFIO_GROUP_GET_DEVICE_FD", errno.ENODEV): _device_absent,
    ("VFIO_GROUP_GET_DEVICE_FD", errno.EINVAL): _device_invalid,
    ("VFIO_GROUP_GET_DEVICE_FD", errno.EACCES): device_token,
    ("VFIO_GROUP_GET_DEVICE_FD", errno.EAGAIN): device_locked,
    ("VFIO_GROUP_GET_DEVICE_FD", errno.EPERM): device_permission,
}
