"""A host as files with what it uses devices for: disks and what is built on them, interfaces, routes, keyboards."""

from __future__ import annotations

import os
import sys

from tests.fakes.tree import Tree, modalias_of
from vfioctl.host.usage import uses_of
from vfioctl.model import Device, PciIds, Use

A, B = "0000:00:05.0", "0000:00:06.0"
HOME = "/sys/devices/pci0000:00"
VIRTUAL = "/sys/devices/virtual"
PCI = PciIds("010601", "8086", "2922", "1af4", "1100")


class Host(Tree):
    """Two controllers, A and B, in groups 5 and 6."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self.put("/proc/sys/kernel/osrelease", "6.1.0\n")
        self.lines: dict[str, list[str]] = {}
        self.add(A, 5)
        self.add(B, 6)

    def add(self, address: str, group: int, parent: str | None = None) -> str:
        """A PCI device; the path of its home."""
        if not os.path.isdir(self.at(f"/sys/kernel/iommu_groups/{group}")):
            self.group(group)
        self.device(Device(address, "pci", group, PCI, modalias=modalias_of(PCI)), parent)
        self.put(f"{self.homes['pci', address]}/vendor", "0x8086\n")
        return self.homes["pci", address]

    def uses(self, *addresses: str) -> list[Use]:
        """All uses of the devices, judged together."""
        found = uses_of(self.root, [f"pci/{address}" for address in addresses or (A,)])
        return [use for of_it in found.values() for use in of_it]

    def guards(self, *addresses: str) -> list[str]:
        return [use.guard for use in self.uses(*addresses)]

    def append(self, path: str, line: str, heading: str = "") -> None:
        """A line more in a file of procfs."""
        lines = self.lines.setdefault(path, [heading] if heading else [])
        lines.append(line)
        self.put(path, "".join(f"{text}\n" for text in lines))

    # --- disks ----------------------------------------------------------------------------------

    def disk(self, name: str, number: str, address: str | None = A, *, below: str = "ata1/host0") -> str:
        """A disk of a controller, or with None one that is built on others."""
        top = VIRTUAL if address is None else f"{self.homes['pci', address]}/{below}"
        return self._block(name, number, f"{top}/block/{name}")

    def partition(self, disk: str, name: str, number: str) -> None:
        home = os.path.realpath(self.at(f"/sys/class/block/{disk}"))[len(self.root) :]
        self.put(f"{self._block(name, number, f'{home}/{name}')}/partition", "1\n")

    def on(self, lower: str, *uppers: str) -> None:
        """Each of ``uppers`` holds ``lower``."""
        home = os.path.realpath(self.at(f"/sys/class/block/{lower}"))[len(self.root) :]
        for upper in uppers:
            self.link(f"{home}/holders/{upper}", f"{VIRTUAL}/block/{upper}")

    def dm(self, name: str, number: str, label: str, *lowers: str) -> None:
        """A device-mapper device on others, with its link in /dev/mapper."""
        home = self.disk(name, number, None)
        self.put(f"{home}/dm/name", f"{label}\n")
        self.link(f"/dev/mapper/{label}", f"/dev/{name}")
        self.put(f"/dev/{name}", "")
        for lower in lowers:
            self.on(lower, name)

    def mount(
        self, source: str, where: str, type_: str = "ext4", number: str = "0:99", options: str = "rw"
    ) -> None:
        self.append(
            "/proc/self/mountinfo",
            f"36 25 {number} / {where} rw,relatime shared:1 - {type_} {source} {options}",
        )

    def swap(self, path: str, type_: str = "partition") -> None:
        heading = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority"
        self.append("/proc/swaps", f"{path}                               {type_}\t1024\t\t0\t\t-2", heading)

    def udev(self, name: str, **properties: str) -> None:
        with open(self.at(f"/sys/class/block/{name}/dev")) as file:
            number = file.read().strip()
        self.put(f"/run/udev/data/b{number}", "".join(f"E:{k}={v}\n" for k, v in properties.items()))

    def _block(self, name: str, number: str, home: str) -> str:
        self.directory(f"{home}/holders")
        self.put(f"{home}/dev", f"{number}\n")
        self.link(f"/sys/class/block/{name}", home)
        return home

    # --- network --------------------------------------------------------------------------------

    def interface(
        self, name: str, address: str | None = A, *, up: bool = True, kind: str | None = None
    ) -> str:
        home = f"{VIRTUAL if address is None else self.homes['pci', address]}/net/{name}"
        self.put(f"{home}/flags", "0x1003\n" if up else "0x1002\n")
        self.put(f"{home}/uevent", (f"DEVTYPE={kind}\n" if kind else "") + f"INTERFACE={name}\n")
        self.link(f"/sys/class/net/{name}", home)
        return home

    def stack(self, lower: str, upper: str, *, master: bool = False) -> None:
        home = os.path.realpath(self.at(f"/sys/class/net/{lower}"))[len(self.root) :]
        self.link(f"{home}/upper_{upper}", f"/sys/class/net/{upper}")
        if master:
            self.link(f"{home}/master", f"{VIRTUAL}/net/{upper}")

    def route(self, interface: str, to: str = "0.0.0.0/0", *, gateway: bool = False, metric: int = 0) -> None:
        network, _, length = to.partition("/")
        mask = (0xFFFFFFFF << (32 - int(length))) & 0xFFFFFFFF
        fields = [interface, _native(network), _native("192.0.2.254") if gateway else "00000000"]
        fields += [f"{3 if gateway else 1:04X}", "0", "0", str(metric), _native_number(mask), "0", "0", "0"]
        heading = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT"
        self.append("/proc/net/route", "\t".join(fields), heading)

    def route6(
        self, interface: str, to: str = "0" * 32, length: int = 0, *, flags: int = 0x3, metric: int = 1024
    ) -> None:
        zero = "0" * 32
        line = f"{to} {length:02x} {zero} 00 {zero} {metric:08x} 00000001 00000000 {flags:08x} {interface:>8}"
        self.append("/proc/net/ipv6_route", line)

    def address6(self, interface: str, digits: str, scope: str = "00") -> None:
        self.append("/proc/net/if_inet6", f"{digits} 02 40 {scope} 80 {interface:>8}")

    def local4(self, *addresses: str) -> None:
        """fib_trie with these local addresses."""
        lines = ["Main:", "  +-- 0.0.0.0/0 3 0 5", "     |-- 0.0.0.0", "        /0 universe UNICAST"]
        for address in addresses:
            lines += [f"           |-- {address}", "              /32 host LOCAL"]
        self.put("/proc/net/fib_trie", "".join(f"{line}\n" for line in lines))

    # --- input ----------------------------------------------------------------------------------

    def keyboard(
        self,
        path: str,
        name: str = "A Keyboard",
        *,
        ev: str = "120013",
        key: str = "402000000 3803078f800d001 feffffdfffefffff fffffffffffffffe",
    ) -> None:
        text = (
            f'I: Bus=0003 Vendor=0627 Product=0001 Version=0111\nN: Name="{name}"\nP: Phys=x/input0\n'
            f"S: Sysfs={path.removeprefix('/sys')}\nU: Uniq=\nH: Handlers=sysrq kbd leds event1 \nB: PROP=0\n"
            f"B: EV={ev}\nB: KEY={key}\nB: MSC=10\nB: LED=1f\n"
        )
        self.directory(path)
        self.append("/proc/bus/input/devices", text)


def _native(address: str) -> str:
    value = 0
    for part in address.split("."):
        value = value << 8 | int(part)
    return _native_number(value)


def _native_number(value: int) -> str:
    """The four bytes as one number of the machine's byte order, as the kernel prints them."""
    return f"{int.from_bytes(value.to_bytes(4, 'big'), sys.byteorder):08X}"
