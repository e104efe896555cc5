"""What can be waited for: when it holds, and what is said to be missing."""

from __future__ import annotations

import pytest

from vfioctl.model import Device, IommuGroup, Kernel, Node, PciIds, Snapshot
from vfioctl.policy.conditions import missing
from vfioctl.policy.subjects import parse

KERNEL = Kernel("6.1.0-13-amd64", "x86_64", True)
IDS = PciIds("020000", "8086", "10d3", "8086", "0000")
BRIDGE = Device("0000:00:1c.0", "pci", 7, IDS._replace(class_="060400"), "pcieport")
NIC = Device("0000:01:00.0", "pci", 7, IDS, "vfio-pci", vfio_dev="vfio0")
OTHER = Device("0000:01:00.1", "pci", 7, IDS, "e1000e")
NODE = Node("/dev/vfio/7", 0, 0, 0o600)
CDEV = Node("/dev/vfio/devices/vfio0", 0, 0, 0o600)
ALONE = Device("0000:02:00.0", "pci", None, IDS)


def of(
    condition: str,
    name: str,
    *members: Device,
    node: Node | None = None,
    driver: str | None = None,
) -> list[str]:
    """What is missing in a host with the group 7 (when it has members) and ALONE."""
    groups = (IommuGroup(7, node=node, devices=members),) if members else ()
    snapshot = Snapshot(KERNEL, groups, (*members, ALONE))
    return [each.detail for each in missing(condition, parse(name), snapshot, driver)]


@pytest.mark.parametrize("condition", ["present", "bound", "viable", "usable", "node"])
def test_what_is_not_there(condition: str) -> None:
    assert of(condition, "7") == ["there is no IOMMU group 7"]
    assert of(condition, "01:00.0") == ["there is no device 0000:01:00.0"]
    assert of(condition, "platform/x") == ["there is no device platform/x"]
    assert of("gone", "7") == of("gone", "01:00.0") == []


def test_presence() -> None:
    assert of("present", "7", NIC) == of("present", "01:00.0", NIC) == []
    assert of("gone", "7", NIC) == ["IOMMU group 7 is still there"]
    assert of("gone", "01:00.0", NIC) == ["0000:01:00.0 is still there"]


def test_a_driver() -> None:
    assert of("bound", "01:00.1", OTHER) == of("bound", "01:00.1", OTHER, driver="e1000e") == []
    assert of("bound", "01:00.1", OTHER, driver="vfio-pci") == ["0000:01:00.1 has the driver e1000e"]
    assert of("bound", "02:00.0") == ["0000:02:00.0 has no driver"]
    bare = OTHER._replace(driver=None)
    assert of("bound", "7", BRIDGE, NIC, bare) == ["0000:01:00.1 has no driver"]
    assert of("bound", "7", BRIDGE, NIC, OTHER) == []
    assert of("bound", "7", BRIDGE, NIC, driver="vfio-pci") == []
    assert of("bound", "7", BRIDGE) == ["IOMMU group 7 has no member that could be assigned"]


def test_viability() -> None:
    assert of("viable", "7", NIC, OTHER) == of("viable", "01:00.0", NIC, OTHER)
    assert of("viable", "7", NIC, OTHER) == [
        "group 7 is not viable: 0000:01:00.1: the host driver e1000e owns its DMA"
    ]
    assert of("viable", "7", BRIDGE, NIC) == of("usable", "7", BRIDGE, NIC) == []
    (unbound,) = of("usable", "7", NIC._replace(driver=None, vfio_dev=None))
    assert "not usable" in unbound and "no member is bound" in unbound
    (groupless,) = of("viable", "02:00.0")
    assert groupless.startswith("0000:02:00.0 is in no IOMMU group")


def test_a_node() -> None:
    assert of("node", "7", NIC, node=NODE) == of("node", "01:00.0", NIC, node=NODE) == []
    assert of("node", "7", NIC) == ["IOMMU group 7 has no node under /dev/vfio"]
    # The node of the group is none of a member that VFIO does not have.
    assert of("node", "01:00.1", NIC, OTHER, node=NODE) == ["0000:01:00.1 has no node under /dev/vfio"]
    # A kernel without group nodes has cdevs.
    with_cdev = NIC._replace(cdev=CDEV)
    assert of("node", "7", with_cdev) == of("node", "01:00.0", with_cdev) == []
