"""The machine's own answers, read and written without vfioctl."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vfioctl.host import vfio

PCI = Path("/sys/bus/pci/devices")
GROUPS = Path("/sys/kernel/iommu_groups")


def driver_of(address: str) -> str | None:
    """The name of the device's driver."""
    link = PCI / address / "driver"
    return os.readlink(link).rpartition("/")[2] if link.is_symlink() else None


def override_of(address: str) -> str | None:
    """The device's driver_override; None when it is unset."""
    text = (PCI / address / "driver_override").read_text().strip()
    return None if text in ("(null)", "") else text


def group_of(address: str) -> int:
    """The number of the device's IOMMU group."""
    return int(os.readlink(PCI / address / "iommu_group").rpartition("/")[2])


def modprobe(*modules: str) -> None:
    """Loads modules; AssertionError when one cannot be loaded."""
    for module in modules:
        assert os.spawnlp(os.P_WAIT, "modprobe", "modprobe", module) == 0, f"modprobe {module}"


def need_driver(name: str) -> None:
    """Has a PCI driver registered: it may be built in, or a module of the same name."""
    if not Path("/sys/bus/pci/drivers", name).is_dir():
        modprobe(name)


def remove_modules(*modules: str) -> None:
    """Unloads modules; AssertionError when one is in use."""
    assert os.spawnlp(os.P_WAIT, "modprobe", "modprobe", "-r", *modules) == 0, f"modprobe -r {modules}"


def unbind(address: str) -> None:
    """Takes the device from its driver, if it has one."""
    if driver_of(address) is not None:
        (PCI / address / "driver" / "unbind").write_text(address)


def probe(address: str) -> None:
    """Lets the kernel look for a driver."""
    Path("/sys/bus/pci/drivers_probe").write_text(address)


def on_host_driver(address: str, driver: str) -> None:
    """Has the device on its host driver, from which another test may have taken it; AssertionError after a minute."""
    need_driver(driver)
    if driver_of(address) is None:
        probe(address)
    until = time.monotonic() + 60
    while driver_of(address) != driver:  # some are probed asynchronously
        assert time.monotonic() < until, f"{driver} has not taken {address}"
        time.sleep(0.05)


def give(address: str, driver: str) -> None:
    """Binds a device to a driver without the commands that other tests are about."""
    (PCI / address / "driver_override").write_text(driver)
    unbind(address)
    probe(address)
    assert driver_of(address) == driver


def take_back(address: str) -> None:
    """Leaves a device without a driver, and without a wish for one."""
    unbind(address)
    (PCI / address / "driver_override").write_text("\n")


@contextmanager
def without_driver(address: str) -> Iterator[None]:
    """The device without a driver meanwhile; the one that it had is found by the kernel again."""
    before = driver_of(address)
    unbind(address)
    try:
        yield
    finally:
        if before is not None:
            unbind(address)
            probe(address)
            assert driver_of(address) == before


def kernel_says_viable(group: int) -> bool:
    """VFIO_GROUP_GET_STATUS of the group's node."""
    with vfio.opened(vfio.group_path(group)) as fd:
        return vfio.group_get_status(fd).viable
