"""The files by which a doctor judges: what is absent, forbidden or no file is told apart."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.fakes.tree import Tree
from vfioctl.host import bounded, modules
from vfioctl.host.readings import files_of, read_readings, read_text
from vfioctl.model import Node, Unread

RELEASE = "6.1.0-1-amd64"


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(str(tmp_path))


def test_what_there_is(tree: Tree) -> None:
    address = "/sys/bus/pci/devices/0000:01:00.0"
    tree.put("/proc/cmdline", "quiet\n")
    tree.put("/etc/modprobe.d/b.conf", "blacklist b\n")
    tree.put("/etc/modprobe.d/c.conf~", "no\n")
    tree.put("/usr/lib/modprobe.d/a.conf", "blacklist a\n")
    tree.put("/usr/lib/modprobe.d/b.conf", "hidden by the one in /etc\n")
    tree.put(f"/boot/config-{RELEASE}", "CONFIG_VFIO=m\n")
    tree.put("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "4\n")
    tree.put(f"{address}/power_state", "D0\n")
    tree.put(f"{address}/reset", "")
    tree.node("/dev/vfio/vfio", 0o666)
    readings = read_readings(tree.root, RELEASE, ["pci/0000:01:00.0", "pci/0000:02:00.0"])
    rules = [path for path in readings.texts if "modprobe.d" in path]
    assert rules == ["/usr/lib/modprobe.d/a.conf", "/etc/modprobe.d/b.conf"]
    assert readings.text("/proc/cmdline") == "quiet"
    assert readings.text(f"/boot/config-{RELEASE}") == "CONFIG_VFIO=m"
    assert readings.text("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages") == "4"
    assert (readings.text(f"{address}/power_state"), readings.text(f"{address}/reset")) == ("D0", "")
    assert readings.why("/sys/bus/pci/devices/0000:02:00.0/reset") is Unread.ABSENT
    node = readings.nodes["/dev/vfio/vfio"]
    assert isinstance(node, Node) and (node.path, node.mode) == ("/dev/vfio/vfio", 0o666)
    assert readings.why("/sys/kernel/security/lockdown") is Unread.ABSENT


def test_an_empty_tree(tree: Tree) -> None:
    readings = read_readings(tree.root, None)
    assert {readings.why(path) for path in readings.texts} == {Unread.ABSENT}
    assert set(readings.nodes.values()) == {Unread.ABSENT}


def test_what_is_no_file_keeps_nobody_waiting(tree: Tree) -> None:
    tree.directory("/etc")
    os.mkfifo(tree.at("/etc/fifo"))
    tree.directory("/etc/directory")
    assert [read_text(tree.root, f"/etc/{name}") for name in ("fifo", "directory")] == [Unread.FAILED] * 2
    os.symlink("loop", tree.at("/etc/loop"))  # a snapshot's mark
    assert read_text(tree.root, "/etc/loop") is Unread.FORBIDDEN
    assert read_text(tree.root, "/etc/passwd/x") is Unread.ABSENT


def test_an_absolute_link_stays_below_the_root(tree: Tree) -> None:
    tree.put("/usr/lib/unit", "mine\n")
    tree.directory("/etc")
    os.symlink("/usr/lib/unit", tree.at("/etc/unit"))
    os.symlink("/etc/hostname", tree.at("/etc/other"))
    assert read_text(tree.root, "/etc/unit") == "mine"
    assert read_text(tree.root, "/etc/other") is Unread.ABSENT


def test_what_is_forbidden(tree: Tree) -> None:
    tree.put("/etc/secret", "x")
    os.chmod(tree.at("/etc/secret"), 0)

    def as_nobody() -> str | None:
        if os.geteuid() == 0:
            os.seteuid(65534)
        found = read_text(tree.root, "/etc/secret")
        return found.name if isinstance(found, Unread) else None

    assert bounded.call(as_nobody, 10) == "FORBIDDEN"


def test_files_of_no_directory(tree: Tree) -> None:
    assert files_of(tree.root, ["/etc/a.d", "/run/a.d"], ".conf") == []


def test_states_of_modules(tree: Tree) -> None:
    top = f"/lib/modules/{RELEASE}"
    tree.put(
        f"{top}/modules.dep",
        "kernel/drivers/vfio/pci/vfio-pci.ko.xz: kernel/drivers/vfio/vfio.ko.xz\nupdates/vfio.ko:\n",
    )
    tree.put(f"{top}/modules.builtin", "kernel/drivers/iommu/iommufd/iommufd.ko\n")
    tree.put("/sys/module/vfio/initstate", "live\n")
    tree.directory("/sys/module/vfio_iommu_type1/parameters")
    wanted = ("vfio", "vfio_pci", "iommufd", "vfio_iommu_type1", "vfio_cdx")
    assert modules.states(tree.root, RELEASE, wanted) == {
        "vfio": "loaded",
        "vfio_pci": "available",
        "iommufd": "built-in",
        "vfio_iommu_type1": "built-in",
        "vfio_cdx": "missing",
    }
