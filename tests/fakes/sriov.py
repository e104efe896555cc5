"""sriov_numvfs: what drivers/pci/iov.c makes of a write to it."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from tests.fakes.drivers import FakeDevice

if TYPE_CHECKING:
    from tests.fakes.kernel import FakeKernel


def publish(kernel: FakeKernel, device: FakeDevice) -> None:
    """The attributes of a device that can have virtual functions."""
    home = kernel.tree.homes[device.bus, device.address]
    kernel.tree.put(f"{home}/sriov_totalvfs", f"{device.totalvfs}\n")
    kernel.tree.put(f"{home}/sriov_numvfs", f"{device.numvfs}\n")


def store(kernel: FakeKernel, device: FakeDevice, data: str) -> int:
    """sriov_numvfs_store: 0 or an errno."""
    text = data.strip()
    if not text.isdecimal():
        return errno.EINVAL
    number = int(text)
    if number > device.totalvfs:
        return errno.ERANGE
    if number == device.numvfs:
        return 0
    if device.driver is None or not kernel.drivers[device.driver].sriov:
        return errno.ENOENT
    if number and device.numvfs:
        return errno.EBUSY
    if number:
        enable(kernel, device, number)
    else:
        disable(kernel, device)
    publish(kernel, device)
    return 0


def disable(kernel: FakeKernel, device: FakeDevice) -> None:
    """The virtual functions go, each as if it were unplugged."""
    home = kernel.tree.homes[device.bus, device.address]
    for index in range(device.numvfs):
        kernel.tree.unlink(f"{home}/virtfn{index}")
        kernel.unplug(_address(device, index))
    device.numvfs = 0


def enable(kernel: FakeKernel, device: FakeDevice, number: int) -> None:
    """They appear, and drivers may take them."""
    device.numvfs = number
    home = kernel.tree.homes[device.bus, device.address]
    for index in range(number):
        address = _address(device, index)
        group = 100 + index + 10 * (device.group or 0)
        kernel.plug(FakeDevice(address, device.pci, group, device.parent))
        virtual = kernel.tree.homes[device.bus, address]
        kernel.tree.link(f"{home}/virtfn{index}", virtual)
        kernel.tree.link(f"{virtual}/physfn", home)


def _address(device: FakeDevice, index: int) -> str:
    return f"{device.address.rpartition(':')[0]}:1{index}.0"
