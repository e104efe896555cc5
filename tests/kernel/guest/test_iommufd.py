"""iommufd through the command line: devices' own nodes, several address spaces, and the group's node."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from tests.kernel.guest.conftest import Vfioctl
from tests.kernel.guest.sysfs import group_of

MIB = 1 << 20
PAGE = 4096
pytestmark = pytest.mark.kernels("6.12-iommufd", "7.2-iommufd")


@pytest.fixture(scope="module")
def bound(vfioctl: Vfioctl, roles: Mapping[str, str]) -> Iterator[Mapping[str, int]]:
    """The groups of two devices on vfio-pci."""
    assert vfioctl("bind", roles["edu"], roles["nic_a"]).status == 0
    yield {role: group_of(roles[role]) for role in ("edu", "nic_a")}
    assert vfioctl("unbind", roles["edu"], roles["nic_a"]).status == 0


@pytest.fixture
def work(vfioctl: Vfioctl, bound: Mapping[str, int]) -> Iterator[str]:
    """An open container with both."""
    opened = vfioctl("container", "open", "work", *bound.values(), "--backend", "iommufd")
    assert opened.status == 0, opened.stderr
    yield "work"
    assert vfioctl("container", "close", "work").status == 0


def test_what_the_iommu_is(vfioctl: Vfioctl, work: str, roles: Mapping[str, str]) -> None:
    shown = vfioctl("container", "show", work, "-J").json
    assert (shown["backend"], shown["accounting"]) == ("iommufd", "user")
    assert all(device["open"] for device in shown["devices"])
    (space,) = shown["details"]["address_spaces"]
    assert space["devices"] == [roles["edu"], roles["nic_a"]]
    assert shown["details"]["huge_pages"] is True
    for address in (roles["edu"], roles["nic_a"]):
        found = shown["details"]["iommu"][address]
        assert (found["type"], found["ioas"]) == ("intel-vtd", space["ioas"])
        assert found["registers"]["cap_reg"] and found["hwpt"] and found["devid"]
    text = vfioctl("container", "show", work).stdout
    assert f"address_spaces=ioas={space['ioas']} devices={roles['edu']},{roles['nic_a']} copies=-\n" in text


def test_a_device_has_one_user(vfioctl: Vfioctl, work: str, bound: Mapping[str, int]) -> None:
    """The kernel says EINVAL, and vfioctl who that is."""
    keeper = vfioctl("container", "show", work, "-J").json["pid"]
    taken = vfioctl("container", "open", "other", bound["edu"], "--backend", "iommufd", "-J")
    assert (taken.status, taken.json_error["code"]) == (6, "device-busy"), taken.stderr
    assert str(keeper) in taken.json_error["message"]


def test_mappings_come_and_go(vfioctl: Vfioctl, work: str) -> None:
    assert vfioctl("map", "-c", work, "--size", "64K", "--iova", "0x100000").status == 0
    over = vfioctl("map", "-c", work, "--size", "8K", "--iova", "0x10f000", "-J")
    assert (over.status, over.json_error["code"]) == (2, "mapping-overlap")
    hole = vfioctl("map", "-c", work, "--size", "8K", "--iova", "0xfee00000", "-J")
    assert (hole.status, hole.json_error["code"]) == (2, "iova-reserved")
    assert [m["iova"] for m in vfioctl("container", "show", work, "-J").json["mappings"]] == [0x100000]


def test_another_address_space(vfioctl: Vfioctl, work: str, roles: Mapping[str, str]) -> None:
    """One device sees a part of the memory, elsewhere; the other all of it."""
    assert vfioctl("map", "-c", work, "--size", "64K", "--iova", "0x100000").status == 0
    space = vfioctl("ioas", "create", "-c", work, "-J").json["ioas"]
    copied = vfioctl("ioas", "copy", space, "-c", work, "--from", "0x101000", "--size", "4K", "--iova", "0x0")
    assert copied.status == 0, copied.stderr
    assert vfioctl("ioas", "attach", roles["nic_a"], space, "-c", work).status == 0
    details = vfioctl("container", "show", work, "-J").json["details"]
    assert details["address_spaces"][1] == {
        "ioas": space,
        "devices": [roles["nic_a"]],
        "copies": [{"iova": 0, "size": PAGE, "from": 0x101000}],
    }
    assert details["iommu"][roles["edu"]]["hwpt"] != details["iommu"][roles["nic_a"]]["hwpt"]
    in_use = vfioctl("ioas", "destroy", space, "-c", work, "-J")
    assert (in_use.status, in_use.json_error["code"]) == (6, "object-busy")
    assert vfioctl("ioas", "detach", roles["nic_a"], "-c", work).status == 0
    shown = vfioctl("container", "show", work, "-J").json["details"]["iommu"][roles["nic_a"]]
    assert (shown["ioas"], shown["hwpt"]) == (None, None)
    assert vfioctl("ioas", "destroy", space, "-c", work).status == 0
    gone = vfioctl("ioas", "attach", roles["nic_a"], space, "-c", work, "-J")
    assert (gone.status, gone.json_error["code"]) == (3, "no-such-object")
    first = details["address_spaces"][0]["ioas"]
    assert vfioctl("ioas", "attach", roles["nic_a"], first, "-c", work).status == 0


@pytest.mark.parametrize("source", ["0x900000", "0x10f000"])
def test_what_cannot_be_copied(vfioctl: Vfioctl, work: str, source: str) -> None:
    assert vfioctl("map", "-c", work, "--size", "64K", "--iova", "0x100000").status == 0
    space = vfioctl("ioas", "create", "-c", work, "-J").json["ioas"]
    refused = vfioctl("ioas", "copy", space, "-c", work, "--from", source, "--size", "8K", "-J")
    assert (refused.status, refused.json_error["code"]) == (7, "not-mapped")


def test_what_was_read_only_is_not_copied_for_writing(vfioctl: Vfioctl, work: str) -> None:
    assert vfioctl("map", "-c", work, "--size", "4K", "--iova", "0x100000", "--prot", "r").status == 0
    space = vfioctl("ioas", "create", "-c", work, "-J").json["ioas"]
    arguments = ("ioas", "copy", space, "-c", work, "--from", "0x100000", "--size", "4K")
    assert vfioctl(*arguments).status == 7
    assert vfioctl(*arguments, "--prot", "r").status == 0


def test_ranges_are_promised(vfioctl: Vfioctl, work: str, roles: Mapping[str, str]) -> None:
    assert vfioctl("ioas", "allow", "-c", work, "0x0-0xfffffff").status == 0
    assert vfioctl("ioas", "allow", "-c", work, "0xfee00000-0xfee00fff").status == 7  # the MSI window
    assert vfioctl("ioas", "allow", "-c", work, "0x0-0xffff", "0x8000-0xfffff").status == 7  # they overlap
    assert vfioctl("ioas", "allow", "-c", work, "--any").status == 0


def test_what_the_emulated_iommu_cannot(vfioctl: Vfioctl, work: str, roles: Mapping[str, str]) -> None:
    tracked = vfioctl("dirty", "start", "-c", work)
    assert tracked.status == 7 and "does not track dirty pages" in tracked.stderr
    first = vfioctl("container", "show", work, "-J").json["details"]["address_spaces"][0]["ioas"]
    refused = vfioctl("ioas", "attach", roles["nic_a"], first, "-c", work, "--pasid", "7")
    assert refused.status == 7 and "cure:" in refused.stderr
    # It has none, which 6.12 refuses (it knows no PASIDs), and 7.2 does not.
    assert vfioctl("ioas", "detach", roles["nic_a"], "-c", work, "--pasid", "7").status in (0, 7)
    # All is as before.
    assert vfioctl("map", "-c", work, "--size", "1M").status == 0


def test_the_groups_node(vfioctl: Vfioctl, bound: Mapping[str, int]) -> None:
    opened = vfioctl("container", "open", "old", bound["edu"], "--backend", "iommufd-group", "-J")
    assert opened.status == 0, opened.stderr
    try:
        (found,) = opened.json["containers"]
        assert found["backend"] == "iommufd-group"
        assert found["details"]["ioas"] > 0
        assert [device["open"] for device in found["devices"]] == [True]
        assert not any(r["start"] <= 0xFEE00000 <= r["end"] for r in found["iova_ranges"])
        assert vfioctl("map", "-c", "old", "--size", "1M").status == 0
        both = vfioctl("map", bound["edu"], "-J")
        assert both.status == 6  # the group is open, so that its devices' nodes are not to be bound
    finally:
        assert vfioctl("container", "close", "old").status == 0


def test_type1_on_the_same_kernel(vfioctl: Vfioctl, bound: Mapping[str, int]) -> None:
    mapped = vfioctl("map", bound["edu"], "--backend", "type1v2", "-J")
    assert mapped.json["backend"] == "type1v2"
    mapped = vfioctl("map", bound["edu"], "-J")
    assert mapped.json["backend"] == "iommufd"


def test_a_user_is_charged_in_all_processes(vfioctl: Vfioctl, roles: Mapping[str, str]) -> None:
    """The kernel's accounting: per user, so that two containers of one user share one limit."""
    cdevs = [
        f"/dev/vfio/devices/{name}"
        for role in ("edu", "nic_a")
        for name in os.listdir(f"/sys/bus/pci/devices/{roles[role]}/vfio-dev")
    ]
    runtime = "/run/user-nobody-iommufd"
    os.makedirs(runtime, mode=0o700, exist_ok=True)
    uid, gid = Vfioctl.unprivileged
    for path in (runtime, "/dev/iommu", *cdevs):
        os.chown(path, uid, gid)
    setting: dict[str, Any] = {
        "user": Vfioctl.unprivileged,
        "env": {"XDG_RUNTIME_DIR": runtime},
        "memlock": 8 * MIB,
    }
    try:
        for name, role in (("one", "edu"), ("two", "nic_a")):
            opened = vfioctl("container", "open", name, roles[role], "-J", **setting)
            assert opened.status == 0, opened.stderr
            assert opened.json["containers"][0]["backend"] == "iommufd"
        assert vfioctl("map", "-c", "one", "--size", "6M", **setting).status == 0
        too_much = vfioctl("map", "-c", "two", "--size", "6M", "-J", **setting)
        assert (too_much.status, too_much.json_error["code"]) == (7, "memlock"), too_much.stderr
        assert vfioctl("map", "-c", "two", "--size", "1M", **setting).status == 0
    finally:
        vfioctl("container", "close", "--all", **setting)
        for path in ("/dev/iommu", *cdevs):
            os.chown(path, 0, 0)


def test_the_charge_can_be_the_processs(vfioctl: Vfioctl, bound: Mapping[str, int]) -> None:
    opened = vfioctl("container", "open", "own", bound["edu"], "--charge", "process", "-J")
    assert opened.status == 0, opened.stderr
    try:
        assert opened.json["containers"][0]["accounting"] == "process"
        assert vfioctl("map", "-c", "own", "--size", "2M").status == 0
    finally:
        assert vfioctl("container", "close", "own").status == 0
    refused = vfioctl("container", "open", "own", bound["edu"], "--charge", "user", "--backend", "type1v2")
    assert refused.status == 2
