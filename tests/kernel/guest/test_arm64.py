"""arm64: an SMMUv3, interrupts isolated by a GICv3's ITS and not isolated by a GICv2."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.edu.edu import DMA_BUFFER
from tests.edu.proof import prove
from tests.kernel.guest.conftest import Vfioctl
from tests.kernel.guest.sysfs import PCI, driver_of, group_of, override_of
from tests.kernel.testbed.kernel_log import KernelLog

Roles = Mapping[str, str]
MSI_FIRST, MSI_LAST = 0x8000000, 0x80FFFFF
UNSAFE = Path("/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts")
SMMUV3 = pytest.mark.machine("smmuv3")
GICV2 = pytest.mark.machine("gicv2")


@pytest.fixture
def edu(vfioctl: Vfioctl, roles: Roles) -> Iterator[str]:
    """The edu device, bound."""
    assert vfioctl("bind", roles["edu"]).status == 0
    yield roles["edu"]
    assert vfioctl("unbind", roles["edu"]).status == 0


@SMMUV3
def test_the_kernel_gives_a_device_its_group_when_vfio_pci_probes_it(vfioctl: Vfioctl, roles: Roles) -> None:
    nic = roles["nic_a"]
    assert os.uname().machine == "aarch64"
    assert not (PCI / nic / "iommu_group").exists()
    (record,) = vfioctl("list-devices", nic, "-J").json["devices"]
    assert (record["group"], record["driver"]) == (None, None)
    assert nic not in str(vfioctl("list-groups", "-J").json)
    checked = vfioctl("check-viable", nic, "-J")
    (problem,) = checked.json["results"][0]["problems"]
    assert (checked.status, problem["code"], problem["cure"]) == (1, "no-iommu-group", f"vfioctl bind {nic}")
    refused = vfioctl("map", nic, "-J")
    assert (refused.status, refused.json_error["code"]) == (3, "no-iommu-group")
    assert refused.json_error["hint"] == f"vfioctl bind {nic}"

    bound = vfioctl("bind", nic, "--user", "nobody", "-J")
    assert bound.status == 0, bound.stderr
    (record,) = bound.json["devices"]
    assert (record["driver"], record["group"]) == ("vfio-pci", group_of(nic))
    assert record["node"]["uid"] == 65534
    assert vfioctl("show", nic, "-P", "iommu", "--value").stdout.startswith("smmu3.")
    assert vfioctl("check-viable", nic, "--live", "--usable").status == 0
    assert vfioctl("bind", nic, "-J").json["changed"] is False
    assert vfioctl("unbind", nic).status == 0
    assert (driver_of(nic), override_of(nic)) == (None, None)
    assert (PCI / nic / "iommu_group").exists()


@SMMUV3
def test_map_keeps_clear_of_the_window_of_interrupts(vfioctl: Vfioctl, edu: str) -> None:
    window = {"start": MSI_FIRST, "end": MSI_LAST, "type": "msi"}
    info = vfioctl("iommu-info", edu, "--attach", "-J").json
    assert (info["backend"], info["reserved_regions"]) == ("type1v2", [window])
    assert info["page_sizes"] == [4096, 2 << 20, 1 << 30]
    assert {"start": 0, "end": MSI_FIRST - 1} in info["iova_ranges"]
    refused = vfioctl("map", edu, "--iova", hex(MSI_FIRST), "-J")
    assert (refused.status, refused.json_error["code"]) == (2, "iova-reserved")
    assert "0x8000000-0x80fffff (msi)" in refused.json_error["message"]
    mapped = vfioctl("map", edu, "--size", "256M", "-J")
    assert mapped.status == 0, mapped.stderr
    (mapping,) = mapped.json["mappings"]
    assert mapping["iova"] > MSI_LAST


@SMMUV3
def test_the_device_reaches_what_is_mapped_and_nothing_else(edu: str, kernel_log: KernelLog) -> None:
    def proof() -> None:
        verdicts = list(prove(group_of(edu), edu))
        assert [verdict.text for verdict in verdicts if not verdict.passed] == []

    kernel_log.wait_for("event 0x10", proof)


@SMMUV3
def test_a_session_of_commands(vfioctl: Vfioctl, edu: str, kernel_log: KernelLog) -> None:
    """DMA and an interrupt by commands alone; what the commands do otherwise is tested on x86-64."""

    def done(*arguments: object, stdin: str | None = None) -> str:
        result = vfioctl(*arguments, "-c", "session", stdin=stdin)
        assert result.status == 0, result
        return result.stdout

    def copy(source: int, destination: int, command: int) -> None:
        registers = (f"0x80={source:#x}", f"0x88={destination:#x}", "0x90=2048", f"0x98={command}")
        done("region", "write", edu, "bar0", *registers, "--width", "64")
        until = time.monotonic() + 60
        while int(done("region", "read", edu, "bar0", "0x98"), 16) & 1:
            assert time.monotonic() < until

    assert vfioctl("container", "open", "session", edu).status == 0
    try:
        done("region", "write", edu, "config", "COMMAND", "0x6", "--mask", "0x6", "--check")
        for iova in ("0x100000", "0x200000"):
            done("map", "--size", "4K", "--iova", iova)
        done("memory", "write", "--iova", "0x100000", stdin="told by a shell")
        copy(0x100000, DMA_BUFFER, 1)
        copy(DMA_BUFFER, 0x200000, 3)
        assert done("memory", "read", "--iova", "0x200000", "--size", "15") == "told by a shell"
        kernel_log.wait_for("arm-smmu-v3", lambda: copy(DMA_BUFFER, 0x300000, 3))
        done("irq", "enable", edu, "msi")
        done("region", "write", edu, "bar0", "0x60=1")
        done("irq", "wait", edu, "msi", "--timeout", "30")
    finally:
        assert vfioctl("container", "close", "session").status == 0


@GICV2
def test_without_isolated_interrupts_the_kernel_refuses(vfioctl: Vfioctl, edu: str) -> None:
    checked = vfioctl("check-viable", edu, "--usable", "-J")
    assert checked.status == 1
    (result,) = checked.json["results"]
    assert (result["viable"], result["usable"]) == (True, False)
    assert [problem["code"] for problem in result["problems"]] == ["interrupts-not-isolated"]
    for command in (("map", edu), ("iommu-info", edu, "--attach")):
        refused = vfioctl(*command, "-J")
        assert (refused.status, refused.json_error["code"]) == (7, "interrupts-not-isolated"), refused
        assert refused.json_error["errno"] == "EPERM"
        assert str(UNSAFE) in refused.json_error["hint"]


@GICV2
def test_the_risk_can_be_accepted(vfioctl: Vfioctl, edu: str) -> None:
    UNSAFE.write_text("Y")
    try:
        checked = vfioctl("check-viable", edu, "--usable", "-J")
        assert checked.status == 0
        assert "allow_unsafe_interrupts lets it" in checked.json["results"][0]["problems"][0]["detail"]
        assert vfioctl("map", edu).status == 0
        assert all(verdict.passed for verdict in prove(group_of(edu), edu))
    finally:
        UNSAFE.write_text("N")
