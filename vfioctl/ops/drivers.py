"""Which VFIO driver each device is to have: the one that is named, the bus's, or the most specific one."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from vfioctl.errors import GuardRefusal, KernelRefusal, UsageError
from vfioctl.host.machine import Machine
from vfioctl.model import VFIO_DRIVERS, Device, shown
from vfioctl.ops.modules import load_modules
from vfioctl.ops.steps import Tell
from vfioctl.policy import variants
from vfioctl.policy.buses import BUS_DRIVERS, driver_of_bus, refuse_foreign
from vfioctl.policy.viability import is_vfio_bound

#: As a driver's name: the most specific one.
AUTO = "auto"


class Chosen(NamedTuple):
    """A driver and its module; ``why`` in words, where there was a choice. ``guessed``: the driver's name is the
    module's, for only the loaded module tells."""

    driver: str
    module: str
    why: str | None = None
    guessed: bool = False


def choose_driver(
    machine: Machine, device: Device, wanted: str | None, allow: Collection[str] = ()
) -> Chosen:
    """The driver for a device. Loads nothing. Raises UsageError or GuardRefusal for one that cannot be meant."""
    if wanted == AUTO and device.bus == "pci":
        return _most_specific(machine, device)
    if wanted is None or wanted == AUTO:
        driver = driver_of_bus(device)
        why = None if wanted is None else f"the VFIO driver of the bus {device.bus}"
        return Chosen(driver, driver, why)
    dashed = wanted.replace("_", "-")
    if dashed in VFIO_DRIVERS and wanted not in VFIO_DRIVERS:
        raise UsageError(f"{wanted} is the module; its driver is called {dashed}", subject=wanted)
    if not machine.is_vfio_driver(wanted) and "not-a-vfio-driver" not in allow:
        raise GuardRefusal(
            f"{wanted} is not known to be a VFIO driver",
            hint=f"a host driver: vfioctl unbind --to {wanted} {shown(device.key)}\n"
            "a VFIO driver all the same: --allow not-a-vfio-driver",
            subject=wanted,
            code="not-a-vfio-driver",
        )
    refuse_foreign(device, wanted)
    return Chosen(wanted, wanted)


def prepare(machine: Machine, devices: Sequence[Device], *, dry_run: bool, tell: Tell) -> list[str]:
    """Gets ready for AUTO: loads the modules of variants, for only a loaded one tells its driver's name, unless it is
    a ``dry_run``. Binds nothing by that: the ids of variants match nothing without driver_override. Each choice, in
    words. Raises KernelRefusal or DeadlinePassed."""
    plain = BUS_DRIVERS["pci"]
    said = []
    for device in devices:
        chosen = choose_driver(machine, device, AUTO)
        if not dry_run and chosen.driver != plain and not machine.has_driver(device.bus, chosen.driver):
            try:
                load_modules(machine, (chosen.module,), (), tell)
            except KernelRefusal as error:
                error.hint = f"{error.hint}\nwithout migration the device works with --driver {plain}"
                raise
            chosen = choose_driver(machine, device, AUTO)
            if not machine.has_driver(device.bus, chosen.driver):
                raise KernelRefusal(
                    f"module {chosen.module} is loaded, and there is no driver of it on the bus {device.bus}",
                    hint=f"--driver {plain}, or --driver NAME if you know its name",
                    subject=chosen.module,
                    code="no-driver",
                )
        said.append(f"{shown(device.key)}: {chosen.driver}: {chosen.why}")
        if chosen.guessed:
            said.append(
                f"the driver may have another name than the module {chosen.module}, which is not loaded"
            )
    return said


def _most_specific(machine: Machine, device: Device) -> Chosen:
    plain = BUS_DRIVERS["pci"]
    if device.driver is not None and device.driver != plain and is_vfio_bound(device):
        # A variant, or a vendor's host driver that offers virtual functions through VFIO by itself.
        return Chosen(
            device.driver, device.driver, "it is offered through VFIO by a driver of its own already"
        )
    choice = variants.choose(device.modalias or "", machine.variant_aliases)
    if choice is None:
        return Chosen(
            plain, plain, "this kernel's modules announce no variant drivers (Linux 5.15 and newer do)"
        )
    module = choice.alias.module
    driver = next(iter(machine.drivers_of(module, device.bus)), None) or variants.known_driver(module)
    return Chosen(driver or module, plain if driver == plain else module, choice.why, driver is None)
