"""The hosts that tests run on: the topology of tests/kernel/testbed/machine.py by the same roles, and a small one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from tests.fakes.drivers import FakeDevice
from tests.fakes.kernel import FakeKernel
from vfioctl.model import PciIds


def _pci(ids: str, class_: str, subsystem: str = "1af4:1100") -> PciIds:
    return PciIds(class_, *ids.split(":"), *subsystem.split(":"))


EDU = _pci("1234:11e8", "00ff00")
E1000E = _pci("8086:10d3", "020000", "8086:0000")
E1000 = _pci("8086:100e", "020000")
ROOT_PORT = _pci("1b36:000c", "060400", "0000:0000")

#: Role, address, group, ids, and what else there is to say of it. A bridge stands before what is behind it.
_STANDARD: tuple[tuple[str, str, int | None, PciIds, dict[str, Any]], ...] = (
    ("host_bridge", "0000:00:00.0", 0, _pci("8086:29c0", "060000"), {}),
    ("vga", "0000:00:01.0", 1, _pci("1234:1111", "030000"), {}),
    ("edu", "0000:00:02.0", 2, EDU, {}),
    ("disk", "0000:00:03.0", 3, _pci("1af4:1001", "010000", "1af4:0002"), {}),
    ("plain_bridge", "0000:00:04.0", 4, _pci("1b36:0001", "060400"), {}),
    ("port_a", "0000:00:08.0", 5, ROOT_PORT, {"pcie_port": True}),
    ("port_b", "0000:00:09.0", 6, ROOT_PORT, {"pcie_port": True}),
    ("port_conv", "0000:00:0a.0", 7, ROOT_PORT, {"pcie_port": True}),
    ("port_mf", "0000:00:0b.0", 8, ROOT_PORT, {"pcie_port": True}),
    ("port_switch", "0000:00:0c.0", 9, ROOT_PORT, {"pcie_port": True}),
    ("port_nvme", "0000:00:0d.0", 10, ROOT_PORT, {"pcie_port": True}),
    ("hotplug_port", "0000:00:0e.0", 11, ROOT_PORT, {"pcie_port": True}),
    ("nic_a", "0000:01:00.0", 12, E1000E, {"parent": "port_a"}),
    ("nic_b", "0000:02:00.0", 13, E1000E, {"parent": "port_b"}),
    ("conv_bridge", "0000:03:00.0", 14, _pci("1b36:000e", "060400"), {"parent": "port_conv", "shpc": True}),
    ("conv_edu0", "0000:04:01.0", 14, EDU, {"parent": "conv_bridge"}),
    ("conv_edu1", "0000:04:01.1", 14, EDU, {"parent": "conv_bridge"}),
    ("conv_nic", "0000:04:02.0", 14, E1000, {"parent": "conv_bridge"}),
    ("mf0", "0000:05:00.0", 15, EDU, {"parent": "port_mf"}),
    ("mf1", "0000:05:00.1", 15, _pci("8086:100f", "020000"), {"parent": "port_mf"}),
    ("switch_up", "0000:06:00.0", 16, _pci("104c:8232", "060400"), {"parent": "port_switch", "pcie_port": True}),
    ("switch_down0", "0000:07:00.0", 17, _pci("104c:8233", "060400"), {"parent": "switch_up", "pcie_port": True}),
    ("switch_down1", "0000:07:01.0", 18, _pci("104c:8233", "060400"), {"parent": "switch_up", "pcie_port": True}),
    ("xhci", "0000:08:00.0", 17, _pci("1b36:000d", "0c0330"), {"parent": "switch_down0"}),
    ("nvme", "0000:09:00.0", 19, _pci("1b36:0010", "010802"), {"parent": "port_nvme", "totalvfs": 4}),
    ("plain_edu", "0000:0a:01.0", 4, EDU, {"parent": "plain_bridge"}),
    ("plain_nic", "0000:0a:02.0", 4, E1000, {"parent": "plain_bridge"}),
)  # fmt: skip

ROLES = {role: address for role, address, *_ in _STANDARD}
#: Enough for every kind of change: twins, a group with a bridge that blocks, virtual functions.
SMALL = (
    "edu", "port_a", "port_b", "port_conv", "nic_a", "nic_b", "conv_bridge", "conv_edu0", "conv_nic", "port_nvme",
    "nvme",
)  # fmt: skip
HOST_MODULES = ("e1000e", "e1000", "nvme", "xhci_pci")


def devices(roles: tuple[str, ...] | None = None) -> Iterator[FakeDevice]:
    """Fresh devices of the standard topology, all or those of some roles."""
    for role, address, group, pci, more in _STANDARD:
        if roles is None or role in roles:
            device = FakeDevice(address, pci, group, **more)
            yield replace(device, parent=ROLES[device.parent]) if device.parent else device


def boot(
    root: str,
    roles: tuple[str, ...] | None = None,
    *,
    release: str = "6.1.0-1-amd64",
    cdevs: bool = False,
    modules: tuple[str, ...] = HOST_MODULES,
) -> FakeKernel:
    """The host after its boot: host drivers loaded, VFIO not."""
    kernel = FakeKernel(root, devices(roles), release=release, cdevs=cdevs)
    for module in modules:
        kernel.load_module(module)
    return kernel
