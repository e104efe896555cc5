"""Why there are no groups."""

from __future__ import annotations

import pytest

from vfioctl.model import Platform
from vfioctl.policy.diagnosis import why_no_groups

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
