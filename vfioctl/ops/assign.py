"""What bind and unbind share: a plan that can be shown or carried out, and read back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from vfioctl.errors import KernelRefusal
from vfioctl.host.machine import Machine
from vfioctl.model import Access, Snapshot, Step
from vfioctl.ops.access import AccessWish, node_paths
from vfioctl.ops.change import Outcome, Request, change
from vfioctl.ops.steps import Tell
from vfioctl.policy.planning import add_id, plan, remove_id


class Plan(NamedTuple):
    """A change that can be shown (``steps``) or made (``request``). ``modules`` are loaded first."""

    request: Request
    modules: tuple[str, ...]
    steps: tuple[Step, ...]
    devices: tuple[str, ...]


class Done(NamedTuple):
    """The outcome and a snapshot read after it."""

    outcome: Outcome
    snapshot: Snapshot


def planned(machine: Machine, request: Request, modules: Sequence[str]) -> Plan:
    """The plan of a request, with the writes as they would be made now."""
    steps: list[Step] = [add_id(dynamic) for dynamic in request.dynamic_ids]
    for key, goal in request.bindings.items():
        now = machine.binding(key)
        if now is not None:
            steps += plan(key, now, goal)
    steps += [remove_id(dynamic) for dynamic in request.dynamic_ids]
    return Plan(request, tuple(modules), tuple(steps), tuple(request.bindings))


def carry_out(machine: Machine, work: Plan, access: AccessWish | None, tell: Tell) -> Done:
    """Loads the modules, makes the change, waits for udev, and reads everything back."""
    machine.state.ensure()
    machine.state.refuse_unfinished()
    _load_modules(machine, work, tell)
    request = work.request
    groups = _groups_of(machine, work.devices)
    watch = machine.watch_nodes()
    existing = set(node_paths(machine.snapshot(), groups))

    def settled_access() -> Mapping[str, Access]:
        now = machine.snapshot()
        paths = node_paths(now, _groups_of(machine, work.devices))
        fresh = [path for path in paths if path not in existing]
        if not watch.settle(fresh, machine.timeout):
            tell(
                f"udev has not handled {', '.join(fresh)} within {machine.timeout:g} s: owner and mode may change yet"
            )
        return {} if access is None else access.wanted(machine, paths)

    outcome = change(machine, request._replace(access=settled_access), tell)
    return Done(outcome, machine.snapshot())


def _load_modules(machine: Machine, work: Plan, tell: Tell) -> None:
    """Loads what is missing. A driver that arrives takes every device without one that it matches: those that were
    not asked for are named, for they are not put back."""
    if not work.modules:
        return
    before = {device.key: device.driver for device in machine.snapshot().devices}
    for module in work.modules:
        tell(f"+ modprobe {module}")
        try:
            machine.load_module(module)
        except KernelRefusal:
            # A modalias that no module answers to is no failure: the device may have no host driver at all.
            if ":" not in module:
                raise
    for device in machine.snapshot().devices:
        if device.key not in work.devices and device.driver != before.get(device.key, device.driver):
            tell(f"loading {', '.join(work.modules)} has given {device.address} to {device.driver} as well")


def _groups_of(machine: Machine, keys: Iterable[str]) -> set[int]:
    wanted = set(keys)
    return {d.group for d in machine.snapshot().devices if d.key in wanted and d.group is not None}
