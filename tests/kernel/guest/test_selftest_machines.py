"""vfioctl selftest with other IOMMUs than VT-d, on other architectures, and without any."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.kernel.guest.conftest import Vfioctl

MODE = Path("/sys/module/vfio/parameters/enable_unsafe_noiommu_mode")


def checks_of(vfioctl: Vfioctl, *arguments: str) -> dict[str, dict[str, str]]:
    found = vfioctl("selftest", *arguments, "-J")
    assert found.status == 0, found.stdout + found.stderr
    return {check["step"]: check for check in found.json["checks"]}


def bound_and_tested(vfioctl: Vfioctl, address: str) -> dict[str, dict[str, str]]:
    assert vfioctl("bind", address).status == 0
    found = checks_of(vfioctl, address)
    assert vfioctl("unbind", address).status == 0
    for step in ("container", "map", "device", "regions", "config", "interrupts", "given-back"):
        assert found[step]["verdict"] == "ok", found[step]
    return found


@pytest.mark.machine("smmuv3")
@pytest.mark.kernels("6.12")
def test_arm64(vfioctl: Vfioctl, roles: Mapping[str, str]) -> None:
    assert bound_and_tested(vfioctl, roles["nic_a"])["container"]["detail"] == "type1v2"


@pytest.mark.machine("pseries")
@pytest.mark.kernels("6.12")
def test_power(vfioctl: Vfioctl, roles: Mapping[str, str]) -> None:
    assert bound_and_tested(vfioctl, roles["edu"])["container"]["detail"].startswith("spapr")


@pytest.mark.machine("no-iommu")
@pytest.mark.kernels("6.12-iommufd")
def test_without_an_iommu(vfioctl: Vfioctl, vfio_pci: Path, roles: Mapping[str, str]) -> None:
    MODE.write_text("Y")
    edu = roles["edu"]
    assert vfioctl("bind", edu).status == 0
    assert vfioctl("selftest", edu).status == 1
    assert vfioctl("container", "open", "unsafe", edu, "--backend", "noiommu").status == 0
    found = checks_of(vfioctl, edu)
    assert (found["map"]["verdict"], found["interrupts"]["verdict"]) == ("not-tested", "ok")
    assert "no IOMMU" in found["map"]["detail"]
    assert vfioctl("container", "close", "unsafe").status == 0
    assert vfioctl("unbind", edu).status == 0
    MODE.write_text("N")
