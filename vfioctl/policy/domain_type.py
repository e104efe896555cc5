"""What changing the type of a group's default domain would take (drivers/iommu/iommu.c, iommu_group_store_type).

Documentation/ABI/testing/sysfs-kernel-iommu_groups wants no driver on any member; the code lets a domain that is
translated become lazy at any time, and since Linux 6.4 does not mind drivers that leave DMA alone. Before, a group of
several devices could not be changed at all.
"""

from __future__ import annotations

from typing import NamedTuple

from vfioctl.model import Device, Kernel, shown
from vfioctl.policy.viability import Viability, release_at_least

_TYPES = ("DMA", "DMA-FQ", "identity", "auto")
#: Those of a default domain that the kernel manages; a group without one takes no other.
_CHANGEABLE = frozenset({*_TYPES, "blocked"})


class Change(NamedTuple):
    """A type that the group could have. ``cure``: what must be done before, where it is not possible now; ``command``:
    what then changes it."""

    type: str
    possible: bool
    detail: str
    cure: str | None
    command: str


def changes(verdict: Viability, kernel: Kernel) -> tuple[Change, ...]:
    """The types that the group does not have; none where its type cannot be changed."""
    group = verdict.group
    if group.type not in _CHANGEABLE or not release_at_least(kernel.release, 5, 11):
        return ()
    any_size = release_at_least(kernel.release, 6, 4)
    bound = (
        [member.device for member in verdict.members if member.blocking]
        if any_size
        else [device for device in group.devices if device.driver is not None]
    )
    found = []
    for wanted in _TYPES:
        if wanted == group.type or (wanted == "DMA-FQ" and not release_at_least(kernel.release, 5, 15)):
            continue
        possible, detail, cure = True, "no driver of a member stands in the way", None
        if not any_size and len(group.devices) != 1:
            possible, detail = False, "before Linux 6.4 only a group of one device can be changed"
        elif (group.type, wanted) == ("DMA", "DMA-FQ"):
            detail = "at any time, whatever drivers the members have"
        elif bound:
            possible, detail = False, _has_drivers(bound)
            cure = f"vfioctl unbind --leave-unbound {' '.join(shown(d.key) for d in bound)}"
        command = f"echo {wanted} > /sys/kernel/iommu_groups/{group.id}/type"
        found.append(Change(wanted, possible, detail, cure, command))
    return tuple(found)


def _has_drivers(devices: list[Device]) -> str:
    named = ", ".join(f"{shown(device.key)} ({device.driver})" for device in devices)
    return f"a driver uses the domain: {named}"
