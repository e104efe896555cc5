"""What VFIO makes of each bus: its driver, and what its devices need. Pure.

Sources: drivers/vfio/{pci,platform,fsl-mc,cdx,mdev}, drivers/s390/{cio,crypto}, Documentation/arch/s390/vfio-ap.rst.
"""

from __future__ import annotations

from collections.abc import Collection

from vfioctl.errors import UsageError
from vfioctl.model import Device, shown
from vfioctl.policy.viability import is_vfio_bound

#: The VFIO driver of each bus that has one; its module is called the same, for modprobe takes - for _.
BUS_DRIVERS = {
    "pci": "vfio-pci",
    "platform": "vfio-platform",
    "amba": "vfio-amba",
    "fsl-mc": "vfio-fsl-mc",
    "cdx": "vfio-cdx",
    "css": "vfio_ccw",
    "ap": "vfio_ap",
    "mdev": "vfio_mdev",
}
#: Their VFIO drivers make mediated devices of them, and only those are in a group.
BUSES_OF_PARENTS = frozenset({"css", "ap"})


def driver_of_bus(device: Device) -> str:
    """The VFIO driver of the device's bus. Raises UsageError for a bus without one."""
    if device.bus not in BUS_DRIVERS:
        raise UsageError(
            f"{device.key}: there is no VFIO driver for the bus {device.bus}",
            hint="name one with --driver, if there is one",
            subject=device.address,
        )
    if device.bus == "mdev" and device.driver is not None:
        return device.driver  # whichever its parent has given it is one of VFIO's
    return BUS_DRIVERS[device.bus]


def refuse_foreign(device: Device, driver: str) -> None:
    """Raises UsageError for the VFIO driver of another bus."""
    buses = [bus for bus, name in BUS_DRIVERS.items() if name == driver]
    if buses and device.bus not in buses:
        mine = BUS_DRIVERS.get(device.bus)
        raise UsageError(
            f"{driver} is the VFIO driver of the bus {buses[0]}, and {device.key} is on another",
            hint=f"that of the bus {device.bus} is {mine}, and the default" if mine else None,
            subject=device.address,
        )


def cannot_be_steered(device: Device) -> UsageError:
    """Why a device without driver_override cannot be bound, and what takes the place of it."""
    name = shown(device.key)
    if device.bus == "mdev":
        return cannot_return(device)
    if device.bus == "ap":
        message = f"{name}: AP queues are not bound one by one (no driver_override): masks tell the host's from VFIO's"
        hint = (
            "take its adapter or its domain out of the masks of the host's, and vfio_ap gets it: modprobe vfio_ap; "
            "echo -0xNN > /sys/bus/ap/apmask, or aqmask; then assign it to a mediated device of "
            "/sys/devices/vfio_ap/matrix"
        )
    else:
        message = f"{name}: the bus {device.bus} cannot be told which driver a device is to have (no driver_override)"
        hint = "a driver takes such devices by their ids only"
    return UsageError(message, hint=hint, subject=device.address, code="no-driver-override")


def cannot_return(device: Device) -> UsageError:
    """A mediated device gets its driver when it is created: mdev_match in drivers/vfio/mdev/mdev_driver.c never
    matches, so that the kernel answers a bind with ENODEV."""
    top = f"/sys/bus/mdev/devices/{device.address}"
    return UsageError(
        f"{shown(device.key)}: a mediated device gets its VFIO driver when it is created, and cannot be bound again",
        hint=f"remove it (echo 1 > {top}/remove), and create it anew: "
        "echo UUID > /sys/class/mdev_bus/PARENT/mdev_supported_types/TYPE/create",
        subject=device.address,
        code="mediated-device",
    )


def shares_of(device: Device, offers: Collection[str]) -> list[str]:
    """What a device that a bind takes as a whole could give in parts, by the files that it ``offers`` (see
    host.machine): mediated devices, or the vendor's own way to make VFIO devices of virtual functions."""
    name = shown(device.key)
    top = f"/sys/bus/{device.bus}/devices/{device.address}"
    if is_vfio_bound(device):
        return []
    found = []
    if "mdev_supported_types" in offers:
        found.append(f"{name} makes mediated devices ({top}/mdev_supported_types): they go with its driver")
    if "nvidia/creatable_vgpu_types" in offers:
        found.append(
            f"{name} is offered through VFIO as a vGPU by its own driver, not by {BUS_DRIVERS['pci']}, when an id of "
            f"{top}/nvidia/creatable_vgpu_types is written to nvidia/current_vgpu_type"
        )
    return found


def next_step(device: Device) -> str | None:
    """What remains to be done by hand when the device is bound; None when nothing does."""
    if device.bus == "css":
        top = f"/sys/bus/css/devices/{device.address}"
        return (
            f"{shown(device.key)} is a parent of mediated devices now: "
            f"echo UUID > {top}/mdev_supported_types/vfio_ccw-io/create makes the one that has a group"
        )
    return None
