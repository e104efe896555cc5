"""What a change takes from the host, device by device. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from vfioctl.model import VFIO_DRIVERS, Device, KernelChoice, Snapshot, Use, shown
from vfioctl.policy.guards import concerning
from vfioctl.policy.viability import judge


class Impact(NamedTuple):
    """``uses``: what ends or is passed over, the gravest first, warnings among them; ``siblings``: the members of the
    group that stay with drivers that keep it from being viable."""

    device: Device
    uses: tuple[Use, ...]
    siblings: tuple[Device, ...]


def impacts(
    snapshot: Snapshot,
    goals: Mapping[str, str | KernelChoice | None],
    uses: Mapping[str, Sequence[Use]],
    is_vfio: Callable[[str], bool] = VFIO_DRIVERS.__contains__,
) -> tuple[Impact, ...]:
    """The impact on each device (by key) that ``goals`` send to a driver, in the snapshot's order; ``uses`` are all
    that the host and other tools have of them (vfioctl.host.usage.uses_of)."""
    found = []
    for device in snapshot.devices:
        if device.key not in goals:
            continue
        goal = goals[device.key]
        taken = isinstance(goal, str) and is_vfio(goal)
        siblings = _siblings(snapshot, device, goals) if taken else ()
        concerned = concerning(device, goal, uses.get(device.key, ()), is_vfio)
        if taken and device.is_bridge:
            concerned = (Use("bridge", "it is a bridge, which no VFIO driver takes"), *concerned)
        if siblings:
            names = ", ".join(f"{shown(sibling.key)} ({sibling.driver})" for sibling in siblings)
            evidence = f"group {device.group} is not viable while it has {names}"
            concerned = (*concerned, Use("siblings", evidence, refuses=False))
        found.append(Impact(device, concerned, siblings))
    return tuple(found)


def _siblings(
    snapshot: Snapshot, device: Device, goals: Mapping[str, str | KernelChoice | None]
) -> tuple[Device, ...]:
    group = next((group for group in snapshot.groups if group.id == device.group), None)
    members = judge(group, snapshot.kernel).members if group is not None else ()
    return tuple(
        member.device
        for member in members
        if member.blocking and member.device.key not in goals and member.device.key != device.key
    )
