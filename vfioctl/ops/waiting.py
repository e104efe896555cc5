"""Waiting until something holds of groups and devices (floor 4)."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from vfioctl.errors import DeadlinePassed, PermissionDenied
from vfioctl.host.holders import VFIO_KINDS, Holder, details, how_to_end
from vfioctl.host.machine import Machine
from vfioctl.model import Device, IommuGroup, Snapshot
from vfioctl.ops.watching import looks
from vfioctl.policy.conditions import Missing, find, group_of, missing, nodes
from vfioctl.policy.subjects import Name, find_device, find_group

#: Seconds between looks at who holds a device: nothing tells when a file is closed.
CLOSING = 1.0


class Wish(NamedTuple):
    """What is waited for: a condition of policy.conditions, or ``released``: no process has a device open through VFIO.
    ``driver``: bound to this one."""

    condition: str
    driver: str | None = None


class Unmet(NamedTuple):
    """What is still missing of one subject, and who holds it."""

    name: Name
    missing: Missing
    holders: tuple[Holder, ...] = ()


def wait(
    machine: Machine, names: Sequence[Name], wish: Wish, patience: float, tell: Callable[[str], None]
) -> Snapshot:
    """What is there when the wish has come true of all that is named. Raises DeadlinePassed after ``patience`` seconds.

    Of what is to be released: NotFound when it is not there at the start, PermissionDenied when this user sees nobody
    who has it open, and cannot see whether somebody has.
    """
    deadline = time.monotonic() + patience
    released = wish.condition == "released"
    unmet: list[Unmet] | None = None
    for snapshot in looks(machine, patience, interval=CLOSING if released else None, tell=tell):
        if released:
            if unmet is None:
                _must_be_there(snapshot, names)
            unmet = _held(machine, snapshot, names, tell)
        else:
            unmet = _missing(snapshot, names, wish)
        if not unmet and wish.condition == "node":
            unmet = _unsettled(machine, snapshot, names, deadline)
            snapshot = machine.snapshot()  # udev may have given the nodes other owners
            unmet = unmet or _missing(snapshot, names, wish)
        if not unmet:
            return snapshot
    raise _too_late(unmet or [], patience)


def _missing(snapshot: Snapshot, names: Collection[Name], wish: Wish) -> list[Unmet]:
    return [
        Unmet(name, each) for name in names for each in missing(wish.condition, name, snapshot, wish.driver)
    ]


def _unsettled(machine: Machine, snapshot: Snapshot, names: Collection[Name], deadline: float) -> list[Unmet]:
    """The nodes that udev has not handled in time: its rules may still change owner and mode."""
    found = []
    for name in names:
        subject = find(snapshot, name)
        paths = [] if subject is None else nodes(snapshot, subject)
        if not machine.settle(paths, max(0.0, deadline - time.monotonic())):
            found.append(
                Unmet(name, Missing(f"udev has not settled: it may still change {', '.join(paths)}"))
            )
    return found


def _held(
    machine: Machine, snapshot: Snapshot, names: Collection[Name], tell: Callable[[str], None]
) -> list[Unmet]:
    """Who holds what is named. A process that cannot be seen, or may hold another device, shows by the group's node."""
    keys = {name: _keys(find(snapshot, name)) for name in names}
    found = machine.find_holders([key for some in keys.values() for key in some])
    unmet: list[Unmet] = []
    doubts: list[str] = []
    blind: list[Name] = []
    for name, some in keys.items():
        mine = tuple(h for h in found.holders if h.kind in VFIO_KINDS and h.key in some)
        who = "; ".join(dict.fromkeys(holder.sentence for holder in mine))
        if any(holder.certain for holder in mine):
            unmet.append(Unmet(name, Missing(f"{name} is held: {who}", how_to_end(mine)), mine))
            continue
        opened = _is_open(machine, snapshot, name) if mine or found.unseen != 0 else False
        if opened:
            detail = f"{name} is held: its group's node is open: {who or 'a process that is not seen'}"
            cure = f"vfioctl holders {name.text}, as root, shows it"
            unmet.append(Unmet(name, Missing(detail, cure), mine))
        elif opened is None and found.unseen != 0:
            blind.append(name)
        elif who:
            doubts.append(who)
    if blind and not unmet:
        raise PermissionDenied(
            f"who has {blind[0]} open cannot be seen by this user, nor may it open its node to see whether it is free",
            hint="run it as root",
            subject=blind[0].text,
        )
    if not unmet:
        for doubt in dict.fromkeys(doubts):
            tell(doubt)
    return unmet


def _is_open(machine: Machine, snapshot: Snapshot, name: Name) -> bool | None:
    """Whether the group's node, which admits one opener and none beside a cdev in use (drivers/vfio/group.c,
    vfio_group_fops_open), is open, or on its way out; None when that cannot be told: it may not be opened, or there
    are cdevs only, which admit any number."""
    subject = find(snapshot, name)
    group = group_of(snapshot, subject)
    if group is not None and group.node is not None:
        answer = machine.opening(group.node.path)
        return None if answer in (errno.EACCES, errno.EPERM) else answer != 0
    return None if subject is not None and nodes(snapshot, subject) else False


def _keys(subject: IommuGroup | Device | None) -> list[str]:
    """The devices whose holders hold the subject: not bridges, whose nodes are those of the devices behind."""
    if isinstance(subject, IommuGroup):
        return [device.key for device in subject.devices if not device.is_bridge]
    return [] if subject is None else [subject.key]


def _must_be_there(snapshot: Snapshot, names: Collection[Name]) -> None:
    for name in names:
        if name.number is not None:
            find_group(snapshot, name.number)
        else:
            find_device(snapshot, name.bus, name.text)


def _too_late(unmet: Sequence[Unmet], patience: float) -> DeadlinePassed:
    lines = list(dict.fromkeys(each.missing.detail for each in unmet))
    cures = dict.fromkeys(each.missing.cure for each in unmet if each.missing.cure)
    holders = dict.fromkeys(holder for each in unmet for holder in each.holders)
    return DeadlinePassed(
        "\n".join([f"after {patience:g} s {lines[0]}", *lines[1:]]),
        hint="\n".join(cures) or None,
        subject=unmet[0].name.text,
        details={
            "unmet": [{"subject": each.name.text, "detail": each.missing.detail} for each in unmet],
            **(details(list(holders)) if holders else {}),
        },
    )
