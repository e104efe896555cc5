"""A synthetic host for the benchmarks: sysfs, procfs and /dev of a machine with any number of devices.

The layout is that of real sysfs. Five devices in three groups repeat: a root port; its endpoint; and a root port
without access control services that shares a group with the two functions behind it.
"""

from __future__ import annotations

import os
from typing import NamedTuple

DEVICES_PER_CYCLE, GROUPS_PER_CYCLE = 5, 3
CYCLES_PER_DOMAIN = 100
VFIO_EVERY = 7  # cycles: about 3 percent of the devices are bound to vfio-pci
UNBOUND_EVERY = 11
HOST_DRIVERS = ("nvme", "e1000e", "snd_hda_intel", "xhci_hcd")

_RESERVED = (
    "0x00000000fee00000 0x00000000feefffff msi\n",
    "0x00000000fee00000 0x00000000feefffff msi\n0x000000fd00000000 0x000000ffffffffff reserved\n",
)


class Counts(NamedTuple):
    """What was built."""

    devices: int
    groups: int
    vfio: int
    unbound: int


class _Place(NamedTuple):
    address: str
    path: str  # below /sys
    group: int


def build(root: str, devices: int) -> Counts:
    """Builds the tree in the empty directory ``root``; ``devices`` is a multiple of five."""
    cycles, rest = divmod(devices, DEVICES_PER_CYCLE)
    if rest:
        raise ValueError(f"devices must be a multiple of {DEVICES_PER_CYCLE}")
    return _Builder(root).build(cycles)


class _Builder:
    def __init__(self, root: str) -> None:
        self.root = root
        self.vfio = self.unbound = 0

    def build(self, cycles: int) -> Counts:
        self._host()
        for cycle in range(cycles):
            self._cycle(cycle)
        return Counts(cycles * DEVICES_PER_CYCLE, cycles * GROUPS_PER_CYCLE, self.vfio, self.unbound)

    def _host(self) -> None:
        for path in (
            "sys/kernel/iommu_groups",
            "sys/bus/pci/devices",
            "sys/class/iommu/dmar0",
            "sys/module/vfio_iommu_type1/parameters",
            "dev/vfio/devices",
            "proc/sys/kernel",
        ):
            os.makedirs(f"{self.root}/{path}")
        for driver in ("pcieport", "vfio-pci", *HOST_DRIVERS):
            os.makedirs(f"{self.root}/sys/bus/pci/drivers/{driver}")
        self._write("sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts", "N\n")
        self._write("proc/sys/kernel/osrelease", "6.12.0\n")
        self._write("proc/sys/kernel/arch", "x86_64\n")
        self._write("proc/cmdline", "root=/dev/vda1\n")
        self._write("proc/interrupts", "  0:  42  IR-IO-APIC  2-edge  timer\n")
        self._write("dev/vfio/vfio", "")

    def _cycle(self, cycle: int) -> None:
        domain, place = divmod(cycle, CYCLES_PER_DOMAIN)
        group = cycle * GROUPS_PER_CYCLE
        first, second = 2 * place, 2 * place + 1
        alone = self._port(domain, first, group)
        endpoint = self._below(alone, domain, first, 0, group + 1)
        shared = self._port(domain, second, group + 2)
        functions = [self._below(shared, domain, second, n, group + 2) for n in (0, 1)]
        for number, devices in enumerate(([alone], [endpoint], [shared, *functions])):
            self._group(group + number, devices)
        host = HOST_DRIVERS[cycle % len(HOST_DRIVERS)]
        self._device(alone, "060400", "pcieport")
        self._device(shared, "060400", "pcieport")
        if cycle % VFIO_EVERY == 0:
            self._device(endpoint, "010802", "vfio-pci", "vfio-pci")
            self._vfio(endpoint)
        else:
            self._device(endpoint, "010802", host)
        for function in functions:
            if cycle % UNBOUND_EVERY == 0:
                self._device(function, "020000", None)
                self.unbound += 1
            else:
                self._device(function, "020000", host)

    def _port(self, domain: int, index: int, group: int) -> _Place:
        address = f"{domain:04x}:00:{index // 8:02x}.{index % 8}"
        return _Place(address, f"devices/pci{domain:04x}:00/{address}", group)

    def _below(self, port: _Place, domain: int, index: int, function: int, group: int) -> _Place:
        address = f"{domain:04x}:{index + 1:02x}:00.{function}"
        return _Place(address, f"{port.path}/{address}", group)

    def _group(self, number: int, devices: list[_Place]) -> None:
        path = f"sys/kernel/iommu_groups/{number}"
        os.makedirs(f"{self.root}/{path}/devices")
        self._write(f"{path}/reserved_regions", _RESERVED[number % len(_RESERVED)])
        self._write(f"{path}/type", "DMA-FQ\n")
        for device in devices:
            self._link(f"{path}/devices/{device.address}", f"../../../../{device.path}")

    def _device(self, device: _Place, class_: str, driver: str | None, override: str = "(null)") -> None:
        path = f"sys/{device.path}"
        os.makedirs(f"{self.root}/{path}", exist_ok=True)  # a port's may be there: its endpoint's lies in it
        up = "../" * (path.count("/"))
        kind = f"bc{class_[:2]}sc{class_[2:4]}i{class_[4:]}"
        self._write(f"{path}/modalias", f"pci:v00008086d000010D3sv00008086sd0000A01F{kind}\n")
        self._write(f"{path}/driver_override", f"{override}\n")
        self._link(f"{path}/subsystem", f"{up}bus/pci")
        self._link(f"{path}/iommu_group", f"{up}kernel/iommu_groups/{device.group}")
        if driver is not None:
            self._link(f"{path}/driver", f"{up}bus/pci/drivers/{driver}")
        self._link(f"sys/bus/pci/devices/{device.address}", f"../../../{device.path}")

    def _vfio(self, device: _Place) -> None:
        name = f"vfio{self.vfio}"
        self.vfio += 1
        os.makedirs(f"{self.root}/sys/{device.path}/vfio-dev/{name}")
        for node in (f"dev/vfio/{device.group}", f"dev/vfio/devices/{name}"):
            self._write(node, "")
            os.chmod(f"{self.root}/{node}", 0o600)

    def _write(self, path: str, text: str) -> None:
        with open(f"{self.root}/{path}", "w", encoding="ascii") as file:
            file.write(text)

    def _link(self, path: str, target: str) -> None:
        os.symlink(target, f"{self.root}/{path}")
