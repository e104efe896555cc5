"""Which nodes belong to a device: on small trees of files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.fakes.tree import Tree, modalias_of
from vfioctl.host.holders.nodes import DeviceNode, Owners, nodes_of, suspects
from vfioctl.host.reader import read_snapshot
from vfioctl.model import Device, PciIds

PCI = PciIds("010802", "1b36", "0010", "1af4", "1100")
BRIDGE = "0000:00:01.0"
ADDRESS = "0000:01:00.0"
KEY = f"pci/{ADDRESS}"
HOME = f"/sys/devices/pci0000:00/{BRIDGE}/{ADDRESS}"


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """A controller behind a port, both in group 5."""
    tree = Tree(str(tmp_path))
    tree.group(5)
    tree.device(Device(BRIDGE, "pci", 5, PCI._replace(class_="060400"), modalias=modalias_of(PCI)))
    tree.device(Device(ADDRESS, "pci", 5, PCI, modalias=modalias_of(PCI)), BRIDGE)
    return tree


def node(tree: Tree, home: str, number: str, kind: str, devname: str | None = None) -> None:
    """A device with a node."""
    tree.put(f"{home}/dev", f"{number}\n")
    tree.put(f"{home}/uevent", f"MAJOR=1\n{f'DEVNAME={devname}' if devname else ''}\n")
    tree.directory(f"/sys/class/{kind}")
    tree.link(f"{home}/subsystem", f"/sys/class/{kind}")
    tree.link(f"/sys/dev/{'block' if kind == 'block' else 'char'}/{number}", home)
    tree.link(f"/sys/class/{kind}/{home.rpartition('/')[2]}", home)


def paths(tree: Tree, key: str = KEY) -> list[tuple[str, str]]:
    return sorted((found.path, found.kind) for found in nodes_of(tree.root, [key])[key])


def test_a_device_without_nodes(tree: Tree) -> None:
    assert nodes_of(tree.root, [KEY, "pci/0000:ff:00.0"]) == {KEY: [], "pci/0000:ff:00.0": []}


def test_what_is_below_the_device(tree: Tree) -> None:
    node(tree, f"{HOME}/drm/card0", "226:0", "drm", "dri/card0")
    node(tree, f"{HOME}/sound/card0/pcmC0D0p", "116:3", "sound", "snd/pcmC0D0p")
    node(tree, f"{HOME}/usb1/1-1/1-1:1.0/0003:1.1/hidraw/hidraw0", "240:0", "hidraw", "hidraw0")
    node(tree, f"{HOME}/vfio-dev/vfio3", "511:3", "vfio-dev", "vfio/devices/vfio3")
    node(tree, "/sys/devices/virtual/mem/null", "1:3", "mem", "null")
    node(tree, f"/sys/devices/pci0000:00/{BRIDGE}/0000:01:00.1/drm/card1", "226:1", "drm", "dri/card1")
    assert paths(tree) == [
        ("/dev/dri/card0", "drm"),
        ("/dev/hidraw0", "hidraw"),
        ("/dev/snd/pcmC0D0p", "sound"),
        ("/dev/vfio/devices/vfio3", "vfio-dev"),
    ]
    assert len(paths(tree, f"pci/{BRIDGE}")) == 5


def test_the_number_is_the_nodes(tree: Tree) -> None:
    node(tree, f"{HOME}/drm/renderD128", "226:128", "drm")
    assert nodes_of(tree.root, [KEY])[KEY] == [
        DeviceNode("/dev/renderD128", "drm", os.makedev(226, 128), False)
    ]


@pytest.mark.parametrize("name", ["5", "noiommu-5"])
def test_the_node_of_the_group(tree: Tree, name: str) -> None:
    node(tree, f"/sys/devices/virtual/vfio/{name}", "243:0", "vfio", f"vfio/{name}")
    node(tree, "/sys/devices/virtual/vfio/6", "243:1", "vfio", "vfio/6")
    assert paths(tree) == [(f"/dev/vfio/{name}", "vfio")]


def test_the_group_of_a_mediated_device(tree: Tree) -> None:
    mdev = f"{HOME}/83b8f4f2-509f-382f-3c1e-e6bfe0fa1001"
    tree.directory(mdev)
    tree.group(9)
    tree.link("/sys/kernel/iommu_groups/9/devices/83b8f4f2-509f-382f-3c1e-e6bfe0fa1001", mdev)
    node(tree, "/sys/devices/virtual/vfio/9", "243:2", "vfio", "vfio/9")
    assert paths(tree) == [("/dev/vfio/9", "vfio")]


def test_a_disk_and_what_is_built_on_it(tree: Tree) -> None:
    virtual = "/sys/devices/virtual/block"
    node(tree, f"{HOME}/block/sda", "8:0", "block", "sda")
    node(tree, f"{HOME}/block/sda/sda1", "8:1", "block", "sda1")
    node(tree, f"{virtual}/dm-0", "254:0", "block", "dm-0")
    node(tree, f"{virtual}/md0", "9:0", "block", "md0")
    tree.link(f"{HOME}/block/sda/sda1/holders/dm-0", f"{virtual}/dm-0")
    tree.link(f"{virtual}/dm-0/holders/md0", f"{virtual}/md0")
    tree.link(f"{virtual}/md0/holders/dm-0", f"{virtual}/dm-0")  # which the kernel would not allow
    found = nodes_of(tree.root, [KEY])[KEY]
    assert sorted(node.path for node in found) == ["/dev/dm-0", "/dev/md0", "/dev/sda", "/dev/sda1"]
    assert all(node.is_block for node in found)


def test_an_nvme_disk_with_multipath(tree: Tree) -> None:
    """Its nodes are below the subsystem, which links to its controllers."""
    top = "/sys/devices/virtual/nvme-subsystem/nvme-subsys0"
    node(tree, f"{HOME}/nvme/nvme0", "10:1", "nvme", "nvme0")
    node(tree, f"{top}/nvme0n1", "259:0", "block", "nvme0n1")
    node(tree, f"{top}/ng0n1", "240:0", "nvme-generic", "ng0n1")
    tree.link(f"{top}/nvme0", f"{HOME}/nvme/nvme0")
    tree.link("/sys/class/nvme-subsystem/nvme-subsys0", top)
    assert [path for path, _ in paths(tree)] == ["/dev/ng0n1", "/dev/nvme0", "/dev/nvme0n1"]


def test_nvidia(tree: Tree) -> None:
    tree.put(f"/proc/driver/nvidia/gpus/{ADDRESS}/information", "Model: \t x\nDevice Minor: \t 1\n")
    assert nodes_of(tree.root, [KEY])[KEY] == [
        DeviceNode("/dev/nvidia1", "nvidia", os.makedev(195, 1), False)
    ]


def test_what_a_vfio_device_file_may_be_of(tree: Tree) -> None:
    assert suspects(tree.root) == []
    tree.bus("pci")
    node(tree, "/sys/devices/virtual/vfio/5", "243:0", "vfio", "vfio/5")
    tree.driver("pci", "pcieport")
    tree.bind("pci", BRIDGE, "pcieport")
    assert suspects(tree.root) == [tree.at(HOME)]  # driverless: its user may keep it in the driver's remove()
    tree.driver("pci", "vfio-pci")
    tree.bind("pci", ADDRESS, "vfio-pci")
    assert suspects(tree.root) == [tree.at(HOME)]
    node(tree, f"/sys/devices/pci0000:00/{BRIDGE}/vfio-dev/vfio0", "511:0", "vfio-dev")
    assert suspects(tree.root) == [tree.at(f"/sys/devices/pci0000:00/{BRIDGE}"), tree.at(HOME)]


def test_a_directory_of_nobody() -> None:
    assert [Owners("/", [KEY]).of(path) for path in ("/", "//sys/x", "sys/x", "")] == [[], [], [], []]


def test_a_mediated_device_that_has_left_its_bus_while_the_kernel_waits_for_its_users(tree: Tree) -> None:
    uuid = "83b8f4f2-509f-382f-3c1e-e6bfe0fa1001"
    tree.group(6)
    tree.device(Device(uuid, "mdev", 6, None))
    node(tree, "/sys/devices/virtual/vfio/6", "242:6", "vfio", "vfio/6")
    tree.unlink(f"/sys/bus/mdev/devices/{uuid}")
    tree.unlink(f"/sys/devices/mdev/{uuid}/subsystem")
    assert paths(tree, f"mdev/{uuid}") == [("/dev/vfio/6", "vfio")]
    (group,) = [group for group in read_snapshot(tree.root).groups if group.id == 6]
    assert [device.key for device in group.devices] == [f"mdev/{uuid}"]
