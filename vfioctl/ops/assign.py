"""bind and unbind: which devices move where, checked before, done as one change, read back after."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from vfioctl.errors import Busy, GuardRefusal, KernelRefusal, NotFound, UsageError
from vfioctl.host.holders import being_unbound
from vfioctl.host.machine import Machine
from vfioctl.host.state import Home
from vfioctl.model import (
    KERNELS_CHOICE,
    VFIO_DRIVERS,
    Access,
    Binding,
    BindingGoal,
    Device,
    DynamicId,
    IommuGroup,
    Snapshot,
    Step,
)
from vfioctl.ops.access import AccessWish, node_paths
from vfioctl.ops.change import Outcome, Request, Tell, change
from vfioctl.policy import selection
from vfioctl.policy.guards import refuse_in_use
from vfioctl.policy.planning import add_id, plan, remove_id
from vfioctl.policy.viability import argument, is_being_unbound, is_vfio_bound, judge

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
    access: AccessWish | None = None


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


def whole_group(snapshot: Snapshot, group: IommuGroup) -> tuple[list[Device], list[Device]]:
    """(endpoints to bind, bridges to unbind) of a group. Raises UsageError for a group without an endpoint."""
    if not any(not device.is_bridge for device in group.devices):
        raise UsageError(
            f"group {group.id} has no device that a VFIO driver takes: it holds bridges only",
            subject=str(group.id),
        )
    return selection.members_to_bind(judge(group, snapshot.kernel))


def plan_bind(
    machine: Machine,
    snapshot: Snapshot,
    endpoints: Sequence[Device],
    bridges: Sequence[Device],
    options: BindOptions,
) -> Plan:
    """The change that binds ``endpoints`` and unbinds ``bridges``. Changes nothing.

    Raises GuardRefusal, UsageError or NotFound when it must not or cannot be done.
    """
    goals: dict[str, BindingGoal] = {}
    drivers: dict[str, str] = {}
    modules: list[str] = []
    for bridge in bridges:
        goals[bridge.key] = BindingGoal(None, bridge.driver_override)
    for device in endpoints:
        driver, module = _driver_for(machine, device, options)
        _refuse_unbindable(machine, snapshot, device, driver)
        drivers[device.key] = driver
        if not machine.has_driver(device.bus, driver) and module not in modules:
            modules.append(module)
        if (
            device.driver == driver
        ):  # there already: whatever the override, a rebind would reset it for nothing
            goals[device.key] = BindingGoal(driver, device.driver_override)
        elif options.new_id:
            goals[device.key] = BindingGoal(driver, None, steer=False)
        else:
            goals[device.key] = BindingGoal(driver, driver)
    backend = _iommu_backend(snapshot)
    if backend and endpoints and not machine.has_module(backend):
        modules.append(backend)
    ids: tuple[DynamicId, ...] = ()
    if options.new_id:
        ids = _dynamic_ids(snapshot, endpoints, drivers, goals, options)
    _refuse_held(machine, snapshot, goals)
    _refuse_used(machine, snapshot, goals, options.allow)
    groups = {device.group for device in endpoints if device.group is not None}
    request = Request(
        command="bind",
        bindings=goals,
        nodes=node_paths(snapshot, groups),
        dynamic_ids=tuple(ids),
        homes=lambda before: _homes_after(machine, before, goals),
    )
    return Plan(request, tuple(modules), _steps(machine, request), tuple(goals))


def plan_unbind(
    machine: Machine,
    snapshot: Snapshot,
    devices: Sequence[Device],
    to: str | None,
    leave_unbound: bool,
    allow: frozenset[str] = frozenset(),
) -> Plan:
    """The change that gives devices back: to the driver they had (recorded), to ``to``, to none, or to whatever
    driver the kernel picks. Changes nothing. Raises Busy when a group is in use."""
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
    _refuse_held(machine, snapshot, goals)
    _refuse_used(machine, snapshot, goals, allow)
    request = Request(
        command="unbind",
        bindings=goals,
        nodes=node_paths(snapshot, {device.group for device in devices if device.group is not None}),
        homes=lambda before: {key: home for key, home in homes.items() if key not in goals},
    )
    return Plan(request, tuple(modules), _steps(machine, request), tuple(goals))


def carry_out(machine: Machine, planned: Plan, access: AccessWish | None, tell: Tell) -> Done:
    """Loads the modules, makes the change, waits for udev, and reads everything back."""
    machine.state.ensure()
    machine.state.refuse_unfinished()
    for module in planned.modules:
        tell(f"+ modprobe {module}")
        try:
            machine.load_module(module)
        except KernelRefusal:
            # A modalias that no module answers to is no failure: the device may have no host driver at all.
            if ":" not in module:
                raise
    request = planned.request
    groups = _groups_of(machine, planned.devices)
    watch = machine.watch_nodes()
    existing = set(node_paths(machine.snapshot(), groups))

    def settled_access() -> Mapping[str, Access]:
        now = machine.snapshot()
        paths = node_paths(now, _groups_of(machine, planned.devices))
        fresh = [path for path in paths if path not in existing]
        if not watch.settle(fresh, machine.timeout):
            tell(
                f"udev has not handled {', '.join(fresh)} within {machine.timeout:g} s: owner and mode may change yet"
            )
        return {} if access is None else access.wanted(machine, paths)

    outcome = change(machine, request._replace(access=settled_access), tell)
    return Done(outcome, machine.snapshot())


def _groups_of(machine: Machine, keys: Iterable[str]) -> set[int]:
    wanted = set(keys)
    return {d.group for d in machine.snapshot().devices if d.key in wanted and d.group is not None}


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


def _refuse_unbindable(machine: Machine, snapshot: Snapshot, device: Device, driver: str) -> None:
    name = argument(device)
    if device.is_bridge:
        raise GuardRefusal(
            f"{name} is a bridge: no VFIO driver takes one, and it must keep working for the devices behind it",
            hint="bind the devices behind it; a bridge that blocks its group: vfioctl unbind --leave-unbound "
            + name,
            subject=device.address,
            code="bridge",
        )
    if not machine.has_override(device.key):
        raise UsageError(
            f"{name}: the bus {device.bus} cannot be told which driver a device is to have (no driver_override)",
            subject=device.address,
        )
    if device.group is None and not _noiommu_enabled(machine) and snapshot.kernel.machine != "aarch64":
        # arm64 kernels before 6.13 give a driverless device its group only when a driver probes it.
        raise NotFound(
            f"{name} is in no IOMMU group, so {driver} would refuse it",
            hint="it is not behind an IOMMU that is on: vfioctl list-groups says why when there are no groups at all",
            subject=device.address,
            code="no-iommu-group",
        )


def _noiommu_enabled(machine: Machine) -> bool:
    from vfioctl.host.files import read

    return read(machine.at("/sys/module/vfio/parameters/enable_unsafe_noiommu_mode")) in ("Y", "1")


def _iommu_backend(snapshot: Snapshot) -> str | None:
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


def _refuse_used(
    machine: Machine, snapshot: Snapshot, goals: Mapping[str, BindingGoal], allow: frozenset[str]
) -> None:
    """A device that leaves its host driver takes the host's disks and routes with it."""
    leaving = [
        device
        for device in snapshot.devices
        if device.driver is not None and device.key in goals and goals[device.key].driver != device.driver
    ]
    refuse_in_use({argument(device): machine.uses(device.key) for device in leaving}, allow)


def _refuse_held(machine: Machine, snapshot: Snapshot, goals: Mapping[str, BindingGoal]) -> None:
    """A device that leaves VFIO while somebody holds it makes the kernel wait without limit: refuse before."""
    groups = {group.id: group for group in snapshot.groups}
    for device in snapshot.devices:
        goal = goals.get(device.key)
        if goal is None or device.group is None:
            continue
        if is_being_unbound(device, groups[device.group]):
            raise being_unbound(device.address, machine.device_holders(device.key))
        if not is_vfio_bound(device) or goal.driver == device.driver:
            continue
        node = groups[device.group].node
        if node is not None and machine.is_held(node.path):
            who = ", ".join(
                f"{h.command} (process {h.pid}, uid {h.uid})" for h in machine.holders(node.path, device.key)
            )
            raise Busy(
                f"{argument(device)} is in use: {who or 'a process that cannot be seen from here'} holds {node.path}",
                hint="end that first, for the kernel would wait for it without limit",
                subject=device.address,
                code="group-busy",
            )


def _way_home(
    machine: Machine, device: Device, homes: Mapping[str, Home], to: str | None, leave_unbound: bool
) -> BindingGoal:
    if leave_unbound:
        return BindingGoal(None, None)
    if to is not None:
        return BindingGoal(to, None)
    home = homes.get(device.key)
    if home is not None and home.identity == machine.identity(device.key):
        return BindingGoal(home.binding.driver, home.binding.driver_override)
    if is_vfio_bound(device):
        return BindingGoal(KERNELS_CHOICE, None, leaving=device.driver)
    if device.driver is None:
        return BindingGoal(KERNELS_CHOICE, None)
    return BindingGoal(device.driver, device.driver_override)  # a host driver has it: nothing to do


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


def _steps(machine: Machine, request: Request) -> tuple[Step, ...]:
    """The writes as they would be made now, for --dry-run."""
    steps: list[Step] = [add_id(dynamic) for dynamic in request.dynamic_ids]
    for key, goal in request.bindings.items():
        now = machine.binding(key)
        if now is not None:
            steps += plan(key, now, goal)
    return (*steps, *(remove_id(dynamic) for dynamic in request.dynamic_ids))
