"""bind: which devices go to which VFIO driver, and by which means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from vfioctl.errors import GuardRefusal, UsageError
from vfioctl.host.journal import Home
from vfioctl.host.machine import Machine
from vfioctl.model import Binding, BindingGoal, Device, DynamicId, IommuGroup, Snapshot
from vfioctl.ops.access import groups_of, node_paths
from vfioctl.ops.assign import Plan, virtual_functions
from vfioctl.ops.change import Request
from vfioctl.ops.drivers import choose_driver
from vfioctl.ops.modules import TYPE1
from vfioctl.ops.refuse import impact_of, refuse_held, refuse_unbindable
from vfioctl.policy import selection
from vfioctl.policy.viability import is_vfio_bound, judge


class BindOptions(NamedTuple):
    """How to bind. ``driver`` None: the VFIO driver of the device's bus; "auto": the most specific one.
    ``allow``: guards that may be passed."""

    driver: str | None = None
    new_id: bool = False
    allow: frozenset[str] = frozenset()


def whole_group(snapshot: Snapshot, group: IommuGroup) -> tuple[list[Device], list[Device]]:
    """(endpoints to bind, bridges to unbind) of a group; endpoints that are bound already among the first. Raises
    UsageError for a group without anything to bind."""
    endpoints, bridges = selection.members_to_bind(judge(group, snapshot.kernel))
    if not endpoints:
        raise UsageError(
            f"group {group.id} has no device to bind: it holds bridges only", subject=str(group.id)
        )
    return endpoints, bridges


def plan_bind(
    machine: Machine,
    snapshot: Snapshot,
    endpoints: Sequence[Device],
    bridges: Sequence[Device],
    options: BindOptions,
) -> Plan:
    """The change that binds ``endpoints`` and unbinds ``bridges``. Changes nothing.

    Raises GuardRefusal, UsageError, NotFound or Busy when it cannot be done; whether it may be, the plan's
    ``refuse_in_use`` says.
    """
    goals: dict[str, BindingGoal] = {}
    drivers: dict[str, str] = {}
    modules: list[str] = []
    for bridge in bridges:
        goals[bridge.key] = BindingGoal(None, bridge.driver_override)
    for device in endpoints:
        driver, module, *_ = choose_driver(machine, device, options.driver, options.allow)
        refuse_unbindable(machine, snapshot, device, driver)
        drivers[device.key] = driver
        if not machine.has_driver(device.bus, driver) and module not in modules:
            modules.append(module)
        if device.driver == driver or (options.driver is None and is_vfio_bound(device)):
            driver = drivers[device.key] = device.driver or driver
            # There already: whatever the override, a rebind would reset the device for nothing.
            goals[device.key] = BindingGoal(driver, device.driver_override)
        elif options.new_id:
            goals[device.key] = BindingGoal(driver, None, steer=False)
        else:
            goals[device.key] = BindingGoal(driver, driver)
    backend = _iommu_backend(snapshot)
    if endpoints and not machine.has_module(backend):
        modules.append(backend)
    ids: tuple[DynamicId, ...] = ()
    others: list[Device] = []
    if options.new_id:
        ids, others = _dynamic_ids(snapshot, endpoints, drivers, options)
    refuse_held(machine, snapshot, goals)
    request = Request(
        command="bind",
        bindings=goals,
        nodes=node_paths(snapshot, groups_of(snapshot, goals)),
        dynamic_ids=ids,
        witnesses=(*(device.key for device in others), *virtual_functions(machine, goals)),
        modules=tuple(modules),
        homes=lambda before: _homes_after(machine, before, goals),
    )
    return Plan(request, snapshot, impact_of(machine, snapshot, goals), frozenset(options.allow))


def _iommu_backend(snapshot: Snapshot) -> str:
    """The module behind the container: a soft dependency of vfio, and missing in many an initramfs."""
    machine = snapshot.kernel.machine or ""
    return "vfio_iommu_spapr_tce" if machine.startswith("ppc") else TYPE1


def _dynamic_ids(
    snapshot: Snapshot,
    endpoints: Sequence[Device],
    drivers: Mapping[str, str],
    options: BindOptions,
) -> tuple[tuple[DynamicId, ...], list[Device]]:
    """The ids to add, and the other devices that they match. Raises GuardRefusal unless those are allowed; then the
    ones without a driver go to the kernel's new driver at once."""
    moving = [device for device in endpoints if device.driver != drivers[device.key]]
    for device in moving:
        if device.pci is None:
            raise UsageError(f"{device.key}: --method new-id is for PCI devices", subject=device.address)
    others = selection.also_matched(snapshot, moving)
    if others and "new-id-match" not in options.allow:
        raise GuardRefusal(
            "new_id would match more than was asked for: "
            + ", ".join(f"{d.address} ({d.driver or 'no driver'})" for d in others),
            hint="leave --method new-id away: driver_override takes just the device that is named\n"
            "or, to accept that the others may be taken too: --allow new-id-match",
            subject=others[0].address,
            code="new-id-match",
        )
    ids = dict.fromkeys(selection.dynamic_id_for(d.pci, drivers[d.key]) for d in moving if d.pci is not None)
    return tuple(ids), others


def _homes_after(
    machine: Machine, before: Mapping[str, Binding], goals: Mapping[str, BindingGoal]
) -> Mapping[str, Home]:
    """The record after a bind: a device that comes from a host driver remembers where it was; one that comes from
    VFIO or a stub keeps what is on record, if that is about this very device."""
    homes = machine.state.homes()
    for key, binding in before.items():
        if (
            key not in goals
        ):  # it may have been taken along by a dynamic id, or gone with its physical function
            if machine.binding(key) not in (binding, None):
                homes.setdefault(key, Home(machine.identity(key), binding))
            continue
        identity = machine.identity(key)
        known = key in homes and homes[key].identity == identity
        in_vfio = binding.driver is not None and machine.is_vfio_driver(binding.driver)
        parked = binding.driver is None or in_vfio or binding.driver == "pci-stub"
        if binding.driver != goals[key].driver and not (parked and known) and not in_vfio:
            homes[key] = Home(identity, binding)
    return homes
