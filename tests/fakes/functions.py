"""PCI functions to be grouped: made up, or of a machine whose groups are known."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from tests.fakes.tree import Tree, modalias_of
from vfioctl.model import PciFunction, PciIds

DUMPS = Path(__file__).resolve().parents[1] / "policy/pci_groups"
#: PCI_EXP_TYPE_* of <linux/pci_regs.h>; conventional has no such capability.
TYPES = {
    "endpoint": 0, "legacy-endpoint": 1, "root-port": 4, "upstream-port": 5, "downstream-port": 6,
    "pcie-to-pci-bridge": 7, "pci-to-pcie-bridge": 8, "root-complex-endpoint": 9, "root-complex-event-collector": 10,
}  # fmt: skip
NO_ACS = None
FULL_ACS = (0x1F, 0x1D)  # as the kernel sets it
ACS_OFF = (0x1F, 0)


def space(kind: str, acs: tuple[int, int] | None = NO_ACS, *, multi: bool = False) -> bytes:
    """A configuration space; ``acs``: capability and control."""
    data = bytearray(256 if kind == "conventional" else 4096)
    data[0x0E] = 0x80 if multi else 0
    if kind != "conventional":
        data[0x06], data[0x34] = 0x10, 0x40
        data[0x40:0x44] = bytes((0x10, 0)) + (2 | TYPES[kind] << 4).to_bytes(2, "little")
    if acs is not None:
        data[0x100:0x108] = b"".join(
            n.to_bytes(w, "little") for n, w in ((1 << 16 | 0x0D, 4), (acs[0], 2), (acs[1], 2))
        )
    return bytes(data)


def function(
    address: str,
    above: PciFunction | None = None,
    kind: str = "endpoint",
    acs: tuple[int, int] | None = NO_ACS,
    *,
    ids: str = "1af4:1000",
    subsystem: str = "1af4:1100",
    multi: bool = False,
    group: int | None = 0,
    physfn: str | None = None,
    root_bus: str = "pci0000:00",
    class_: str | None = None,
) -> PciFunction:
    """A function below the bridge ``above``, or on a root bus."""
    bridge = kind.endswith(("port", "bridge"))
    path = f"{above.path if above else root_bus}/{address}"
    named = PciIds(class_ or ("060400" if bridge else "020000"), *ids.split(":"), *subsystem.split(":"))
    return PciFunction(address, path, named, space(kind, acs, multi=multi), group, physfn=physfn)


def load(name: str) -> list[PciFunction]:
    """The functions of a machine: intel (VT-d) or amd (AMD-Vi), as Linux 7.2 has grouped them."""
    text = (DUMPS / f"{name}.txt").read_text(encoding="ascii")
    found = []
    for block in re.split(r"^(?=pci)", text, flags=re.MULTILINE)[1:]:
        path, group, size = block.split("\n", 1)[0].split()
        data = bytearray(int(size))
        for offset, row in re.findall(r"^([0-9a-f]+): ([0-9a-f]+)$", block, re.MULTILINE):
            data[int(offset, 16) : int(offset, 16) + 16] = bytes.fromhex(row)
        vendor, device, subvendor, subdevice = (
            f"{int.from_bytes(data[at : at + 2], 'little'):04x}" for at in (0, 2, 0x2C, 0x2E)
        )
        named = PciIds(data[9:12][::-1].hex(), vendor, device, subvendor, subdevice)
        number = None if group == "-" else int(group)
        found.append(PciFunction(path.rpartition("/")[2], path, named, bytes(data), number))
    return found


def write_functions(
    root: str, functions: Iterable[PciFunction], *, unit: str | None = None, size: int = 4096
) -> Tree:
    """A host with these functions; ``size``: how many bytes of configuration space may be read (64: not root)."""
    tree = Tree(root)
    tree.bus("pci")
    tree.put("/proc/sys/kernel/osrelease", "7.2.0\n")
    tree.put("/proc/sys/kernel/arch", "x86_64\n")
    tree.directory("/sys/kernel/iommu_groups")
    if unit is not None:
        tree.directory(f"/sys/class/iommu/{unit}")
    for each in functions:
        home = f"/sys/devices/{each.path}"
        tree.put(f"{home}/modalias", f"{modalias_of(each.ids)}\n")
        tree.put(f"{home}/config", each.config[:size])
        tree.link(f"{home}/subsystem", "/sys/bus/pci")
        tree.link(f"/sys/bus/pci/devices/{each.address}", home)
        if each.physfn is not None:
            tree.link(f"{home}/physfn", f"/sys/bus/pci/devices/{each.physfn}")
        if each.group is not None:
            top = f"/sys/kernel/iommu_groups/{each.group}"
            if not Path(tree.at(top)).is_dir():
                tree.group(each.group, type_="DMA")
            tree.link(f"{home}/iommu_group", top)
            tree.link(f"{top}/devices/{each.address}", home)
    return tree
