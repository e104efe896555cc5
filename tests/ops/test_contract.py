"""The contract on the imitated kernel, and what only there can be seen: the writes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.contract.looking import Looking
from tests.contract.moving import Moving
from tests.contract.world import MOVED, state
from tests.fakes.command import Result, run_command
from tests.fakes.machine import FakeMachine
from tests.fakes.topology import ROLES, boot


class FakeWorld:
    def __init__(self, root: Path, release: str) -> None:
        self.kernel = boot(str(root), release=release)
        self.roles: Mapping[str, str] = ROLES

    def run(self, *arguments: object) -> Result:
        return run_command(FakeMachine(self.kernel), *arguments)

    def driver(self, address: str) -> str | None:
        return self.kernel.devices[address].driver

    def override(self, address: str) -> str | None:
        return self.kernel.devices[address].override

    def group(self, address: str) -> int:
        group = self.kernel.devices[address].group
        assert group is not None
        return group

    def node(self, group: int) -> tuple[int, int, int] | None:
        node = self.kernel.nodes.get(f"/dev/vfio/{group}")
        return None if node is None else (node.uid, node.gid, node.mode)

    def write(self, path: str, data: str) -> None:
        self.kernel.write(path, data)

    def load_module(self, name: str) -> None:
        self.kernel.load_module(name)


@pytest.fixture(params=["6.1.0-1-amd64", "7.2.0-amd64"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> FakeWorld:
    return FakeWorld(tmp_path, request.param)


def test_the_start(world: FakeWorld) -> None:
    assert state(world) == {role: (driver, None) for role, driver in MOVED.items()}


class TestLooking(Looking):
    pass


class TestMoving(Moving):
    pass


def test_the_override_is_written_before_the_unbind(world: FakeWorld) -> None:
    nic = ROLES["nic_a"]
    assert world.run("bind", nic).status == 0
    assert world.kernel.writes == [
        (f"/sys/bus/pci/devices/{nic}/driver_override", "vfio-pci\n"),
        ("/sys/bus/pci/drivers/e1000e/unbind", nic),
        ("/sys/bus/pci/drivers/vfio-pci/bind", nic),
    ]


def test_a_second_bind_writes_nothing(world: FakeWorld) -> None:
    assert world.run("bind", ROLES["nic_a"]).status == 0
    world.kernel.writes.clear()
    assert world.run("bind", ROLES["nic_a"]).status == 0
    assert world.kernel.writes == []


def test_no_text_of_an_argument_reaches_sysfs(world: FakeWorld) -> None:
    for text in ("a\nb", "../../x", "x\0y", " vfio-pci"):
        assert world.run("bind", ROLES["nic_a"], "--driver", text).status == 2
        assert world.run("bind", text).status == 2
    assert world.kernel.writes == []


def forget_homes(world: FakeWorld) -> None:
    (Path(world.kernel.tree.root) / "run/vfioctl/homes.json").unlink()


def test_a_host_driver_that_refuses_silently(world: FakeWorld) -> None:
    """drivers_probe says yes and nothing is bound: the driver that claims the device is asked for in vain."""
    nic = ROLES["nic_a"]
    assert world.run("bind", nic).status == 0
    forget_homes(world)
    world.kernel.probe_errors["e1000e", nic] = 22
    result = world.run("unbind", nic, "-J")
    assert (result.status, result.stdout) == (8, "")
    assert "e1000e, which claims" in result.json_error["message"]
    assert (world.driver(nic), world.override(nic)) == ("vfio-pci", "vfio-pci")


def test_no_host_driver_claims_it(world: FakeWorld) -> None:
    edu = ROLES["edu"]
    assert world.run("bind", edu).status == 0
    forget_homes(world)
    result = world.run("unbind", edu)
    assert (result.status, world.driver(edu), world.override(edu)) == (0, None, None)
    assert f"{edu} has no driver now" in result.stderr


def test_a_host_driver_that_cannot_return(world: FakeWorld) -> None:
    """With the recorded driver it is a failure: the device stays where it was."""
    nic = ROLES["nic_a"]
    assert world.run("bind", nic).status == 0
    world.kernel.probe_errors["e1000e", nic] = 12
    result = world.run("unbind", nic, "-J")
    assert (result.status, result.json_error["errno"]) == (8, "ENOMEM")
    assert world.driver(nic) == "vfio-pci"


def test_a_group_in_use_is_not_unbound(world: FakeWorld) -> None:
    from vfioctl.host.holders import Holder

    edu = ROLES["edu"]
    assert world.run("bind", edu).status == 0
    machine = FakeMachine(world.kernel)
    machine.held[f"/dev/vfio/{world.group(edu)}"] = [Holder(4711, "qemu", 107)]
    world.kernel.writes.clear()
    result = run_command(machine, "unbind", edu, "-J")
    assert (result.status, result.json_error["code"]) == (6, "group-busy")
    assert "process 4711" in result.json_error["message"]
    assert world.kernel.writes == []


def test_a_group_whose_owner_comes_in_between(world: FakeWorld) -> None:
    """Another member of a group in use: the kernel refuses its host driver (EBUSY), and it goes back to VFIO."""
    group = world.group(ROLES["conv_nic"])
    assert world.run("bind", group).status == 0
    world.kernel.owned.add(group)
    result = world.run("unbind", ROLES["conv_nic"], "-J")
    assert (result.status, result.json_error["errno"]) == (8, "EBUSY")
    assert world.driver(ROLES["conv_nic"]) == "vfio-pci"


def test_udev_rules_do_not_undo_the_access(world: FakeWorld) -> None:
    from vfioctl.model import Access

    edu = ROLES["edu"]
    node = f"/dev/vfio/{world.group(edu)}"
    world.kernel.udev_rules[node] = Access(12, 34, 0o640)
    assert world.run("bind", edu, "--user", "65534").status == 0
    assert world.node(world.group(edu)) == (65534, 34, 0o600)


def test_vfio_pci_that_is_not_there(world: FakeWorld) -> None:
    del world.kernel.modules["vfio_pci"]
    before = state(world)
    result = world.run("bind", ROLES["nic_a"], "-J")
    assert (result.status, result.json_error["code"]) == (7, "no-module")
    assert result.stdout == "" and state(world) == before


def test_an_unbind_that_hangs_is_recovered_when_the_user_has_gone(world: FakeWorld) -> None:
    """One device cannot be put back as long as somebody holds it; the others are."""
    twin, nic = ROLES["nic_a"], ROLES["nic_b"]  # the order in which they move
    assert world.run("bind", nic, twin).status == 0
    world.kernel.opened.add(nic)
    result = world.run("unbind", twin, nic, "-J")
    assert (result.status, result.json_error["code"]) == (124, "timeout")
    assert world.driver(twin) == "e1000e"
    result = world.run("recover", "-J")
    assert (result.status, result.stdout) == (9, "")
    assert nic in result.json_error["message"] and twin not in result.json_error["message"]
    assert world.driver(twin) == "vfio-pci"
    world.kernel.let_go(nic)
    assert world.run("recover").status == 0
    assert [world.driver(address) for address in (nic, twin)] == ["vfio-pci", "vfio-pci"]
    assert world.run("unbind", twin, nic).status == 0
    assert [world.driver(address) for address in (nic, twin)] == ["e1000e", "e1000e"]
