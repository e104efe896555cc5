"""Loading what a change needs."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from vfioctl.errors import KernelRefusal, VfioctlError
from vfioctl.host.evidence import look_at
from vfioctl.host.machine import Machine
from vfioctl.ops.steps import Tell
from vfioctl.policy.refusals import explain_module

TYPE1 = "vfio_iommu_type1"


def load_modules(machine: Machine, modules: Sequence[str], recorded: Collection[str], tell: Tell) -> None:
    """Loads modules by name or modalias. Raises KernelRefusal or DeadlinePassed.

    A driver that arrives takes every device without one that it matches (``ids=`` in modprobe.d, an identical card).
    Those that are not ``recorded`` (by key) are not put back, and so they are named.
    """
    if not modules:
        return
    before = {device.key: device.driver for device in machine.snapshot().devices}
    for module in modules:
        tell(f"+ modprobe {module}")
        try:
            machine.load_module(module)
        except KernelRefusal as error:
            # A modalias that no module answers to is no failure: the device may have no host driver at all.
            if ":" not in module and not _stood_in_for(machine, module):
                raise _explained(machine, module, error) from error
    for device in machine.snapshot().devices:
        if device.key not in recorded and device.driver != before.get(device.key, device.driver):
            tell(f"loading {', '.join(modules)} has given {device.address} to {device.driver} as well")


def _explained(machine: Machine, module: str, error: KernelRefusal) -> VfioctlError:
    """What modprobe said, with a cause and a cure where its words are known."""
    return (
        explain_module(module, error.message.partition(": ")[2], lambda look: look_at(look, machine.root))
        or error
    )


def _stood_in_for(machine: Machine, module: str) -> bool:
    """A kernel with CONFIG_IOMMUFD_VFIO_CONTAINER has iommufd serve the containers, and no module for type 1."""
    return module == TYPE1 and machine.has_module("iommufd")
