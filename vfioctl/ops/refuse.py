"""What stops a bind or an unbind before anything is written."""

from __future__ import annotations

from collections.abc import Mapping

from vfioctl.errors import Busy, GuardRefusal, KernelRefusal, NotFound, UsageError
from vfioctl.host.holders import being_unbound, details
from vfioctl.host.machine import Machine
from vfioctl.model import BindingGoal, Device, Snapshot, shown
from vfioctl.policy.buses import BUSES_OF_PARENTS, cannot_be_steered, cannot_return
from vfioctl.policy.diagnosis import may_get_group, why_no_group
from vfioctl.policy.impact import Impact, impacts
from vfioctl.policy.viability import is_being_unbound, is_vfio_bound


def impact_of(machine: Machine, snapshot: Snapshot, goals: Mapping[str, BindingGoal]) -> tuple[Impact, ...]:
    """What the host loses, and which claims of other tools are passed over, when devices go where ``goals`` say."""
    drivers = {device.key: device.driver for device in snapshot.devices}
    moving = {key: goal.driver for key, goal in goals.items() if goal.driver != drivers.get(key)}
    return impacts(snapshot, moving, machine.uses(list(moving)), machine.is_vfio_driver) if moving else ()


def refuse_held(machine: Machine, snapshot: Snapshot, goals: Mapping[str, BindingGoal]) -> None:
    """A device that leaves VFIO while somebody holds it makes the kernel wait without limit, and so does one whose
    mediated devices go with its driver. Raises Busy."""
    groups = {group.id: group for group in snapshot.groups}
    known = {device.key: device for device in snapshot.devices}
    for device in snapshot.devices:
        goal = goals.get(device.key)
        if goal is None:
            continue
        if device.group is not None and is_being_unbound(device, groups[device.group]):
            raise being_unbound(device.address, machine.device_holders(device.key))
        if goal.driver == device.driver:
            continue
        going = [known[key] for key in machine.mediated_devices(device.key) if key in known]
        for part in [device, *going] if is_vfio_bound(device) else going:
            node = None if part.group is None else groups[part.group].node
            if node is not None and machine.is_held(node.path):
                found = machine.holders(node.path, part.key)
                who = ", ".join(dict.fromkeys(map(str, found))) or "somebody who cannot be seen from here"
                raise Busy(
                    f"{shown(part.key)} is in use: {node.path} is held by {who}",
                    hint="end that first, for the kernel would wait for it without limit",
                    subject=part.address,
                    code="group-busy",
                    details=details(found),
                )


def refuse_unbindable(machine: Machine, snapshot: Snapshot, device: Device, driver: str) -> None:
    """A device that its VFIO driver would refuse. Raises GuardRefusal, UsageError, KernelRefusal or NotFound."""
    name = shown(device.key)
    if device.is_bridge:
        raise GuardRefusal(
            f"{name} is a bridge: no VFIO driver takes one, and it must keep working for the devices behind it",
            hint="bind the devices behind it; a bridge that blocks its group: vfioctl unbind --leave-unbound "
            + name,
            subject=device.address,
            code="bridge",
        )
    if device.is_container_child and device.driver != driver:
        container = machine.parent(device.key)
        raise UsageError(
            f"{name} is an object of the container {container}, and VFIO takes the container as a whole",
            hint=f"vfioctl bind {device.bus}/{container}; its objects follow",
            subject=device.address,
            code="container-child",
        )
    if device.driver != driver and not machine.has_override(device.key):
        raise cannot_be_steered(device)
    compatible = machine.missing_reset(device.key) if driver == "vfio-platform" else None
    if compatible is not None:
        raise KernelRefusal(
            f"{name}: {driver} takes no device that it cannot reset, and no module can reset {compatible}",
            hint=f"it takes a module with the alias vfio-reset:{compatible}; the module parameter "
            "vfio_platform.reset_required=0 is unsafe: the device keeps what its user before has left in it",
            subject=device.address,
            code="no-reset",
        )
    if (
        device.group is None
        and device.bus not in BUSES_OF_PARENTS
        and not machine.noiommu_enabled()
        and not may_get_group(device, snapshot.kernel)
    ):
        cause, cure = why_no_group(device, snapshot.kernel)
        raise NotFound(
            f"{name} is in no IOMMU group, so {driver} would refuse it: {cause}",
            hint=cure,
            subject=device.address,
            code="no-iommu-group",
        )


def refuse_unreturnable(device: Device) -> None:
    """A device that would stay without a driver for ever. Raises UsageError."""
    if device.bus == "mdev":
        raise cannot_return(device)
