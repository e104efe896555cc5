"""Writes sysfs, procfs and /dev as files: the inverse of vfioctl.host.reader."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence

from vfioctl.model import Device, IommuGroup, Node, PciIds, Snapshot

UNSET = "(null)\n"
#: Buses with driver_override.
STEERABLE = frozenset({"pci", "platform", "amba", "fsl-mc", "cdx", "css"})


def modalias_of(pci: PciIds) -> str:
    """``pci:v...``, as modalias_show in drivers/pci/pci-sysfs.c prints it."""
    parts = (pci.vendor, pci.device, pci.subsystem_vendor, pci.subsystem_device)
    vendor, device, subvendor, subdevice = (part.upper().zfill(8) for part in parts)
    class_ = pci.class_.upper()
    return f"pci:v{vendor}d{device}sv{subvendor}sd{subdevice}bc{class_[:2]}sc{class_[2:4]}i{class_[4:]}"


def alias_of(entry: Sequence[int], any_number: int) -> str:
    """What depmod makes of an override-only id (vendor, device, subvendor, subdevice, class, mask) of a variant:
    do_pci_entry in scripts/mod/file2alias.c, for classes that are given whole or not at all."""
    ids = "".join(
        name + ("*" if number == any_number else f"{number:08X}")
        for name, number in zip(("v", "d", "sv", "sd"), entry, strict=False)
    )
    class_ = (
        f"bc{entry[4] >> 16:02X}sc{entry[4] >> 8 & 0xFF:02X}i{entry[4] & 0xFF:02X}"
        if entry[5]
        else "bc*sc*i*"
    )
    return f"vfio_pci:{ids}{class_}"


class Tree:
    """Files below ``root``; every path given is an absolute one of the imitated host."""

    def __init__(self, root: str) -> None:
        self.root = root
        #: Real directory of each device by (bus, address): links lead there.
        self.homes: dict[tuple[str, str], str] = {}

    def at(self, path: str) -> str:
        return self.root + path

    def put(self, path: str, text: str | bytes) -> None:
        """A file with exactly this content."""
        os.makedirs(os.path.dirname(self.at(path)), exist_ok=True)
        with open(self.at(path), "wb") as file:
            file.write(text.encode(errors="surrogateescape") if isinstance(text, str) else text)

    def append(self, path: str, text: str) -> None:
        """More at the end of a file, which need not be there yet."""
        os.makedirs(os.path.dirname(self.at(path)), exist_ok=True)
        with open(self.at(path), "a") as file:
            file.write(text)

    def directory(self, path: str) -> None:
        os.makedirs(self.at(path), exist_ok=True)

    def link(self, path: str, target: str) -> None:
        """A relative symbolic link, as sysfs has them."""
        directory = os.path.dirname(path)
        self.directory(directory)
        os.symlink(os.path.relpath(target, directory), self.at(path))

    def unlink(self, path: str) -> None:
        os.unlink(self.at(path))

    def remove(self, path: str) -> None:
        """A directory with all that is in it."""
        shutil.rmtree(self.at(path))

    def bus(self, name: str) -> None:
        if not os.path.isdir(self.at(f"/sys/bus/{name}/drivers")):
            self.directory(f"/sys/bus/{name}/devices")
            self.directory(f"/sys/bus/{name}/drivers")
            self.put(f"/sys/bus/{name}/drivers_probe", "")

    def driver(self, bus: str, name: str) -> None:
        """The directory of a registered driver."""
        self.bus(bus)
        top = f"/sys/bus/{bus}/drivers/{name}"
        if not os.path.isdir(self.at(top)):
            for file in ("bind", "unbind", "new_id", "remove_id") if bus == "pci" else ("bind", "unbind"):
                self.put(f"{top}/{file}", "")

    def group(
        self, number: int, *, name: str | None = None, type_: str | None = "DMA", regions: str = ""
    ) -> None:
        top = f"/sys/kernel/iommu_groups/{number}"
        self.directory(f"{top}/devices")
        self.put(f"{top}/reserved_regions", regions)
        if type_ is not None:
            self.put(f"{top}/type", f"{type_}\n")
        if name is not None:
            self.put(f"{top}/name", f"{name}\n")

    def device(self, device: Device, parent: str | None = None) -> None:
        """A device without its driver; ``parent`` is the address of the bridge above it."""
        bus, address = device.bus, device.address
        self.bus(bus)
        above = "/sys/devices/pci0000:00" if bus == "pci" else f"/sys/devices/{bus}"
        home = f"{self.homes[bus, parent] if parent else above}/{address}"
        self.homes[bus, address] = home
        self.directory(home)
        if device.modalias is not None:
            self.put(f"{home}/modalias", f"{device.modalias}\n")
        if bus in STEERABLE or device.driver_override is not None:
            self.override(bus, address, device.driver_override)
        self.link(f"{home}/subsystem", f"/sys/bus/{bus}")
        self.link(f"/sys/bus/{bus}/devices/{address}", home)
        if device.group is not None:
            members = f"/sys/kernel/iommu_groups/{device.group}/devices"
            name, suffix = address, 0
            while os.path.lexists(self.at(f"{members}/{name}")):  # as iommu_group_add_device does
                name, suffix = f"{address}.{suffix}", suffix + 1
            self.link(f"{members}/{name}", home)
            self.link(f"{home}/iommu_group", f"/sys/kernel/iommu_groups/{device.group}")

    def override(self, bus: str, address: str, value: str | None) -> None:
        self.put(f"{self.homes[bus, address]}/driver_override", UNSET if value is None else f"{value}\n")

    def bind(self, bus: str, address: str, driver: str) -> None:
        home = self.homes[bus, address]
        self.driver(bus, driver)
        self.link(f"{home}/driver", f"/sys/bus/{bus}/drivers/{driver}")
        self.link(f"/sys/bus/{bus}/drivers/{driver}/{address}", home)

    def unbind(self, bus: str, address: str, driver: str) -> None:
        self.unlink(f"{self.homes[bus, address]}/driver")
        self.unlink(f"/sys/bus/{bus}/drivers/{driver}/{address}")

    def vfio_dev(self, bus: str, address: str, name: str) -> None:
        self.directory(f"{self.homes[bus, address]}/vfio-dev/{name}")

    def node(self, path: str, mode: int = 0o600) -> None:
        self.put(path, "")
        os.chmod(self.at(path), mode)

    def unplug(self, bus: str, address: str, group: int | None) -> None:
        """Removes a device that has no driver."""
        home = self.homes.pop((bus, address))
        self.unlink(f"/sys/bus/{bus}/devices/{address}")
        if group is not None:
            members = f"/sys/kernel/iommu_groups/{group}/devices"
            for name in os.listdir(self.at(members)):
                if os.path.realpath(self.at(f"{members}/{name}")) == self.at(home):
                    self.unlink(f"{members}/{name}")
        self.remove(home)


def describe_port(tree: Tree, address: str) -> None:
    """Gives a root port a configuration space with ACS, and a link of which it does not use all."""
    home = tree.homes["pci", address]
    tree.put(f"{home}/config", port_space(1, 1, 0x5F, 0x1D))
    link = ("8.0 GT/s PCIe", "8", "16.0 GT/s PCIe", "16")
    names = ("current_link_speed", "current_link_width", "max_link_speed", "max_link_width")
    for name, text in zip(names, link, strict=True):
        tree.put(f"{home}/{name}", f"{text}\n")


def port_space(first: int, last: int, acs: int, control: int) -> bytes:
    """The configuration space of a bridge to the buses ``first`` to ``last``, with an ACS capability."""
    data = bytearray(4096)
    data[0x00:0x04] = bytes.fromhex("361b0c00")
    data[0x0E], data[0x19], data[0x1A] = 1, first, last
    data[0x100:0x104] = (0x0D | 1 << 16).to_bytes(4, "little")
    data[0x104:0x108] = acs.to_bytes(2, "little") + control.to_bytes(2, "little")
    return bytes(data)


def write_snapshot(root: str, snapshot: Snapshot) -> None:
    """``snapshot`` as a tree below ``root``; ``read_snapshot(root, ungrouped=True)`` reads it back the same.

    Owners of nodes cannot be chosen without privilege: they are the caller's.
    """
    tree = Tree(root)
    tree.directory("/sys/kernel/iommu_groups")
    _write_kernel(tree, snapshot)
    for group in snapshot.groups:
        _write_group(tree, group)
        _write_node(tree, group.node)
    for device in snapshot.devices:
        tree.device(device)
        if device.driver is not None:
            tree.bind(device.bus, device.address, device.driver)
        if device.vfio_dev is not None:
            tree.vfio_dev(device.bus, device.address, device.vfio_dev)
        _write_node(tree, device.cdev)


def _write_kernel(tree: Tree, snapshot: Snapshot) -> None:
    kernel = snapshot.kernel
    if kernel.release is not None:
        tree.put("/proc/sys/kernel/osrelease", f"{kernel.release}\n")
    if kernel.machine is not None:
        tree.put("/proc/sys/kernel/arch", f"{kernel.machine}\n")
    if kernel.interrupts_isolated is not None:
        chip = "IR-IO-APIC" if kernel.interrupts_isolated else "IO-APIC"
        tree.put("/proc/interrupts", f"           CPU0\n  1:          9  {chip}    1-edge      i8042\n")
    if kernel.unsafe_interrupts_allowed:
        tree.put("/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts", "Y\n")
    for unit in kernel.iommu_units:
        tree.directory(f"/sys/class/iommu/{unit}")
    if kernel.has_iommufd:
        tree.directory("/sys/module/iommufd")


def _write_group(tree: Tree, group: IommuGroup) -> None:
    lines = [f"0x{r.start:016x} 0x{r.end:016x} {r.type}\n" for r in group.reserved_regions]
    tree.group(group.id, name=group.name, type_=group.type, regions="".join(lines))


def _write_node(tree: Tree, node: Node | None) -> None:
    if node is not None:
        tree.node(node.path, node.mode)
