"""The variants of the test machine are what they are meant to be."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.kernel.testbed.machine import RMRR_BASE, RMRR_SIZE

Roles = Mapping[str, str]
DEVICES = Path("/sys/bus/pci/devices")
GROUPS = Path("/sys/kernel/iommu_groups")


def reserved_regions(address: str) -> list[tuple[int, int, str]]:
    group = (DEVICES / address / "iommu_group").resolve()
    rows = (line.split() for line in (group / "reserved_regions").read_text().splitlines())
    return [(int(start, 16), int(end, 16), kind) for start, end, kind in rows]


@pytest.mark.machine("rmrr")
def test_the_firmware_maps_a_region_for_edu_alone(roles: Roles) -> None:
    direct = (RMRR_BASE, RMRR_BASE + RMRR_SIZE - 1, "direct")
    assert direct in reserved_regions(roles["edu"])
    assert direct not in reserved_regions(roles["mf0"])


@pytest.mark.machine("rmrr")
def test_the_kernel_trusts_the_table() -> None:
    bad_firmware = 1 << 11
    assert not int(Path("/proc/sys/kernel/tainted").read_text()) & bad_firmware


@pytest.mark.machine("no-iommu")
def test_there_are_no_groups(roles: Roles) -> None:
    assert not os.path.lexists(DEVICES / roles["edu"] / "iommu_group")
    assert not GROUPS.exists() or not os.listdir(GROUPS)


@pytest.mark.machine("no-intremap")
def test_groups_without_interrupt_remapping(roles: Roles) -> None:
    assert (DEVICES / roles["edu"] / "iommu_group").exists()
    table = Path("/sys/firmware/acpi/tables/DMAR").read_bytes()
    assert not table[37] & 1
