"""What the host uses a device for: on small trees of files, with names that others have chosen."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes.command import run_command
from tests.fakes.tree import Tree, modalias_of
from vfioctl.host.usage import uses_of
from vfioctl.model import Device, PciIds

ADDRESS = "0000:00:05.0"
KEY = f"pci/{ADDRESS}"
HOME = f"/sys/devices/pci0000:00/{ADDRESS}"
ROUTES = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """One controller in group 5."""
    tree = Tree(str(tmp_path))
    pci = PciIds("010601", "8086", "2922", "1af4", "1100")
    tree.put("/proc/sys/kernel/osrelease", "6.1.0\n")
    tree.group(5)
    tree.device(Device(ADDRESS, "pci", 5, pci, modalias=modalias_of(pci)))
    return tree


def interface(tree: Tree, name: str, home: str) -> None:
    tree.directory(f"{home}/net/{name}")
    tree.link(f"/sys/class/net/{name}", f"{home}/net/{name}")


def disk(tree: Tree, name: str, number: str, home: str) -> None:
    tree.directory(f"{home}/block/{name}/holders")
    tree.put(f"{home}/block/{name}/dev", f"{number}\n")
    tree.link(f"/sys/class/block/{name}", f"{home}/block/{name}")


def default_route(tree: Tree, interface: str) -> None:
    line = f"{interface}\t00000000\t020200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
    tree.put(
        "/proc/net/route",
        f"{ROUTES}{interface}\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n{line}",
    )


@pytest.mark.parametrize("route", ["eth0", "v0", "br0"])
def test_the_default_route_through_what_is_stacked_on_it(tree: Tree, route: str) -> None:
    """A VLAN on the card, and a bridge over the VLAN."""
    interface(tree, "eth0", HOME)
    interface(tree, "v0", "/sys/devices/virtual")
    interface(tree, "br0", "/sys/devices/virtual")
    tree.link(f"{HOME}/net/eth0/upper_v0", "/sys/devices/virtual/net/v0")
    tree.link("/sys/devices/virtual/net/v0/lower_eth0", f"{HOME}/net/eth0")
    tree.link("/sys/devices/virtual/net/v0/upper_br0", "/sys/devices/virtual/net/br0")
    default_route(tree, route)
    assert uses_of(tree.root, KEY) == (("default-route", f"the IPv4 default route leaves through {route}"),)


def test_the_default_route_through_another_card(tree: Tree) -> None:
    interface(tree, "eth0", HOME)
    interface(tree, "v0", "/sys/devices/virtual")
    default_route(tree, "v0")
    assert uses_of(tree.root, KEY) == ()


def mounts(tree: Tree, *where: bytes) -> None:
    lines = [b"36 25 8:0 / %s rw,relatime shared:1 - ext4 /dev/sda rw\n" % path for path in where]
    tree.put("/proc/self/mountinfo", b"".join(lines))


@pytest.mark.parametrize(
    "where",
    [
        rb"/mnt/two\040words",
        rb"/mnt/a\012vfioctl:\040cure:\040--allow",
        rb"/mnt/back\134slash\011tab",
        b"/mnt/\xff\xfe\x1b[2J",
        rb"/mnt/\033[2J\015",
    ],
)
def test_a_mount_point_is_one_line_whatever_its_name(tree: Tree, where: bytes) -> None:
    disk(tree, "sda", "8:0", HOME)
    mounts(tree, where, b"/")
    hostile, root = uses_of(tree.root, KEY)
    assert hostile.guard == "mounted-disk"
    assert hostile.evidence.isprintable() and hostile.evidence.startswith("sda is mounted on /mnt/")
    assert root == ("root-disk", "sda is mounted on /")


class TestNamesThatMeanMore:
    def ask(self, tree: Tree, name: str) -> tuple[int, str]:
        result = run_command(None, "--root", tree.root, "check-viable", name, "-J")
        return result.status, result.json_error["code"] if result.status == 2 else ""

    def test_one_interface_of_a_card(self, tree: Tree) -> None:
        interface(tree, "eth0", HOME)
        assert self.ask(tree, "eth0")[0] in (0, 1)

    def test_an_interface_on_usb(self, tree: Tree) -> None:
        interface(tree, "enx0", f"{HOME}/usb1/1-1/1-1:1.0")
        assert self.ask(tree, "enx0") == (2, "ambiguous")

    def test_the_only_disk_of_a_controller(self, tree: Tree) -> None:
        disk(tree, "sda", "8:0", f"{HOME}/ata1/host0/target0:0:0/0:0:0:0")
        disk(tree, "sda1", "8:1", f"{HOME}/ata1/host0/target0:0:0/0:0:0:0/block/sda")
        tree.put(f"{HOME}/ata1/host0/target0:0:0/0:0:0:0/block/sda/block/sda1/partition", "1\n")
        assert self.ask(tree, "sda")[0] in (0, 1)

    def test_one_disk_of_two(self, tree: Tree) -> None:
        disk(tree, "sda", "8:0", f"{HOME}/ata1/host0/target0:0:0/0:0:0:0")
        disk(tree, "sdb", "8:16", f"{HOME}/ata2/host1/target1:0:0/1:0:0:0")
        for name in ("sda", "sdb"):
            assert self.ask(tree, name) == (2, "ambiguous")
        assert self.ask(tree, ADDRESS)[0] in (0, 1)


@pytest.mark.parametrize("where", [b"/mnt/a\rb", b"/mnt/a\x0cb", b"/mnt/a\xe2\x80\xa8b", b"/mnt/a\xc2\x85b"])
def test_what_the_kernel_does_not_escape_ends_no_line(tree: Tree, where: bytes) -> None:
    disk(tree, "sda", "8:0", HOME)
    mounts(tree, where)
    assert [use.guard for use in uses_of(tree.root, KEY)] == ["mounted-disk"]
