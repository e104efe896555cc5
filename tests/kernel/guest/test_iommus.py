"""The other IOMMUs of a PC: AMD-Vi, and virtio-iommu."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.edu.proof import prove
from tests.kernel.guest.conftest import Vfioctl
from tests.kernel.guest.sysfs import PCI, driver_of, group_of

Roles = Mapping[str, str]

AMD_VI = pytest.mark.machine("amd-vi")
VIRTIO_IOMMU = pytest.mark.machine("virtio-iommu")
UNSAFE = Path("/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts")
INTERRUPTS = {"start": 0xFEE00000, "end": 0xFEEFFFFF, "type": "msi"}


@pytest.fixture
def edu(vfioctl: Vfioctl, roles: Roles) -> Iterator[str]:
    """The edu device, bound."""
    assert vfioctl("bind", roles["edu"]).status == 0
    yield roles["edu"]
    assert vfioctl("unbind", roles["edu"]).status == 0


@AMD_VI
def test_amd_vi_maps_around_its_reserved_regions(vfioctl: Vfioctl, edu: str) -> None:
    assert os.listdir("/sys/class/iommu") == ["ivhd0"]
    info = vfioctl("iommu-info", edu, "--attach", "-J").json
    hyper_transport = {"start": 0xFD00000000, "end": 0xFFFFFFFFFF, "type": "reserved"}
    assert info["reserved_regions"] == [INTERRUPTS, hyper_transport]
    assert 8192 in info["page_sizes"], "AMD-Vi has every power of two"
    refused = vfioctl("map", edu, "--iova", "0xfd00000000", "-J")
    assert (refused.status, refused.json_error["code"]) == (2, "iova-reserved")
    mapped = vfioctl("map", edu, "--size", "2M", "-J")
    assert mapped.status == 0, mapped.stderr


@AMD_VI
def test_amd_vi_lets_the_device_reach_what_is_mapped_and_nothing_else(edu: str) -> None:
    assert [verdict.text for verdict in prove(group_of(edu), edu) if not verdict.passed] == []


@AMD_VI
def test_amd_vi_remaps_interrupts(vfioctl: Vfioctl, edu: str) -> None:
    assert vfioctl("check-viable", edu, "--usable").status == 0


@VIRTIO_IOMMU
def test_virtio_iommu_gives_a_device_its_group_when_a_driver_is_probed(
    vfioctl: Vfioctl, roles: Roles
) -> None:
    nic = roles["nic_a"]
    assert os.listdir("/sys/class/iommu") == ["0000:00:1c.0"]
    assert not (PCI / nic / "iommu_group").exists()
    (problem,) = vfioctl("check-viable", nic, "-J").json["results"][0]["problems"]
    assert (problem["code"], problem["cure"]) == ("no-iommu-group", f"vfioctl bind {nic}")
    bound = vfioctl("bind", nic, "-J")
    assert bound.status == 0, bound.stderr
    assert bound.json["devices"][0]["group"] == group_of(nic)
    assert vfioctl("unbind", nic).status == 0
    assert driver_of(nic) is None and (PCI / nic / "iommu_group").exists()


@VIRTIO_IOMMU
def test_virtio_iommu_maps_when_the_risk_of_its_interrupts_is_accepted(vfioctl: Vfioctl, edu: str) -> None:
    """It remaps no interrupts."""
    checked = vfioctl("check-viable", edu, "--usable", "-J")
    (result,) = checked.json["results"]
    assert (checked.status, result["viable"], result["usable"]) == (1, True, False)
    assert [problem["code"] for problem in result["problems"]] == ["interrupts-not-isolated"]
    refused = vfioctl("map", edu, "-J")
    assert (refused.status, refused.json_error["code"]) == (7, "interrupts-not-isolated")
    UNSAFE.write_text("Y")
    try:
        info = vfioctl("iommu-info", edu, "--attach", "-J").json
        assert info["reserved_regions"] == [INTERRUPTS]
        assert vfioctl("map", edu, "--size", "2M").status == 0
        assert [verdict.text for verdict in prove(group_of(edu), edu) if not verdict.passed] == []
    finally:
        UNSAFE.write_text("N")
