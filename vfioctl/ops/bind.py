"""bind: which devices go to which VFIO driver, and by which means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from vfioctl.errors import GuardRefusal, UsageError
from vfioctl.host.machine import Machine
from vfioctl.host.state import Home
from vfioctl.model import VFIO_DRIVERS, Binding, BindingGoal, Device, DynamicId, IommuGroup, Snapshot
from vfioctl.ops.access import node_paths
from vfioctl.ops.assign import Plan, planned
from vfioctl.ops.change import Request
from vfioctl.ops.refuse import refuse_held, refuse_unbindable, refuse_used
from vfioctl.policy import selection
from vfioctl.policy.viability import argument, is_vfio_bound, judge

#: The VFIO driver of each bus that has one, and its module.
BUS_DRIVERS = {
    "pci": ("vfio-pci", "vfio-pci"),
    "platform": ("vfio-platform", "vfio-platform"),
    "amba": ("vfio-amba", "vfio-amba"),
    "fsl-mc": ("vfio-fsl-mc", "vfio-fsl-mc"),
    "cdx": ("vfio-cdx", "vfio-cdx"),
}


class BindOptions(NamedTuple):
    """How to bind. ``driver`` None: the VFIO driver of the device's bus. ``allow``: guards that may be passed."""

    driver: str | None = None
    new_id: bool = False
    allow: frozenset[str] = frozenset()


def whole_group(snapshot: Snapshot, group: IommuGroup) -> tuple[list[Device], list[Device]]:
    """(endpoints to bind, bridges to unbind) of a group. Raises UsageError for a group without anything to bind."""
    endpoints, bridges = selection.members_to_bind(judge(group, snapshot.kernel))
    if not endpoints and not any(map(is_vfio_bound, group.devices)):
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

    Raises GuardRefusal, UsageError, NotFound or Busy when it must not or cannot be done.
    """
    goals: dict[str, BindingGoal] = {}
    drivers: dict[str, str] = {}
    modules: list[str] = []
    for bridge in bridges:
        goals[bridge.key] = BindingGoal(None, bridge.driver_override)
    for device in endpoints:
        driver, module = _driver_for(machine, device, options)
        refuse_unbindable(machine, snapshot, device, driver)
        drivers[device.key] = driver
        if not machine.has_driver(device.bus, driver) and module not in modules:
            modules.append(module)
        if device.driver == driver:
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
    if options.new_id:
        ids = _dynamic_ids(snapshot, endpoints, drivers, goals, options)
    refuse_held(machine, snapshot, goals)
    refuse_used(machine, snapshot, goals, options.allow)
    groups = {device.group for device in endpoints if device.group is not None}
    request = Request(
        command="bind",
        bindings=goals,
        nodes=node_paths(snapshot, groups),
        dynamic_ids=ids,
        homes=lambda before: _homes_after(machine, before, goals),
    )
    return planned(machine, request, modules)


def _driver_for(machine: Machine, device: Device, options: BindOptions) -> tuple[str, str]:
    """(driver, module) for a device. Raises UsageError for a bus without a VFIO driver."""
    if options.driver is not None:
        if not machine.is_vfio_driver(options.driver) and "not-a-vfio-driver" not in options.allow:
            raise GuardRefusal(
                f"{options.driver} is not known to be a VFIO driver",
                hint=f"a host driver: vfioctl unbind --to {options.driver} {argument(device)}\n"
                "a VFIO driver all the same: --allow not-a-vfio-driver",
                subject=options.driver,
                code="not-a-vfio-driver",
            )
        return options.driver, options.driver
    if device.bus not in BUS_DRIVERS:
        raise UsageError(
            f"{device.key}: there is no VFIO driver for the bus {device.bus}",
            hint="name one with --driver, if there is one",
            subject=device.address,
        )
    return BUS_DRIVERS[device.bus]


def _iommu_backend(snapshot: Snapshot) -> str:
    """The module behind the container: a soft dependency of vfio, and missing in many an initramfs."""
    machine = snapshot.kernel.machine or ""
    return "vfio_iommu_spapr_tce" if machine.startswith("ppc") else "vfio_iommu_type1"


def _dynamic_ids(
    snapshot: Snapshot,
    endpoints: Sequence[Device],
    drivers: Mapping[str, str],
    goals: dict[str, BindingGoal],
    options: BindOptions,
) -> tuple[DynamicId, ...]:
    """The ids to add. Others that they match are refused, or allowed by name; then those without a driver, which
    the kernel takes at once, join ``goals`` so that they are recorded and read back like the rest."""
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
    for device in others:
        if device.driver is None and device.driver_override is None:
            goals[device.key] = BindingGoal(next(iter(drivers.values())), None, steer=False)
    return tuple(
        dict.fromkeys(selection.dynamic_id_for(d.pci, drivers[d.key]) for d in moving if d.pci is not None)
    )


def _homes_after(
    machine: Machine, before: Mapping[str, Binding], goals: Mapping[str, BindingGoal]
) -> Mapping[str, Home]:
    """The record after a bind: a device that comes from the host remembers where it was; one that was under VFIO
    already keeps what is on record."""
    homes = machine.state.homes()
    for key, binding in before.items():
        if binding.driver not in VFIO_DRIVERS and binding.driver != goals[key].driver:
            homes[key] = Home(machine.identity(key), binding)
    return homes
