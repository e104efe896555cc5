"""Why there are no groups."""

from __future__ import annotations

import pytest

from vfioctl.model import Device, Kernel, Platform
from vfioctl.policy.diagnosis import may_get_group, why_no_group, why_no_groups

INTEL = Platform("x86_64", "quiet", ("DMAR",), (), True, True)


@pytest.mark.parametrize(
    ("platform", "cause", "cure"),
    [
        (INTEL._replace(sysfs_mounted=False), "not mounted", "mount -t sysfs"),
        (INTEL, "DMAR", "add intel_iommu=on"),
        (INTEL._replace(cmdline="intel_iommu=on iommu=off"), "DMAR", "take iommu=off off"),
        (INTEL._replace(cmdline="intel_iommu=on"), "DMAR", "kernel log"),
        (INTEL._replace(firmware_tables=("IVRS",)), "IVRS", "kernel log"),
        (
            INTEL._replace(firmware_tables=("IVRS",), cmdline="amd_iommu=off"),
            "IVRS",
            "take amd_iommu=off off",
        ),
        (INTEL._replace(iommu_units=("dmar0",)), "active (dmar0)", "kernel log"),
        (INTEL._replace(firmware_tables=()), "no ACPI table DMAR or IVRS", "turn on VT-d"),
        (INTEL._replace(firmware_tables=(), groups_directory=False), "no IOMMU support", "turn on VT-d"),
        (Platform("aarch64", "", (), (), True, True), "firmware describes no IOMMU", "device tree"),
        (Platform(None, "", (), (), True, False), "no IOMMU support", "platform has an IOMMU"),
    ],
)
def test_causes(platform: Platform, cause: str, cure: str) -> None:
    found = why_no_groups(platform)
    assert cause in found[0]
    assert cure in found[1]


@pytest.mark.parametrize(
    ("machine", "units", "driver", "may"),
    [
        ("aarch64", ("smmu3.0x0000000009050000",), None, True),
        ("aarch64", ("smmu3.0x0000000009050000",), "e1000e", False),
        ("aarch64", (), None, False),
        ("x86_64", ("dmar0",), None, False),
        ("x86_64", ("ivhd0",), None, False),
        ("x86_64", ("0000:00:1c.0",), None, True),  # a virtio-iommu is called by its device
        (None, (), None, False),
    ],
)
def test_a_group_that_comes_with_a_driver(
    machine: str | None, units: tuple[str, ...], driver: str | None, may: bool
) -> None:
    device = Device("0000:00:01.0", "pci", None, None, driver)
    kernel = Kernel("6.12.0", machine, iommu_units=units)
    assert may_get_group(device, kernel) is may
    assert ("vfioctl bind 0000:00:01.0" in why_no_group(device, kernel)[1]) is may
