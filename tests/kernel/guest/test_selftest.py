"""vfioctl selftest, and show of open devices, on real ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from tests.kernel.guest.conftest import Vfioctl
from tests.kernel.guest.sysfs import group_of, modprobe, without_driver

ROLES = ("edu", "nic_a", "nvme", "mf0")
STEPS = [
    "node", "permitted", "viable", "container", "iova-ranges", "map", "device", "regions", "config", "interrupts",
    "reset", "dma", "given-back",
]  # fmt: skip


@pytest.fixture(scope="module")
def bound(vfioctl: Vfioctl, roles: Mapping[str, str]) -> Iterator[Mapping[str, str]]:
    modprobe("vfio-pci")
    mine = [roles[role] for role in ROLES]
    with without_driver(roles["mf1"]):  # it shares its group with mf0
        assert vfioctl("bind", *mine).status == 0
        yield roles
        assert vfioctl("unbind", *mine).status == 0


@pytest.mark.parametrize("role", ROLES)
def test_all_is_well(vfioctl: Vfioctl, bound: Mapping[str, str], role: str) -> None:
    found = vfioctl("selftest", bound[role], "-J")
    assert found.status == 0, found.stdout + found.stderr
    checks = {check["step"]: check for check in found.json["checks"]}
    assert list(checks) == STEPS
    untested = {step for step, check in checks.items() if check["verdict"] == "not-tested"}
    # edu and the other function can only be reset with their slots.
    assert untested == ({"dma", "reset"} if role in ("edu", "mf0") else {"dma"})
    kinds = {"edu": "intx, msi, req", "nic_a": "intx, msi, msix, err, req", "nvme": "intx, msix, err, req"}
    assert role not in kinds or checks["interrupts"]["detail"] == f"loopback of {kinds[role]}"


def test_a_group_and_a_container(vfioctl: Vfioctl, bound: Mapping[str, str]) -> None:
    group = group_of(bound["edu"])
    assert vfioctl("container", "open", "tested", group).status == 0
    found = vfioctl("selftest", group, "-J")
    assert found.status == 0, found.stdout
    checks = {check["step"]: check for check in found.json["checks"]}
    assert "open container tested" in checks["container"]["detail"]
    assert checks["given-back"]["verdict"] == "not-tested"
    live = vfioctl("show", bound["edu"], "-J").json["device"]["live"]
    assert live["flags"] == ["pci"] and live["irqs"][0]["name"] == "intx"
    assert live["features"]["low_power_entry"] is True
    assert live["migration"] is None and live["features"]["migration"] is False
    assert vfioctl("container", "close", "tested").status == 0
    assert vfioctl("show", bound["edu"], "-J").json["device"]["live"] is None
    live = vfioctl("show", bound["nvme"], "--live", "-J").json["device"]["live"]
    assert live["flags"][:2] == ["reset", "pci"]


def test_what_is_not_ready_fails_with_a_cure(vfioctl: Vfioctl, roles: Mapping[str, str]) -> None:
    found = vfioctl("selftest", roles["nic_b"], "-J")
    assert found.status == 1
    first, *rest = found.json["checks"]
    assert (first["step"], first["verdict"]) == ("node", "failed")
    assert first["cure"] == f"vfioctl bind --group {group_of(roles['nic_b'])}"
    assert all(check["verdict"] == "not-tested" for check in rest)


def test_a_user(vfioctl: Vfioctl, bound: Mapping[str, str]) -> None:
    refused = vfioctl("selftest", bound["edu"], "-J", user=Vfioctl.unprivileged)
    checks = {check["step"]: check["verdict"] for check in refused.json["checks"]}
    assert (refused.status, checks["permitted"], checks["container"]) == (1, "failed", "not-tested")
    assert vfioctl("permit", bound["edu"], "--user", "nobody").status == 0
    found = vfioctl("selftest", bound["edu"], "-J", user=Vfioctl.unprivileged)
    assert found.status == 0, found.stdout
    assert vfioctl("revoke", bound["edu"]).status == 0
