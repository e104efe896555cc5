"""explain: the groups of the model are the kernel's, on every machine; what it says when somebody turns ACS off, and to
a user who may not read the registers."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from tests.kernel.guest.conftest import Vfioctl
from tests.kernel.guest.sysfs import GROUPS, PCI, group_of, on_host_driver, unbind
from vfioctl.policy import pci_config

Roles = Mapping[str, str]


def groups_explained(vfioctl: Vfioctl) -> dict[int, Any]:
    """The explanation of every group that there is. Fails where the kernel has grouped otherwise than the model."""
    found = vfioctl("explain", *os.listdir(GROUPS), "-J")
    assert found.status == 0, found.stderr
    explanations = {each["group"]: each for each in found.json["explanations"]}
    differing = {n: each for n, each in explanations.items() if each["agrees"] is not True}
    assert explanations and differing == {}
    for number, each in explanations.items():
        assert sorted(each["devices"]) == sorted(os.listdir(GROUPS / str(number) / "devices"))
    return explanations


def codes(explanation: Mapping[str, Any]) -> dict[str, str]:
    """Why each member is where it is."""
    return {reason["address"]: reason["code"] for reason in explanation["reasons"]}


@pytest.fixture
def virtual_functions(roles: Roles) -> Iterator[list[str]]:
    """Two of the NVMe disk."""
    address = roles["nvme"]
    on_host_driver(address, "nvme")
    (PCI / address / "sriov_drivers_autoprobe").write_text("0")
    (PCI / address / "sriov_numvfs").write_text("2")
    yield sorted(os.readlink(link).rpartition("/")[2] for link in (PCI / address).glob("virtfn*"))
    (PCI / address / "sriov_numvfs").write_text("0")
    unbind(address)


@contextmanager
def acs_off(port: str) -> Iterator[None]:
    """What setpci does for those who want to let devices talk to each other."""
    config = PCI / port / "config"
    (at,) = (
        each.offset + 6
        for each in pci_config.decode(config.read_bytes()).capabilities
        if each.name == "ECAP_ACS"
    )
    with open(config, "r+b", buffering=0) as registers:
        before = os.pread(registers.fileno(), 2, at)
        os.pwrite(registers.fileno(), b"\0\0", at)
        try:
            yield
        finally:
            os.pwrite(registers.fileno(), before, at)


def test_vt_d(vfioctl: Vfioctl, roles: Roles, virtual_functions: list[str]) -> None:
    explanations = groups_explained(vfioctl)
    assert len(virtual_functions) == 2
    for virtual in virtual_functions:
        assert codes(explanations[group_of(virtual)]) == {virtual: "separate"}
    conventional = codes(explanations[group_of(roles["conv_nic"])])
    assert conventional == {
        roles["conv_bridge"]: "separate", roles["conv_edu0"]: "bridge-alias", roles["conv_edu1"]: "bridge-alias",
        roles["conv_nic"]: "bridge-alias",
    }  # fmt: skip
    assert codes(explanations[group_of(roles["mf1"])]) == {
        roles["mf0"]: "separate",
        roles["mf1"]: "multifunction",
    }
    (below,) = (r for r in explanations[group_of(roles["xhci"])]["reasons"] if r["address"] == roles["xhci"])
    assert (below["code"], below["bridge"]) == ("no-acs", roles["switch_down0"])
    assert all(each["isolation"]["real"] for each in explanations.values())


def test_acs_that_is_turned_off_later(vfioctl: Vfioctl, roles: Roles) -> None:
    with acs_off(roles["port_a"]):
        (found,) = vfioctl("explain", roles["nic_a"], "-J").json["explanations"]
    assert (found["isolation"]["real"], found["agrees"]) == (False, False)
    assert {each["code"] for each in found["isolation"]["caveats"]} == {"model-differs", "acs-off-now"}
    (reason,) = found["reasons"]
    assert (reason["code"], reason["bridge"], reason["evidence"]["acs_control"]) == (
        "acs-not-enabled", roles["port_a"], 0
    )  # fmt: skip


def test_who_is_not_root_is_told_what_is_unknown(vfioctl: Vfioctl, roles: Roles) -> None:
    found = vfioctl("explain", roles["conv_nic"], roles["edu"], user=vfioctl.unprivileged)
    assert found.status == 0
    assert f"{roles['conv_nic']} unreadable {roles['conv_bridge']} unknown " in found.stdout
    assert f"vfioctl: {roles['conv_nic']}: isolation from other groups: unknown" in found.stderr
    assert "run this as root" in found.stderr
    assert f"vfioctl: {roles['edu']}: isolation from other groups: real" in found.stderr.splitlines()


@pytest.mark.machine("no-iommu")
@pytest.mark.kernels("7.2")
def test_the_groups_that_would_be(vfioctl: Vfioctl, roles: Roles) -> None:
    found = vfioctl("explain", roles["conv_nic"], roles["nic_a"], "-J").json["explanations"]
    together = sorted(roles[role] for role in ("conv_bridge", "conv_edu0", "conv_edu1", "conv_nic"))
    assert [each["devices"] for each in found] == [together, [roles["nic_a"]]]
    assert {each["isolation"]["real"] for each in found} == {False}
    assert {each["remedies"][0]["code"] for each in found} == {"iommu"}


@pytest.mark.machine("amd-vi")
def test_amd_vi(vfioctl: Vfioctl, roles: Roles) -> None:
    assert codes(groups_explained(vfioctl)[group_of(roles["edu"])]) == {roles["edu"]: "separate"}


@pytest.mark.machine("virtio-iommu")
def test_virtio_iommu(vfioctl: Vfioctl, roles: Roles) -> None:
    groups_get_explained_as_drivers_are_probed(vfioctl, roles["edu"])


@pytest.mark.machine("smmuv3")
def test_smmuv3(vfioctl: Vfioctl, roles: Roles) -> None:
    groups_get_explained_as_drivers_are_probed(vfioctl, roles["edu"])


def groups_get_explained_as_drivers_are_probed(vfioctl: Vfioctl, address: str) -> None:
    """A device without a group is told which it would get, and gets that."""
    if not (PCI / address / "iommu_group").exists():
        (before,) = vfioctl("explain", address, "-J").json["explanations"]
        assert (before["group"], before["devices"], before["isolation"]["real"]) == (None, [address], True)
        assert before["remedies"][0] == {"code": "bind", "detail": f"vfioctl bind {address}"}
    assert vfioctl("bind", address).status == 0
    try:
        found = groups_explained(vfioctl)[group_of(address)]
        assert (found["rule"], codes(found)) == ("pci", {address: "separate"})
    finally:
        assert vfioctl("unbind", address).status == 0


@pytest.mark.machine("pseries")
def test_power(vfioctl: Vfioctl, roles: Roles) -> None:
    found = groups_explained(vfioctl)[group_of(roles["edu"])]
    assert (found["rule"], codes(found)) == (
        "partitionable-endpoint",
        {roles["edu"]: "partitionable-endpoint"},
    )
    assert "domain1-pe0" in found["reasons"][0]["detail"]


@pytest.mark.machine("zpci")
def test_s390x(vfioctl: Vfioctl, roles: Roles) -> None:
    assert {each["rule"] for each in groups_explained(vfioctl).values()} == {"function-group"}
