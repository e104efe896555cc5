"""vfioctl holders: what it prints and how it ends; who holds what is tested in tests/host and in the guest."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes.command import run_command
from tests.fakes.machine import FakeMachine
from tests.fakes.topology import ROLES, boot
from tests.fakes.uses import A, B, Host
from vfioctl.host.holders import Found, Holder
from vfioctl.host.machine import Machine

EDU = ROLES["edu"]
HOLDER = Holder(
    4711, "qemu", 107, True, "libvirt-qemu", "a.scope", "vm:win", "pci", EDU, "/dev/vfio/1", "vfio"
)
UNSURE = Holder(12, "a b", 1000, False, address=EDU)


@pytest.fixture
def machine(tmp_path: Path) -> FakeMachine:
    return FakeMachine(boot(str(tmp_path)))


def test_json(machine: FakeMachine) -> None:
    machine.held["/dev/vfio/1"] = [HOLDER, UNSURE]
    result = run_command(machine, "holders", EDU, "-J")
    assert (result.status, result.stderr) == (0, "")
    assert result.json == {
        "schema_version": 1,
        "holders": [
            {
                "address": EDU,
                "bus": "pci",
                "group": machine.kernel.devices[EDU].group,
                "node": "/dev/vfio/1",
                "kind": "vfio",
                "pid": 4711,
                "command": "qemu",
                "uid": 107,
                "user": "libvirt-qemu",
                "unit": "a.scope",
                "container": "vm:win",
                "certain": True,
                "what": None,
            },
            {
                "address": EDU,
                "bus": "pci",
                "group": machine.kernel.devices[EDU].group,
                "node": None,
                "kind": "vfio-device",
                "pid": 12,
                "command": "a b",
                "uid": 1000,
                "user": None,
                "unit": None,
                "container": None,
                "certain": False,
                "what": None,
            },
        ],
        "unseen": 0,
    }


def test_plain(machine: FakeMachine) -> None:
    machine.held["/dev/vfio/1"] = [HOLDER, UNSURE]
    result = run_command(machine, "holders", "--format", "plain", "-n")
    assert result.stdout.splitlines() == [
        f"{EDU} 4711 qemu libvirt-qemu a.scope vm:win /dev/vfio/1 yes -",
        f"{EDU} 12 a\\x20b 1000 - - - no -",
    ]


def test_an_interface_that_is_up(tmp_path: Path) -> None:
    host = Host(str(tmp_path))
    host.interface("eth0")
    host.address6("eth0", "20010db8000000000000000000000001")
    machine = Machine()
    machine.root = host.root
    result = run_command(machine, "holders", "-J")
    (holder,) = result.json["holders"]
    assert holder["what"] == "eth0 is up with the address 2001:db8::1"
    assert (holder["address"], holder["kind"], holder["pid"], holder["uid"]) == (A, "net", None, None)
    assert run_command(machine, "holders", B, "-q").status == 1
    plain = run_command(machine, "holders", "--format", "plain", "-n", "-o", "device,pid,user,what").stdout
    assert plain == f"{A} - - eth0\\x20is\\x20up\\x20with\\x20the\\x20address\\x202001:db8::1\n"


@pytest.mark.parametrize(("subject", "status"), [((), 0), ((EDU,), 0), ((ROLES["nic_a"],), 1)])
def test_quiet(machine: FakeMachine, subject: tuple[str, ...], status: int) -> None:
    machine.held["/dev/vfio/1"] = [HOLDER]
    result = run_command(machine, "holders", "-q", *subject)
    assert (result.status, result.stdout) == (status, "")
    assert run_command(machine, "holders", *subject).status == 0


@pytest.mark.parametrize(("unseen", "word"), [(3, "3 processes"), (None, "hidepid")])
def test_what_could_not_be_seen(
    machine: FakeMachine, monkeypatch: pytest.MonkeyPatch, unseen: int | None, word: str
) -> None:
    monkeypatch.setattr(machine, "find_holders", lambda keys: Found((), unseen))
    result = run_command(machine, "holders", "-J")
    assert result.json["unseen"] == unseen
    assert word in result.stderr


def test_bridges_only_by_their_own_name(machine: FakeMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def find(keys: dict[str, object]) -> Found:
        asked[:] = keys
        return Found()

    monkeypatch.setattr(machine, "find_holders", find)
    bridge = ROLES["conv_bridge"]
    group = machine.kernel.devices[bridge].group
    assert run_command(machine, "holders", group).status == 0
    assert f"pci/{ROLES['conv_nic']}" in asked
    assert f"pci/{bridge}" not in asked
    assert run_command(machine, "holders").status == 0
    assert len(asked) > 3
    assert f"pci/{bridge}" not in asked
    assert run_command(machine, "holders", bridge).status == 0
    assert asked == [f"pci/{bridge}"]


def test_what_there_is_not(machine: FakeMachine) -> None:
    assert run_command(machine, "holders", "0000:77:00.0").status == 3
    assert run_command(machine, "holders", "nonsense/").status in (2, 3)
    rooted = run_command(None, "--root", machine.root, "holders", "-J")
    assert (rooted.status, rooted.json_error["code"]) == (2, "no-record")
