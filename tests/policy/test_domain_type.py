"""What changing the type of a default domain would take."""

from __future__ import annotations

import pytest

from vfioctl.model import Device, IommuGroup, Kernel, PciIds
from vfioctl.policy.domain_type import Change, changes
from vfioctl.policy.viability import judge

IDS = PciIds("020000", "8086", "10d3", "8086", "0000")
PORT = PciIds("060400", "1b36", "000c", "0000", "0000")


def found(type_: str | None, *drivers: str | None, release: str = "7.2.0") -> dict[str, Change]:
    devices = [
        Device(f"0000:0{i}:00.0", "pci", 4, PORT if driver == "pcieport" else IDS, driver)
        for i, driver in enumerate(drivers)
    ]
    kernel = Kernel(release)
    group = IommuGroup(4, type=type_, devices=tuple(devices))
    return {change.type: change for change in changes(judge(group, kernel), kernel)}


def test_a_translated_domain_becomes_lazy_at_any_time() -> None:
    lazy = found("DMA", "e1000e", "nvme")["DMA-FQ"]
    assert lazy.possible and lazy.cure is None
    assert lazy.command == "echo DMA-FQ > /sys/kernel/iommu_groups/4/type"
    assert not found("identity", "e1000e")["DMA-FQ"].possible
    assert not found("DMA-FQ", "e1000e")["DMA"].possible


def test_drivers_stand_in_the_way() -> None:
    change = found("DMA", "e1000e", "nvme", None)["identity"]
    assert not change.possible
    assert change.detail == "a driver uses the domain: 0000:00:00.0 (e1000e), 0000:01:00.0 (nvme)"
    assert change.cure == "vfioctl unbind --leave-unbound 0000:00:00.0 0000:01:00.0"
    assert all(change.possible for change in found("DMA", None, None).values())


def test_drivers_that_leave_dma_alone_do_not_count_since_6_4() -> None:
    assert found("DMA", "pcieport", "vfio-pci")["identity"].possible
    assert not found("DMA", "vfio-pci", release="6.3.1")["identity"].possible


def test_before_6_4_only_groups_of_one() -> None:
    assert [c.possible for c in found("DMA", None, None, release="6.1.0").values()] == [False] * 3
    assert [c.cure for c in found("DMA", None, None, release="6.1.0").values()] == [None] * 3
    assert [c.possible for c in found("DMA", None, release="6.1.0").values()] == [True] * 3


@pytest.mark.parametrize(
    ("type_", "release", "types"),
    [
        ("DMA", "7.2.0", ["DMA-FQ", "identity", "auto"]),
        ("identity", "6.1.0", ["DMA", "DMA-FQ", "auto"]),
        ("identity", "5.11.0", ["DMA", "auto"]),
        ("DMA", "5.10.0", []),
        ("unknown", "7.2.0", []),
        ("unmanaged", "7.2.0", []),
        (None, "7.2.0", []),
    ],
)
def test_which_types_there_are(type_: str | None, release: str, types: list[str]) -> None:
    assert list(found(type_, None, release=release)) == types
