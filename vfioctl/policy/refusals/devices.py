"""Refusals to open a device of a group (floor 3, pure)."""

from __future__ import annotations

import errno

from vfioctl.errors import Busy, NotFound, PermissionDenied
from vfioctl.policy.refusals import containers, evidence
from vfioctl.policy.refusals.nodes import NOIOMMU, too_many_files
from vfioctl.policy.refusals.words import Table, When, only, says

_NOT_VIABLE = When("it is not viable", lambda refusal: refusal.state.viable is False)
_UNSAFE = When("interrupts are not isolated", lambda refusal: refusal.state.interrupts_isolated is False)

device_token = says(
    "{device} takes a VF token: its physical function belongs to a VFIO user",
    code="permission",
    hint="give the token that the user of the physical function has set: vfioctl container open NAME {DEVICE}"
    " --vf-token UUID",
    kind=PermissionDenied,
)
device_locked = says(
    "{device} is locked: it is being reset or bound right now", code="busy", hint="try again", kind=Busy
)
#: To claim a device for iommufd: with that in the container's place, viability shows only here.
device_permission = (
    only(NOIOMMU, containers.noiommu_use)
    + only(_NOT_VIABLE, containers.not_viable)
    + only(_UNSAFE, containers.unsafe_interrupts)
    + containers.not_viable
)

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
    ("VFIO_GROUP_GET_DEVICE_FD", errno.ENODEV): says(
        "{device} is not bound to a VFIO driver in {group}",
        code="not-found",
        hint="vfioctl list-devices --group {GROUP}",
        kind=NotFound,
        look=evidence.DRIVER,
    ),
    # Up to 5.18 a group that is not viable is refused only here; with iommufd in the place of the container, one with
    # a 1:1 region.
    ("VFIO_GROUP_GET_DEVICE_FD", errno.EINVAL): only(_NOT_VIABLE, containers.not_viable)
    + only(containers.DIRECT, containers.direct_region)
    + says(
        "{device} cannot be opened: {group} has no container with an IOMMU yet, or the VF token is malformed",
        code="kernel",
        hint="the order is: container, group, IOMMU, device; a VF token is vf_token= and a UUID of 36 characters",
    ),
    ("VFIO_GROUP_GET_DEVICE_FD", errno.ENOMEM): says(
        "the kernel has no memory left to open {device}", code="no-memory", hint="free memory, then try again"
    ),
    ("VFIO_GROUP_GET_DEVICE_FD", errno.EMFILE): too_many_files,
    ("VFIO_GROUP_GET_DEVICE_FD", errno.EACCES): device_token,
    ("VFIO_GROUP_GET_DEVICE_FD", errno.EAGAIN): device_locked,
    ("VFIO_GROUP_GET_DEVICE_FD", errno.EPERM): device_permission,
}
