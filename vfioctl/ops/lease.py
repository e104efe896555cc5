"""Devices that a living ``vfioctl run`` has lent to its command, and those that a dead one has."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping

from vfioctl.errors import GuardRefusal
from vfioctl.host.machine import Machine
from vfioctl.host.state import unfinished
from vfioctl.model import shown
from vfioctl.ops.steps import Tell

_STEP = 0.05  # seconds between two looks


def refuse_unfinished(machine: Machine) -> None:
    """A journal that is left over is an unfinished change, and so is a lease whose process is gone. Raises
    GuardRefusal."""
    machine.state.refuse_unfinished()
    if any(not machine.leases.is_alive(lease.owner) for lease in machine.leases.all()):
        raise unfinished(machine.state.path)


def refuse_lent(machine: Machine, keys: Collection[str], nodes: Collection[str]) -> None:
    """A device that is lent, or a node of its group, is to change. Raises GuardRefusal."""
    for lease in machine.leases.all():
        lent = lease.journal.before.bindings
        found = [shown(key) for key in keys if key in lent]
        members = {} if found else machine.node_members()
        found += [path for path in nodes if set(members.get(path, ())) & set(lent)]
        if found:
            raise GuardRefusal(
                f"{found[0]} is lent to the command of a vfioctl run (process {lease.owner.pid})",
                hint="it is given back when that command ends; to end it: kill " + str(lease.owner.pid),
                subject=found[0],
                code="lent",
            )


def wait_for_users(
    machine: Machine,
    keys: Collection[str],
    tell: Tell,
    pause: Callable[[float], object] = time.sleep,
) -> list[str]:
    """Waits until nobody holds the groups of some devices, at most the machine's timeout, and no longer when ``pause``
    has something to say; who still does, in words."""
    nodes = {
        group.node.path: device.key
        for group in machine.snapshot().groups
        for device in group.devices
        if group.node is not None and device.key in keys
    }
    deadline = time.monotonic() + machine.timeout
    told = False
    while held := [path for path in nodes if machine.is_held(path)]:
        if not told:
            tell("waiting until the devices are let go: " + "; ".join(_held(machine, nodes, held)))
            told = True
        if time.monotonic() >= deadline or pause(_STEP):
            return _held(machine, nodes, held)
    return []


def _held(machine: Machine, nodes: Mapping[str, str], held: Collection[str]) -> list[str]:
    return [f"{path} is held by {holders_of(machine, path, nodes[path])}" for path in held]


def holders_of(machine: Machine, path: str, key: str) -> str:
    """Who holds the node ``path`` of the group of a device, in words."""
    found = dict.fromkeys(map(str, machine.holders(path, key)))
    return ", ".join(found) or "somebody who cannot be seen from here"
