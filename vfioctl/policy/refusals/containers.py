"""Refusals to put a group into a container and to give that an IOMMU (floor 3, pure)."""

from __future__ import annotations

import errno

from vfioctl.errors import Busy, KernelRefusal, No, PermissionDenied, VfioctlError
from vfioctl.policy.refusals.mappings import map_fault, no_translation
from vfioctl.policy.refusals.nodes import group_gone
from vfioctl.policy.refusals.state import Refusal, State, Table

_CONTAINER_CALLS = ("VFIO_GROUP_SET_CONTAINER", "VFIO_SET_IOMMU")


def not_viable(state: State, number: int | None = None) -> No:
    """The refusal of a group whose members are not all out of their host drivers' hands."""
    refusal = Refusal("VFIO_GROUP_SET_CONTAINER", number or 0, state, None)
    if state.blocking:
        members = ", ".join(f"{address} ({driver})" for address, driver in state.blocking)
        cause = f"a host driver still holds {members}"
    else:
        cause = "a host driver holds a member, or somebody else owns the group"
    return No(
        f"{refusal.group} is not viable: {cause}",
        code="not-viable",
        errno=number,
        subject=None if state.group is None else str(state.group),
        hint=f"vfioctl bind --group {refusal.argument}  (vfioctl check-viable {refusal.argument} tells about each)",
    )


def set_container_permission(refusal: Refusal) -> VfioctlError:
    state = refusal.state
    if state.noiommu:
        return PermissionDenied(
            f"{refusal.group} is a no-IOMMU group: using it takes the capability CAP_SYS_RAWIO",
            hint="run it as root, and never in a container together with groups that have an IOMMU",
        )
    if state.viable is not False and not state.blocking:
        # 5.19 to 6.5 on Intel: a 1:1 region is refused with EPERM although the group counts as viable.
        if state.direct_region:
            return direct_region(refusal)
        # A container that has an IOMMU attaches the group at once.
        if state.interrupts_isolated is False:
            return set_iommu_permission(refusal)
    return not_viable(state, refusal.number)


def _set_container_invalid(refusal: Refusal) -> VfioctlError:
    if refusal.state.container_set:
        return _set_container_taken(refusal)
    # From 6.6 on, any IOMMU refuses such a group here; GET_STATUS still says viable.
    if refusal.state.direct_region:
        return direct_region(refusal)
    return KernelRefusal(
        f"the kernel does not take {refusal.group} into a container: it is in one already, or the firmware"
        " demands a 1:1 mapping for one of its devices",
        code="kernel",
        hint=f"cat /sys/kernel/iommu_groups/{refusal.argument}/reserved_regions (a line ending in 'direct')"
        " and the kernel log tell which",
    )


def _set_container_taken(refusal: Refusal) -> VfioctlError:
    return Busy(
        f"{refusal.group} is in a container already",
        code="group-busy",
        hint="close the program that put it there, or use that container",
    )


def _set_container_busy(refusal: Refusal) -> VfioctlError:
    return Busy(
        f"the devices of {refusal.group} are attached to another IOMMU domain",
        code="group-busy",
        hint="another user of the IOMMU (iommufd, a PASID user) has them: let it go first",
    )


def _not_a_container(refusal: Refusal) -> VfioctlError:
    return KernelRefusal(
        f"the kernel does not take the container's descriptor for {refusal.group}: it is not a VFIO container",
        hint="is /dev/vfio/vfio the node of the misc device vfio? Compare /sys/class/misc/vfio/dev",
    )


def _unset_container_busy(refusal: Refusal) -> VfioctlError:
    return Busy(
        f"{refusal.group} cannot leave its container while one of its devices is open",
        code="group-busy",
        hint="close the device first",
    )


def _unset_container_invalid(refusal: Refusal) -> VfioctlError:
    return KernelRefusal(f"{refusal.group} is in no container", hint="there is nothing to take it out of")


def set_iommu_permission(refusal: Refusal) -> VfioctlError:
    # Up to 5.18 an Intel 1:1 region is refused here.
    if refusal.state.direct_region and refusal.before(5, 19):
        return direct_region(refusal)
    # Who claims the device asks: the container's backend, or iommufd when a device is opened or bound.
    module = "vfio_iommu_type1" if refusal.call in _CONTAINER_CALLS else "iommufd"
    return KernelRefusal(
        f"the interrupts of {refusal.group} are not isolated: its devices could forge interrupts of others",
        code="interrupts-not-isolated",
        hint="turn interrupt remapping on in the firmware (and drop intremap=off, nointremap); at your own risk:"
        f" echo Y > /sys/module/{module}/parameters/allow_unsafe_interrupts",
    )


def no_iommu_backend(state: State) -> KernelRefusal:
    """The refusal when no loaded IOMMU backend offers the type that is wanted."""
    kind = f" of type {state.backend}" if state.backend else ""
    return KernelRefusal(
        f"VFIO has no IOMMU backend{kind}",
        code="no-iommu-backend",
        subject=None if state.group is None else str(state.group),
        hint="modprobe vfio_iommu_type1  (POWER: vfio_iommu_spapr_tce; a type that this machine's IOMMU does not"
        " have cannot be loaded)",
    )


def _set_iommu_absent(refusal: Refusal) -> VfioctlError:
    return no_translation(refusal) if refusal.state.noiommu else no_iommu_backend(refusal.state)


def _set_iommu_invalid(refusal: Refusal) -> VfioctlError:
    return KernelRefusal(
        "the groups of the container cannot share one IOMMU address space, or its IOMMU type is set already",
        code="kernel",
        hint="their IOMMUs may differ in address width or reserved regions: use one container per group",
    )


def _set_iommu_busy(refusal: Refusal) -> VfioctlError:
    return Busy(
        f"{refusal.group} is attached to another IOMMU domain",
        code="group-busy",
        hint="another user of the IOMMU has it: let it go first",
    )


def _set_iommu_memory(refusal: Refusal) -> VfioctlError:
    return KernelRefusal(
        "the kernel has no memory for the IOMMU's page tables, or cannot pin existing mappings for the new group",
        code="no-memory",
        hint="free memory; with existing mappings, see whether the limit of locked memory (ulimit -l) is reached",
    )


def direct_region(refusal: Refusal) -> VfioctlError:
    return KernelRefusal(
        f"the firmware demands a 1:1 memory mapping for a device of {refusal.group}, and the kernel does not"
        " give such a device away",
        code="direct-region",
        hint="look for a firmware setting or update (RMRR on Intel, IVMD on AMD, RMR on Arm: lines ending in"
        f" 'direct' in /sys/kernel/iommu_groups/{refusal.argument}/reserved_regions); no option of vfioctl helps",
    )


REFUSALS: Table = {
    ("VFIO_GROUP_SET_CONTAINER", errno.EPERM): set_container_permission,
    ("VFIO_GROUP_SET_CONTAINER", errno.EINVAL): _set_container_invalid,
    ("VFIO_GROUP_SET_CONTAINER", errno.EBUSY): _set_container_busy,
    ("VFIO_GROUP_SET_CONTAINER", errno.ENODEV): group_gone,
    ("VFIO_GROUP_SET_CONTAINER", errno.EBADF): _not_a_container,
    ("VFIO_GROUP_SET_CONTAINER", errno.EBADFD): _not_a_container,
    ("VFIO_GROUP_SET_CONTAINER", errno.ENOMEM): _set_iommu_memory,
    ("VFIO_GROUP_UNSET_CONTAINER", errno.ENODEV): group_gone,
    ("VFIO_GROUP_UNSET_CONTAINER", errno.EBUSY): _unset_container_busy,
    ("VFIO_GROUP_UNSET_CONTAINER", errno.EINVAL): _unset_container_invalid,
    ("VFIO_SET_IOMMU", errno.EPERM): set_iommu_permission,
    ("VFIO_SET_IOMMU", errno.ENODEV): _set_iommu_absent,
    ("VFIO_SET_IOMMU", errno.EINVAL): _set_iommu_invalid,
    ("VFIO_SET_IOMMU", errno.EBUSY): _set_iommu_busy,
    ("VFIO_SET_IOMMU", errno.ENOMEM): _set_iommu_memory,
    # What is mapped already is mapped for a group that joins.
    ("VFIO_SET_IOMMU", errno.EFAULT): map_fault,
}
