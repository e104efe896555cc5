"""What goes with a device because it is made by it: SR-IOV virtual functions, mediated devices, the PCI domain of a VMD
endpoint."""

from __future__ import annotations

import os
from collections.abc import Iterator

from vfioctl.host.files import link_name, names
from vfioctl.model import VFIO_DRIVERS, Use


def functions_of(top: str) -> list[str]:
    """Real sysfs paths of the virtual functions of the device at ``top``. (Reading ``sriov_numvfs`` would wait for the
    device's lock, which a driver may hold for ever.)"""
    links = [name for name in names(top) if name.startswith("virtfn") and name[6:].isdecimal()]
    return [
        os.path.realpath(os.path.join(top, name)) for name in sorted(links, key=lambda name: int(name[6:]))
    ]


def mediated_of(top: str) -> list[str]:
    """The UUIDs of the mediated devices that the driver of the device at ``top`` has made."""
    return sorted(name for name in names(top) if os.path.lexists(os.path.join(top, name, "mdev_type")))


def function_uses(top: str) -> Iterator[Use]:
    """Virtual functions that are enabled or assigned, mediated devices, and a PCI domain behind the device."""
    functions = {path: link_name(os.path.join(path, "driver")) for path in functions_of(top)}
    assigned = [
        f"{os.path.basename(path)} ({driver})"
        for path, driver in functions.items()
        if driver in VFIO_DRIVERS or os.path.isdir(os.path.join(path, "vfio-dev"))
    ]
    if assigned:
        yield Use("virtual-functions-assigned", f"its virtual functions are on VFIO: {', '.join(assigned)}")
    if functions:
        listed = ", ".join(f"{os.path.basename(p)} ({d or 'no driver'})" for p, d in functions.items())
        yield Use("virtual-functions", f"its virtual functions are enabled: {listed}")
    mediated = mediated_of(top)
    if mediated:
        yield Use("mediated-devices", f"its mediated devices go with its driver: {', '.join(mediated)}")
    behind = list(_domain_members(top))
    if behind:
        yield Use("vmd", f"a PCI domain is behind it: {', '.join(behind)}")


def _domain_members(top: str) -> Iterator[str]:
    """The devices of the PCI domain that a VMD endpoint opens (Linux, drivers/pci/controller/vmd.c: a root bus
    ``pci10000:00`` below the endpoint)."""
    for bus in names(top):
        if bus.startswith("pci") and ":" in bus:
            for directory, found, _ in os.walk(os.path.join(top, bus)):
                found[:] = sorted(name for name in found if name.count(":") == 2 and "." in name)
                yield from (
                    name for name in found if os.path.lexists(os.path.join(directory, name, "vendor"))
                )
