"""permit and revoke: who may open a group's node and its devices' cdevs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from vfioctl.errors import No
from vfioctl.host.machine import Machine
from vfioctl.model import Access, IommuGroup, Snapshot
from vfioctl.ops.change import Outcome, Request, change
from vfioctl.ops.steps import Tell
from vfioctl.policy.access import AccessWish


def wanted(machine: Machine, wish: AccessWish, paths: Sequence[str]) -> dict[str, Access]:
    """What each node that is there shall be."""
    found = {path: machine.access(path) for path in paths}
    return {path: wish.applied_to(now) for path, now in found.items() if now is not None}


def groups_of(snapshot: Snapshot, keys: Collection[str]) -> set[int]:
    """The groups of some devices, of those that are in one."""
    return {d.group for d in snapshot.devices if d.key in keys and d.group is not None}


def node_paths(snapshot: Snapshot, groups: Collection[int]) -> tuple[str, ...]:
    """The nodes of some groups that exist: the group node and its members' cdevs."""
    paths = []
    for group in snapshot.groups:
        if group.id in groups:
            paths += [
                node.path for node in (group.node, *(d.cdev for d in group.devices)) if node is not None
            ]
    return tuple(paths)


def plan_access(snapshot: Snapshot, groups: Sequence[IommuGroup]) -> tuple[str, ...]:
    """The nodes to change. Raises No for a group that has none."""
    for group in groups:
        if not node_paths(snapshot, [group.id]):
            raise No(
                f"group {group.id} has no node: no member is bound to a VFIO driver",
                hint=f"vfioctl bind {group.id}",
                subject=str(group.id),
                code="no-vfio-member",
            )
    return node_paths(snapshot, [group.id for group in groups])


def set_access(
    machine: Machine,
    make: Callable[[], Sequence[str]],
    wish: AccessWish,
    command: str,
    tell: Tell,
    wait: float | None = None,
) -> tuple[Outcome, bool]:
    """Gives the nodes that ``make`` names (called under the lock) their owner and mode, after udev has done with them,
    and reads them back; whether udev had done with them within the deadline."""
    settled = True

    def request() -> Request:
        paths = make()

        def settled_access() -> Mapping[str, Access]:
            nonlocal settled
            settled = machine.settle(list(paths))
            if not settled:
                tell(
                    f"udev has not settled within {machine.timeout:g} s: its rules may still change owner and mode"
                )
            return wanted(machine, wish, paths)

        return Request(command, {}, nodes=tuple(paths), access=settled_access)

    outcome = change(machine, request, tell, wait)
    return outcome, settled
