"""unbind: where each device goes back to."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from vfioctl.errors import UsageError
from vfioctl.host.journal import Home
from vfioctl.host.machine import Machine
from vfioctl.model import KERNELS_CHOICE, BindingGoal, Device, Snapshot, shown
from vfioctl.ops.access import groups_of, node_paths
from vfioctl.ops.assign import Plan, virtual_functions
from vfioctl.ops.change import Request
from vfioctl.ops.refuse import impact_of, refuse_held, refuse_unreturnable
from vfioctl.policy.viability import is_vfio_bound


def plan_unbind(
    machine: Machine,
    snapshot: Snapshot,
    devices: Sequence[Device],
    to: str | None,
    leave_unbound: bool,
    allow: Collection[str] = (),
) -> Plan:
    """The change that gives devices back: to the driver they had (recorded), to ``to``, to none, or to whatever
    driver the kernel picks. Changes nothing. Raises Busy or UsageError."""
    if to is not None and machine.is_vfio_driver(to):
        named = " ".join(shown(device.key) for device in devices)
        raise UsageError(
            f"--to {to}: that is a VFIO driver", hint=f"vfioctl bind --driver {to} {named}", subject=to
        )
    homes = machine.state.homes()
    goals: dict[str, BindingGoal] = {}
    modules: list[str] = []
    for device in devices:
        goal = _way_home(machine, device, homes, to, leave_unbound)
        goals[device.key] = goal
        if isinstance(goal.driver, str) and not machine.has_driver(device.bus, goal.driver):
            modules.append(device.modalias if to is None and device.modalias else goal.driver)
        elif goal.driver is KERNELS_CHOICE and device.modalias and goal.leaving is not None:
            modules.append(device.modalias)
    refuse_held(machine, snapshot, goals)  # also where it is refused below, for then it would hang by hand
    for device in devices:
        refuse_unreturnable(device)
    request = Request(
        command="unbind",
        bindings=goals,
        nodes=node_paths(snapshot, groups_of(snapshot, goals)),
        witnesses=virtual_functions(machine, goals),
        modules=tuple(dict.fromkeys(modules)),
        homes=lambda before: {key: home for key, home in machine.state.homes().items() if key not in goals},
    )
    return Plan(request, snapshot, impact_of(machine, snapshot, goals), frozenset(allow))


def _way_home(
    machine: Machine, device: Device, homes: Mapping[str, Home], to: str | None, leave_unbound: bool
) -> BindingGoal:
    if leave_unbound:
        return BindingGoal(None, None)
    if to is not None:
        return BindingGoal(to, None, steer=machine.has_override(device.key))
    if device.driver not in (None, "pci-stub") and not is_vfio_bound(device):
        return BindingGoal(device.driver, device.driver_override)  # the host has it, whatever is on record
    home = homes.get(device.key)
    if home is not None and home.identity == machine.identity(device.key):
        return BindingGoal.back_to(home.binding)._replace(steer=machine.has_override(device.key))
    if is_vfio_bound(device):
        return BindingGoal(KERNELS_CHOICE, None, leaving=device.driver)
    return BindingGoal(KERNELS_CHOICE, None)
