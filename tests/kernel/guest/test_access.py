"""permit, revoke and bind --user, without udev and against a real udev; mapping as an unprivileged user."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping

import pytest

from tests.kernel.guest.conftest import Vfioctl
from tests.kernel.guest.sysfs import group_of, unbind
from tests.kernel.testbed.udevd import Udevd
from vfioctl.host.acl import read_acl, write_acl
from vfioctl.host.journal import Journal
from vfioctl.host.machine import Machine
from vfioctl.model import Access, State

pytestmark = pytest.mark.one_kernel("7.2")

NOBODY = 65534
#: Rules that do what a distribution's do, and slowly, so that a chown that does not wait is undone.
RULES = {
    "50-slow-vfio.rules": 'SUBSYSTEM=="vfio", ACTION=="add", KERNEL!="vfio", PROGRAM="/bin/sleep 1", '
    'OWNER="12", GROUP="34", MODE="0640"\n'
}


def access(path: str) -> tuple[int, int, int]:
    status = os.stat(path)
    assert stat.S_ISCHR(status.st_mode)
    return status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)


@pytest.fixture
def group(vfioctl: Vfioctl, roles: Mapping[str, str]) -> Iterator[int]:
    assert vfioctl("bind", roles["edu"]).status == 0
    yield group_of(roles["edu"])
    assert vfioctl("unbind", roles["edu"]).status == 0


def test_an_access_control_list(vfioctl: Vfioctl, group: int) -> None:
    """As setfacl makes it; it goes with revoke, and with a permit that names others."""
    node = f"/dev/vfio/{group}"
    result = vfioctl("permit", group, "--acl", f"user:{NOBODY}:rw", "-J")
    assert result.status == 0, result.stderr
    acl = f"u::rw-,u:{NOBODY}:rw-,g::---,m::rw-,o::---"
    assert result.json["nodes"][0]["acl"] == acl == read_acl(node)
    assert access(node) == (0, 0, 0o660)
    opened = vfioctl("iommu-info", group, "--attach", "-J", user=vfioctl.unprivileged)
    assert opened.status == 0, opened.stderr
    assert vfioctl("permit", group, "--acl", f"user:{NOBODY}:rw", "-J").json["changed"] is False
    assert vfioctl("permit", group, "--user", NOBODY).status == 0
    assert read_acl(node) is None and access(node) == (NOBODY, 0, 0o600)
    assert vfioctl("permit", group, "--acl", "group:daemon:r", "--user", 0, "--mode", "600").status == 0
    assert read_acl(node) == "u::rw-,g::---,g:1:r--,m::r--,o::---"
    assert vfioctl("revoke", group).status == 0
    assert read_acl(node) is None and access(node) == (0, 0, 0o600)


def test_a_list_of_others_is_put_back_by_recover(vfioctl: Vfioctl, group: int) -> None:
    node = f"/dev/vfio/{group}"
    acl = "u::rw-,u:1:rw-,g::---,m::rw-,o::---"
    write_acl(node, acl)
    machine = Machine()
    before = Access(0, 0, 0o660, acl)
    assert machine.access(node) == before
    members = machine.node_members()
    machine.state.ensure()
    machine.state.save_journal(Journal("permit", State({}, {node: before}), members=members))
    machine.set_access(node, Access(NOBODY, 0, 0o600))
    assert read_acl(node) is None
    assert vfioctl("recover").status == 0
    assert machine.access(node) == before
    # The node of other devices is not theirs to have.
    machine.state.save_journal(
        Journal("permit", State({}, {node: before}), members={node: ("pci/0000:ff:1f.0",)})
    )
    assert vfioctl("revoke", group).status == 5
    machine.set_access(node, Access(0, 0, 0o600))
    left = vfioctl("recover")
    assert left.status == 0 and "belongs to other devices now" in left.stderr
    assert machine.access(node) == Access(0, 0, 0o600)


def test_permit_and_revoke_are_read_back(vfioctl: Vfioctl, group: int) -> None:
    node = f"/dev/vfio/{group}"
    assert access(node) == (0, 0, 0o600)
    result = vfioctl("permit", group, "--user", NOBODY, "-J")
    assert result.status == 0, result.stderr
    assert result.json["changed"] is True
    assert result.json["nodes"] == [
        {"path": node, "uid": NOBODY, "gid": 0, "mode": "0600", "acl": None, "changed": True}
    ]
    assert access(node) == (NOBODY, 0, 0o600)
    again = vfioctl("permit", group, "--user", NOBODY, "-J")
    assert again.status == 0 and again.json["changed"] is False
    assert vfioctl("permit", group, "--group-owner", "daemon").status == 0
    assert access(node) == (NOBODY, 1, 0o660)
    assert vfioctl("revoke", group).status == 0
    assert access(node) == (0, 0, 0o600)


@pytest.mark.parametrize("mode", ["666", "0606", "602", "999", "u+rw", "", "7777"])
def test_a_mode_for_everybody_or_none_at_all_is_usage(vfioctl: Vfioctl, group: int, mode: str) -> None:
    result = vfioctl("permit", group, "--user", NOBODY, "--mode", mode, "-J")
    assert result.status == 2, result.stderr
    assert result.stdout == ""
    assert access(f"/dev/vfio/{group}") == (0, 0, 0o600)


def test_a_group_without_a_node_has_nothing_to_permit(vfioctl: Vfioctl, roles: Mapping[str, str]) -> None:
    result = vfioctl("permit", group_of(roles["nic_b"]), "--user", NOBODY, "-J")
    assert result.status == 1
    assert result.json_error["code"] == "no-vfio-member"


def test_unprivileged_callers_may_not_change_anything(
    vfioctl: Vfioctl, roles: Mapping[str, str], group: int
) -> None:
    for arguments in (
        ("permit", group, "--user", NOBODY),
        ("revoke", group),
        ("bind", roles["nic_b"]),
        ("unbind", roles["edu"]),
        ("recover",),
    ):
        result = vfioctl(*arguments, "-J", user=Vfioctl.unprivileged)
        assert result.status == 4, (arguments, result.stderr)
        assert result.json_error["code"] == "permission"
        assert result.json_error["hint"]
        assert result.stdout == ""
    assert access(f"/dev/vfio/{group}") == (0, 0, 0o600)


def test_a_permitted_user_maps_within_the_limit_of_locked_memory(vfioctl: Vfioctl, group: int) -> None:
    user = Vfioctl.unprivileged
    denied = vfioctl("map", group, "--size", "64K", "-J", user=user)
    assert denied.status == 4 and denied.json_error["code"] == "permission"
    assert f"vfioctl permit {group}" in denied.json_error["hint"]
    assert vfioctl("permit", group, "--user", NOBODY).status == 0
    fits = vfioctl("map", group, "--size", "1M", "-J", user=user, memlock=1 << 20)
    assert fits.status == 0, fits.stderr
    assert fits.json["backend"] == "type1v2"
    assert fits.json["groups"] == [group]
    assert fits.json["mappings"][0]["size"] == 1 << 20
    too_much = vfioctl("map", group, "--size", "1028K", "-J", user=user, memlock=1 << 20)
    assert too_much.status == 7
    error = too_much.json_error
    assert (error["code"], error["errno"]) == ("memlock", "ENOMEM")
    assert "ulimit -l" in error["hint"]
    assert vfioctl("check-viable", "-q", "--live", group, user=user).status == 0
    assert vfioctl("revoke", group).status == 0
    assert vfioctl("map", group, user=user).status == 4


def test_bind_gives_the_node_to_a_user(vfioctl: Vfioctl, roles: Mapping[str, str]) -> None:
    address = roles["nic_b"]
    result = vfioctl("bind", address, "--user", NOBODY, "--group-owner", "1", "--mode", "640", "-J")
    assert result.status == 0, result.stderr
    node = f"/dev/vfio/{group_of(address)}"
    assert result.json["devices"][0]["node"] == {"path": node, "uid": NOBODY, "gid": 1, "mode": "0640"}
    assert access(node) == (NOBODY, 1, 0o640)
    assert vfioctl("map", address, user=Vfioctl.unprivileged, memlock=8 << 20).status == 0
    assert vfioctl("unbind", address).status == 0


def test_udevs_slow_rule_does_not_undo_it(vfioctl: Vfioctl, roles: Mapping[str, str], udevd: Udevd) -> None:
    udevd.add_rules(RULES)
    address = roles["nic_b"]
    node = f"/dev/vfio/{group_of(address)}"
    plain = vfioctl("bind", address, "-J", real=True)
    assert plain.status == 0, plain.stderr
    # Reported after udev's rule has run, not before.
    assert plain.json["devices"][0]["node"] == {"path": node, "uid": 12, "gid": 34, "mode": "0640"}
    assert vfioctl("unbind", address).status == 0
    udevd.settle()
    asked = vfioctl("bind", address, "--user", NOBODY, "-J", real=True)
    assert asked.status == 0, asked.stderr
    assert asked.json["devices"][0]["node"] == {"path": node, "uid": NOBODY, "gid": 34, "mode": "0600"}
    udevd.settle()
    assert access(node) == (NOBODY, 34, 0o600)
    assert vfioctl("revoke", address).status == 0
    assert access(node) == (0, 0, 0o600)
    assert vfioctl("unbind", address).status == 0
    # permit straight after a bind by somebody else waits for the rule as well.
    udevd.settle()
    vfio = "/sys/bus/pci/devices/" + address
    with open(f"{vfio}/driver_override", "w") as file:
        file.write("vfio-pci")
    unbind(address)  # from a host driver that another test has loaded
    with open("/sys/bus/pci/drivers_probe", "w") as file:
        file.write(address)
    assert vfioctl("permit", address, "--user", NOBODY, real=True).status == 0
    udevd.settle()
    assert access(node) == (NOBODY, 34, 0o600)
    assert vfioctl("unbind", address).status == 0


def test_bind_gives_the_node_of_what_is_bound_already(vfioctl: Vfioctl, group: int) -> None:
    node = f"/dev/vfio/{group}"
    assert access(node) == (0, 0, 0o600)
    result = vfioctl("bind", group, "--user", NOBODY, "-J")
    assert result.status == 0, result.stderr
    (device,) = result.json["devices"]
    assert (result.json["changed"], device["changed"]) == (True, False)
    assert device["node"] == {"path": node, "uid": NOBODY, "gid": 0, "mode": "0600"}
    assert access(node) == (NOBODY, 0, 0o600)
