"""What can be waited for, and what is still missing. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from vfioctl.model import Device, IommuGroup, Snapshot, shown
from vfioctl.policy.diagnosis import why_no_group
from vfioctl.policy.subjects import Name
from vfioctl.policy.viability import is_assignable, is_vfio_bound, judge


class Missing(NamedTuple):
    """Why a condition does not hold, as a sentence, and what would help."""

    detail: str
    cure: str | None = None


def find(snapshot: Snapshot, name: Name) -> IommuGroup | Device | None:
    """The group or device of that name, if it is there."""
    if name.key is None:
        return next((group for group in snapshot.groups if group.id == name.number), None)
    return next((device for device in snapshot.devices if device.key == name.key), None)


def group_of(snapshot: Snapshot, subject: IommuGroup | Device | None) -> IommuGroup | None:
    """The group itself, or the group of the device."""
    if subject is None or isinstance(subject, IommuGroup):
        return subject
    return next((group for group in snapshot.groups if group.id == subject.group), None)


def missing(condition: str, name: Name, snapshot: Snapshot, driver: str | None = None) -> list[Missing]:
    """What keeps a condition from holding of what is named; nothing when it holds.

    ``present`` and ``gone``; ``bound``: the device, or each member of the group that could be assigned, has a driver,
    or the one given; ``viable`` and ``usable``: see policy.viability; ``node``: there is a node to open.
    """
    subject = find(snapshot, name)
    if condition == "gone":
        return [] if subject is None else [Missing(f"{name} is still there")]
    if subject is None:
        return [Missing(f"there is no {name if name.key is None else f'device {name}'}")]
    if condition == "present":
        return []
    if condition == "bound":
        return list(_unbound(name, subject, driver))
    group = group_of(snapshot, subject)
    if group is None:
        assert isinstance(subject, Device)
        cause, cure = why_no_group(subject, snapshot.kernel)
        return [Missing(f"{name} is in no IOMMU group: {cause}", cure)]
    if condition == "node":
        return [] if nodes(snapshot, subject) else [Missing(f"{name} has no node under /dev/vfio")]
    verdict = judge(group, snapshot.kernel)
    blocking = [
        Missing(f"group {group.id} is not viable: {shown(member.device.key)}: {member.detail}", member.cure)
        for member in verdict.members
        if member.blocking
    ]
    if condition == "viable":
        return blocking
    return blocking + [
        Missing(f"group {group.id} is not usable: {problem.detail}", problem.cure)
        for problem in verdict.problems
        if problem.fatal
    ]


def nodes(snapshot: Snapshot, subject: IommuGroup | Device) -> list[str]:
    """The nodes by which a group, or a device that has a VFIO driver, could be opened."""
    if isinstance(subject, Device) and not is_vfio_bound(subject):
        return []
    group = group_of(snapshot, subject)
    members = subject.devices if isinstance(subject, IommuGroup) else (subject,)
    paths = [device.cdev.path for device in members if device.cdev is not None]
    return paths if group is None or group.node is None else [group.node.path, *paths]


def _unbound(name: Name, subject: IommuGroup | Device, driver: str | None) -> Iterator[Missing]:
    devices = (subject,) if isinstance(subject, Device) else tuple(filter(is_assignable, subject.devices))
    if not devices:
        yield Missing(f"{name} has no member that could be assigned")
    for device in devices:
        if device.driver is None or driver not in (None, device.driver):
            has = "no driver" if device.driver is None else f"the driver {device.driver}"
            yield Missing(f"{shown(device.key)} has {has}")
