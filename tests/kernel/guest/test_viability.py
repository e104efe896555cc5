"""vfioctl's verdict against the kernel's own, for every group that can be asked, in several states."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.kernel.guest.conftest import Vfioctl
from tests.kernel.guest.sysfs import (
    GROUPS,
    driver_of,
    group_of,
    kernel_says_viable,
    modprobe,
    need_driver,
    override_of,
    probe,
)

#: One endpoint of each group that holds something else than ports and what the guest lives on.
ASKED = ("vga", "edu", "plain_edu", "nic_a", "nic_b", "conv_edu0", "mf0", "xhci", "nvme")
HOST_MODULES = ("e1000e", "e1000", "nvme", "xhci_pci")


@pytest.fixture(scope="module")
def bound(vfioctl: Vfioctl, roles: Mapping[str, str]) -> Iterator[list[str]]:
    """One member of each group is on vfio-pci, so that each has a node."""
    need_driver("shpchp")
    addresses = [roles[role] for role in ASKED]
    result = vfioctl("bind", *addresses, "--allow", "boot-vga")
    assert result.status == 0, result.stderr
    yield addresses
    result = vfioctl("unbind", *addresses)
    assert result.status == 0, result.stderr


@pytest.fixture(scope="module")
def host_drivers(bound: list[str], roles: Mapping[str, str]) -> list[str]:
    """The other members have their host drivers: mf1 and conv_nic, plain_nic on e1000."""
    modprobe(*HOST_MODULES)
    others = [roles["mf1"], roles["conv_nic"], roles["plain_nic"]]
    for address in others:
        probe(address)
        assert driver_of(address) == "e1000"
    return others


def verdicts(vfioctl: Vfioctl) -> dict[int, bool]:
    return {group["id"]: group["viable"] for group in vfioctl("list-groups", "-J").json["groups"]}


def compare(vfioctl: Vfioctl) -> dict[int, bool]:
    """Asserts agreement for every group with a node; the kernel's answers."""
    said = verdicts(vfioctl)
    assert sorted(said) == sorted(int(entry.name) for entry in GROUPS.iterdir())
    asked = sorted(int(node.name) for node in Path("/dev/vfio").iterdir() if node.name.isdecimal())
    answers = {group: kernel_says_viable(group) for group in asked}
    assert {group: said[group] for group in asked} == answers
    return answers


def test_every_group_with_one_member_bound(
    vfioctl: Vfioctl, roles: Mapping[str, str], bound: list[str]
) -> None:
    answers = compare(vfioctl)
    assert sorted(answers) == sorted(group_of(address) for address in bound)
    assert driver_of(roles["conv_bridge"]) == "shpchp"
    assert answers[group_of(roles["conv_bridge"])] is False
    assert answers[group_of(roles["edu"])] is True


def test_every_group_with_host_drivers_on_the_other_members(
    vfioctl: Vfioctl, roles: Mapping[str, str], host_drivers: list[str]
) -> None:
    answers = compare(vfioctl)
    for role in ("mf0", "conv_edu0", "plain_edu"):
        assert answers[group_of(roles[role])] is False
    result = vfioctl("check-viable", roles["mf0"], "-J")
    assert result.status == 1
    members = {member["address"]: member for member in result.json["results"][0]["members"]}
    assert members[roles["mf0"]]["reason"] == "vfio-driver"
    assert members[roles["mf1"]]["verdict"] == "blocking"
    assert members[roles["mf1"]]["reason"] == "host-driver"
    assert members[roles["mf1"]]["cure"] == f"vfioctl bind {roles['mf1']}"
    # A port of the switch stays on pcieport beside its device, and does not matter.
    ports = vfioctl("check-viable", roles["xhci"], "-J").json["results"][0]
    assert ports["viable"] is True
    reasons = {member["address"]: member["reason"] for member in ports["members"]}
    assert reasons[roles["switch_down0"]] == "driver-managed-dma"


def test_the_cure_of_every_blocking_member_helps(
    vfioctl: Vfioctl, roles: Mapping[str, str], host_drivers: list[str]
) -> None:
    moved = []
    for role in ("mf0", "conv_edu0", "plain_edu"):
        result = vfioctl("check-viable", roles[role], "-J").json["results"][0]
        for member in result["members"]:
            if member["verdict"] == "blocking":
                done = vfioctl(*member["cure"].split()[1:])
                assert done.status == 0, done.stderr
                moved.append(member["address"])
        assert vfioctl("check-viable", "-q", "--live", roles[role]).status == 0
    compare(vfioctl)
    assert roles["conv_bridge"] in moved
    result = vfioctl("unbind", *moved)
    assert result.status == 0, result.stderr
    assert driver_of(roles["mf1"]) == "e1000"
    assert driver_of(roles["conv_bridge"]) == "shpchp"


def test_live_agrees_and_says_what_the_kernel_said(vfioctl: Vfioctl, bound: list[str]) -> None:
    result = vfioctl("check-viable", "--live", *bound, "-J")
    for entry in result.json["results"]:
        assert entry["live"] == {"viable": kernel_says_viable(entry["group"]), "container_set": False}
        assert entry["viable"] is entry["live"]["viable"]


def test_pci_stub_is_tolerated(vfioctl: Vfioctl, roles: Mapping[str, str], bound: list[str]) -> None:
    modprobe("pci-stub")
    address = roles["plain_nic"]
    before = driver_of(address)
    result = vfioctl("bind", "--driver", "pci-stub", "--allow", "not-a-vfio-driver", address)
    assert result.status == 0, result.stderr
    try:
        assert compare(vfioctl)[group_of(address)] is True
    finally:
        assert vfioctl("unbind", address).status == 0
    assert driver_of(address) == before


def test_looking_changes_nothing(vfioctl: Vfioctl, roles: Mapping[str, str], bound: list[str]) -> None:
    """An idle VFIO device sleeps in D3hot: opening it would wake and reset it, looking does not."""

    def state() -> dict[str, tuple[str | None, str | None, str]]:
        found = {}
        for address in roles.values():
            power = Path("/sys/bus/pci/devices", address, "power_state").read_text()
            found[address] = (driver_of(address), override_of(address), power)
        return found

    before = state()
    for arguments in (
        ("list-groups",),
        ("list-groups", "--devices", "--format", "yaml"),
        ("list-devices", "-J"),
        ("show", roles["nic_a"], "-J"),
        ("show", group_of(roles["conv_nic"])),
        ("check-viable", roles["mf0"]),
        ("iommu-info", roles["nic_a"]),
    ):
        result = vfioctl(*arguments, user=Vfioctl.unprivileged)
        assert result.status in (0, 1), (arguments, result.stderr)
        assert result.stdout, arguments
    assert state() == before
