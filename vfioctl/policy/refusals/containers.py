"""Refusals to put a group into a container and to give that an IOMMU (floor 3, pure)."""

from __future__ import annotations

import errno

from vfioctl.errors import Busy, No, PermissionDenied
from vfioctl.policy.refusals import evidence
from vfioctl.policy.refusals.mappings import map_fault, no_translation
from vfioctl.policy.refusals.nodes import NOIOMMU, group_gone
from vfioctl.policy.refusals.state import Refusal
from vfioctl.policy.refusals.words import Table, When, only, says


def _counts_as_viable(refusal: Refusal) -> bool:
    return refusal.state.viable is not False and not refusal.state.blocking


DIRECT = When("a device of it has a 1:1 region", lambda refusal: refusal.state.direct_region is True)
_VIABLE_DIRECT = When(
    "it counts as viable, and a device of it has a 1:1 region",
    lambda refusal: _counts_as_viable(refusal) and refusal.state.direct_region is True,
)
_VIABLE_UNSAFE = When(
    "it counts as viable, and interrupts are not isolated",
    lambda refusal: _counts_as_viable(refusal) and refusal.state.interrupts_isolated is False,
)
_DIRECT_BEFORE_5_19 = When(
    "a device of it has a 1:1 region, up to Linux 5.18",
    lambda refusal: refusal.state.direct_region is True and refusal.before(5, 19),
)
_IN_ONE = When("it is in a container", lambda refusal: refusal.state.container_set is True)

_NEITHER = When(
    "it is in none and has no 1:1 region",
    lambda refusal: refusal.state.container_set is False and refusal.state.direct_region is False,
)

not_viable = says(
    "{group} is not viable: {blocked}",
    code="not-viable",
    hint="vfioctl bind --group {GROUP}  (vfioctl check-viable {GROUP} tells about each)",
    kind=No,
    look=evidence.MEMBERS,
)
direct_region = says(
    "the firmware demands a 1:1 memory mapping for a device of {group}, and the kernel does not give such a"
    " device away",
    code="direct-region",
    hint="look for a firmware setting or update (RMRR on Intel, IVMD on AMD, RMR on Arm: lines ending in"
    " 'direct' in /sys/kernel/iommu_groups/{GROUP}/reserved_regions); no option of vfioctl helps",
    look=evidence.DIRECT,
)
unsafe_interrupts = says(
    "the interrupts of {group} are not isolated: its devices could forge interrupts of others",
    code="interrupts-not-isolated",
    hint="turn interrupt remapping on in the firmware (and drop intremap=off, nointremap); at your own risk:"
    " echo Y > /sys/module/{claimer}/parameters/allow_unsafe_interrupts",
    look=evidence.UNSAFE_INTERRUPTS,
)
noiommu_use = says(
    "{group} is a no-IOMMU group: using it takes the capability CAP_SYS_RAWIO",
    code="permission",
    hint="run it as root, and never in a container together with groups that have an IOMMU",
    kind=PermissionDenied,
    when=NOIOMMU,
)
set_container_permission = (
    noiommu_use
    # 5.19 to 6.5 on Intel: a 1:1 region is refused with EPERM although the group counts as viable.
    + only(_VIABLE_DIRECT, direct_region)
    # A container that has an IOMMU attaches the group at once.
    + only(_VIABLE_UNSAFE, unsafe_interrupts)
    + not_viable
)
_taken = says(
    "{group} is in a container already",
    code="group-busy",
    hint="close the program that put it there, or use that container",
    kind=Busy,
)
_not_a_container = says(
    "the kernel does not take the container's descriptor for {group}: it is not a VFIO container",
    code="kernel",
    hint="is /dev/vfio/vfio the node of the misc device vfio? Compare /sys/class/misc/vfio/dev",
)
no_backend = says(
    "VFIO has no IOMMU backend{type}",
    code="no-iommu-backend",
    hint="modprobe vfio_iommu_type1  (POWER: vfio_iommu_spapr_tce; a type that this machine's IOMMU does not"
    " have cannot be loaded)",
)
_no_page_tables = says(
    "the kernel has no memory for the IOMMU's page tables, or cannot pin existing mappings for the new group",
    code="no-memory",
    hint="free memory; with existing mappings, see whether the limit of locked memory (ulimit -l) is reached",
)

REFUSALS: Table = {
    ("VFIO_GROUP_SET_CONTAINER", errno.EPERM): set_container_permission,
    # From 6.6 on, any IOMMU refuses a group with a 1:1 region here; GET_STATUS still says viable.
    ("VFIO_GROUP_SET_CONTAINER", errno.EINVAL): only(_IN_ONE, _taken)
    + only(DIRECT, direct_region)
    + says(
        "{group} does not suit this container: its IOMMU differs in address width or reserved regions from those that"
        " are in it, or it is no container of VFIO",
        code="kernel",
        hint="use a container of its own; the kernel log may say more",
        when=_NEITHER,
    )
    + says(
        "the kernel does not take {group} into a container: it is in one already, or the firmware"
        " demands a 1:1 mapping for one of its devices",
        code="kernel",
        hint="cat /sys/kernel/iommu_groups/{GROUP}/reserved_regions (a line ending in 'direct')"
        " and the kernel log tell which",
        look=evidence.DIRECT,
    ),
    ("VFIO_GROUP_SET_CONTAINER", errno.EBUSY): says(
        "the devices of {group} are attached to another IOMMU domain",
        code="group-busy",
        hint="another user of the IOMMU (iommufd, a PASID user) has them: let it go first",
        kind=Busy,
    ),
    ("VFIO_GROUP_SET_CONTAINER", errno.ENODEV): group_gone,
    ("VFIO_GROUP_SET_CONTAINER", errno.EBADF): _not_a_container,
    ("VFIO_GROUP_SET_CONTAINER", errno.EBADFD): _not_a_container,
    ("VFIO_GROUP_SET_CONTAINER", errno.ENOMEM): _no_page_tables,
    ("VFIO_GROUP_SET_CONTAINER", errno.EFAULT): map_fault,
    ("VFIO_GROUP_UNSET_CONTAINER", errno.ENODEV): group_gone,
    ("VFIO_GROUP_UNSET_CONTAINER", errno.EBUSY): says(
        "{group} cannot leave its container while one of its devices is open",
        code="group-busy",
        hint="close the device first",
        kind=Busy,
    ),
    ("VFIO_GROUP_UNSET_CONTAINER", errno.EINVAL): says(
        "{group} is in no container", code="kernel", hint="there is nothing to take it out of"
    ),
    # Up to 5.18 an Intel 1:1 region is refused here.
    ("VFIO_SET_IOMMU", errno.EPERM): only(_DIRECT_BEFORE_5_19, direct_region) + unsafe_interrupts,
    ("VFIO_SET_IOMMU", errno.ENODEV): only(NOIOMMU, no_translation) + no_backend,
    ("VFIO_SET_IOMMU", errno.EINVAL): says(
        "the container has no group yet, its IOMMU type is set already, or its groups cannot share one IOMMU address"
        " space",
        code="kernel",
        hint="their IOMMUs may differ in address width or reserved regions: use one container per group",
    ),
    ("VFIO_SET_IOMMU", errno.EBUSY): says(
        "{group} is attached to another IOMMU domain",
        code="group-busy",
        hint="another user of the IOMMU has it: let it go first",
        kind=Busy,
    ),
    ("VFIO_SET_IOMMU", errno.ENOMEM): _no_page_tables,
    # What is mapped already is mapped for a group that joins.
    ("VFIO_SET_IOMMU", errno.EFAULT): map_fault,
}
