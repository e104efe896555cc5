"""vfioctl watch and wait: what they print and how they end; on the imitated kernel, whose events come one by one."""

from __future__ import annotations

import errno
import io
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.command import Result, run_command
from tests.fakes.drivers import FakeDevice
from tests.fakes.machine import FakeMachine
from tests.fakes.topology import E1000E, ROLES, SMALL, boot
from vfioctl.cli.app import run
from vfioctl.host import udev
from vfioctl.host.holders import Found, Holder
from vfioctl.host.machine import Machine
from vfioctl.model import Access
from vfioctl.ops import watching

NIC = ROLES["nic_a"]
GROUP = 12
NODE = f"/dev/vfio/{GROUP}"
HOLDER = Holder(4711, "qemu", 107, user="alice", address=NIC, node=NODE, kind="vfio")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeMachine:
    monkeypatch.setattr(watching, "SETTLING", 0.0)
    found = FakeMachine(boot(str(tmp_path), SMALL))
    found.kernel.load_module("vfio_pci")
    return found


def steps(machine: FakeMachine, *addresses: str) -> list[Callable[[], object]]:
    """A bind by hand, write by write."""
    kernel = machine.kernel
    found: list[Callable[[], object]] = []
    for address in addresses:
        top = f"/sys/bus/pci/devices/{address}"
        found += [
            lambda top=top: kernel.write(f"{top}/driver_override", "vfio-pci"),  # type: ignore[misc]
            lambda a=address: kernel.write("/sys/bus/pci/drivers/e1000e/unbind", a),  # type: ignore[misc]
            lambda a=address: kernel.write("/sys/bus/pci/drivers_probe", a),  # type: ignore[misc]
        ]
    return found


def lines(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_each_step_is_told(machine: FakeMachine) -> None:
    machine.coming = steps(machine, NIC)
    before = time.time()
    result = run_command(machine, "watch", "-J", "--count", "5")
    assert (result.status, result.stderr) == (0, "")
    events = lines(result)
    assert [event["event"] for event in events] == [
        "override-changed",
        "unbound",
        "viable",
        "bound",
        "node-added",
    ]
    bound = events[3]
    assert before <= bound.pop("time") <= time.time()
    assert bound == {
        "schema_version": 1,
        "event": "bound",
        "initial": False,
        "group": GROUP,
        "address": NIC,
        "bus": "pci",
        "before": None,
        "after": "vfio-pci",
    }
    assert events[4]["after"] == {"path": NODE, "uid": 0, "gid": 0, "mode": "0600"}


def test_what_no_event_tells(machine: FakeMachine) -> None:
    def permit() -> None:
        machine.kernel.nodes[NODE] = Access(1000, 0, 0o600)

    for step in steps(machine, NIC):
        step()
    machine.silent = [permit]
    result = run_command(
        machine,
        "watch",
        GROUP,
        "--interval",
        "0.1",
        "--count",
        "1",
        "--format",
        "plain",
        "-o",
        "event,before,after",
    )
    assert result.status == 0
    assert result.stdout.splitlines() == [
        "EVENT BEFORE AFTER",
        f"node-access {NODE},0:0,0600 {NODE},1000:0,0600",
    ]


def test_only_what_was_asked_for(machine: FakeMachine) -> None:
    machine.coming = steps(machine, ROLES["nic_b"], NIC)
    result = run_command(
        machine,
        "watch",
        NIC[5:],
        "--events",
        "bound,node-added,device-added",
        "-J",
        "--count",
        "2",
        "--initial",
    )
    events = lines(result)
    assert [(e["event"], e["initial"], e["group"], e["address"]) for e in events] == [
        ("device-added", True, GROUP, NIC),
        ("bound", True, GROUP, NIC),
        ("bound", False, GROUP, NIC),
        ("node-added", False, GROUP, None),
    ]
    assert events[0]["after"]["vendor"] == "8086"


def test_what_is_not_there_yet(machine: FakeMachine) -> None:
    address = "0000:77:00.0"
    machine.coming = [
        lambda: machine.kernel.plug(FakeDevice(address, E1000E, 77)),
        lambda: machine.kernel.unplug(address),
    ]
    result = run_command(machine, "watch", address, "77", "-n", "--count", "8", "--format", "plain")
    shown = [line.split()[1:] for line in result.stdout.splitlines()]
    assert shown == [
        ["group-added", "77", "-", "-", address],
        ["device-added", "77", address, "-", "8086:10d3"],
        ["bound", "77", address, "-", "e1000e"],
        ["not-viable", "77", "-", "-", "no"],
        ["unbound", "77", address, "e1000e", "-"],
        ["device-removed", "77", address, "8086:10d3", "-"],
        ["group-changed", "77", "-", address, "-"],
        ["viable", "77", "-", "no", "yes"],
    ]


def test_yaml_is_a_document_each(machine: FakeMachine) -> None:
    machine.coming = steps(machine, NIC)
    result = run_command(machine, "watch", "--format", "yaml", "--count", "5")
    assert result.stdout.count("---\nschema_version: 1\n") == 5


def test_a_table_has_headings_once(machine: FakeMachine) -> None:
    machine.coming = steps(machine, NIC)
    result = run_command(machine, "watch", "--format", "table", "--count", "5")
    assert [line.split()[1] for line in result.stdout.splitlines()] == [
        "EVENT", "override-changed", "unbound", "viable", "bound", "node-added",
    ]  # fmt: skip


def test_too_few_events(machine: FakeMachine) -> None:
    machine.coming = steps(machine, NIC)[:1]
    result = run_command(machine, "watch", "--count", "2", "--timeout", "1", "-J")
    assert result.status == 124
    assert len(lines(result)) == 1
    assert result.json_error["code"] == "too-few-events"
    assert "1 of 2 events" in result.json_error["message"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("watch", "--events", "boundd"),
        ("watch", "--timeout", "nan"),
        ("watch", "--timeout", "-1"),
        ("watch", "--interval", "0"),
        ("watch", "--count", "0"),
        ("watch", "a/../b"),
        ("wait", NIC),
        ("wait", "--gone"),
        ("wait", NIC, "--gone", "--present"),
        ("wait", NIC, "--gone", "--driver", "nvme"),
        ("wait", NIC, "--driver", "a/b"),
        ("wait", "*", "--gone"),
    ],
)
def test_usage(machine: FakeMachine, arguments: tuple[str, ...]) -> None:
    result = run_command(machine, *arguments)
    assert (result.status, result.stdout) == (2, ""), result.stderr


def test_on_the_running_host_only(machine: FakeMachine) -> None:
    for arguments in (("watch", "--timeout", "0"), ("wait", NIC, "--gone")):
        assert run_command(None, "--root", machine.root, *arguments).status == 2
    assert run_command(machine, "watch", "eth99").status == 3


def test_the_reader_goes_away(machine: FakeMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(io.StringIO):
        def flush(self) -> None:
            if self.getvalue():
                raise BrokenPipeError

    machine.coming = steps(machine, NIC)
    monkeypatch.setattr("os.dup2", lambda old, new: new)
    monkeypatch.setattr(sys, "stdout", Gone())
    assert run(["watch"], machine) == 141
    assert machine.coming


# --- wait ----------------------------------------------------------------------------------------


def test_it_holds_already(machine: FakeMachine) -> None:
    result = run_command(machine, "wait", NIC, GROUP, "--bound", "-J", "--timeout", "0")
    assert (result.status, result.stderr) == (0, "")
    assert result.json["condition"] == "bound"
    device, group = result.json["results"]
    assert device == {
        "subject": NIC,
        "group": GROUP,
        "address": NIC,
        "bus": "pci",
        "drivers": ["e1000e"],
        "viable": False,
        "usable": False,
        "node": None,
        "cdev": None,
    }
    assert (group["subject"], group["address"], group["drivers"]) == (str(GROUP), None, ["e1000e"])
    assert run_command(machine, "wait", NIC, "--bound", "-q").stdout == ""


@pytest.mark.parametrize(
    ("arguments", "needed"),
    [
        (("--viable",), 2),
        (("--usable",), 3),
        (("--node",), 3),
        (("--driver", "vfio-pci"), 3),
        (("--bound", "--driver", "vfio-pci"), 3),
    ],
)
def test_it_comes_true(machine: FakeMachine, arguments: tuple[str, ...], needed: int) -> None:
    machine.coming = steps(machine, NIC)
    result = run_command(machine, "wait", NIC, *arguments, "-n")
    assert result.status == 0, result.stderr
    assert len(machine.coming) == 3 - needed
    node = NODE if needed == 3 else "-"
    assert result.stdout == f"{NIC} {GROUP} {'vfio-pci' if needed == 3 else '-'} yes {node}\n"


def test_all_of_them_at_a_time(machine: FakeMachine) -> None:
    machine.coming = steps(machine, NIC, ROLES["nic_b"])
    assert run_command(machine, "wait", NIC, ROLES["nic_b"], "--node").status == 0
    assert machine.coming == []


def test_coming_and_going(machine: FakeMachine) -> None:
    kernel = machine.kernel
    machine.coming = [lambda: kernel.plug(FakeDevice("0000:77:00.0", E1000E, 77))]
    assert run_command(machine, "wait", "77", "77:00.0", "--present", "-q").status == 0
    machine.coming = [lambda: kernel.unplug("0000:77:00.0")]
    gone = run_command(machine, "wait", "77:00.0", "--gone", "-J")
    assert gone.status == 0
    assert gone.json["results"][0]["group"] is None
    assert machine.coming == []


def test_it_does_not_come_true(machine: FakeMachine) -> None:
    began = time.monotonic()
    result = run_command(machine, "wait", NIC, ROLES["nic_b"], "--viable", "--timeout", "0.2", "-J")
    assert 0.2 <= time.monotonic() - began < 10
    assert (result.status, result.stdout) == (124, "")
    error = result.json_error
    assert error["code"] == "timeout"
    assert error["message"].splitlines() == [
        f"after 0.2 s group {GROUP} is not viable: {NIC}: the host driver e1000e owns its DMA",
        f"group 13 is not viable: {ROLES['nic_b']}: the host driver e1000e owns its DMA",
    ]
    assert error["hint"].splitlines() == [f"vfioctl bind {NIC}", f"vfioctl bind {ROLES['nic_b']}"]
    assert [unmet["subject"] for unmet in error["unmet"]] == [NIC, ROLES["nic_b"]]


def test_udev_has_not_done_with_the_node(machine: FakeMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in steps(machine, NIC):
        step()
    answers = [False, True]
    monkeypatch.setattr(machine, "settle", lambda paths, timeout: answers.pop(0))
    assert run_command(machine, "wait", NIC, "--node", "--timeout", "5").status == 0
    monkeypatch.setattr(machine, "settle", lambda paths, timeout: False)
    late = run_command(machine, "wait", NIC, "--node", "--timeout", "0.1")
    assert late.status == 124
    assert f"it may still change {NODE}" in late.stderr


def test_released(machine: FakeMachine) -> None:
    for step in steps(machine, NIC):
        step()
    machine.held[NODE] = [HOLDER]
    late = run_command(machine, "wait", GROUP, "--released", "--timeout", "0.1", "-J")
    assert (late.status, late.stdout) == (124, "")
    held = f"IOMMU group {GROUP} is held: qemu (process 4711, user alice) has {NODE} open"
    assert late.json_error["message"] == f"after 0.1 s {held}"
    assert late.json_error["unmet"] == [{"subject": str(GROUP), "detail": held}]
    assert late.json_error["holders"][0]["pid"] == 4711
    machine.silent = [machine.held.clear]
    assert run_command(machine, "wait", NIC, "--released", "--timeout", "5", "-q").status == 0


def test_released_by_going(machine: FakeMachine) -> None:
    machine.held[NODE] = [HOLDER]

    def unplug() -> None:
        machine.held.clear()
        machine.kernel.unplug(NIC)

    machine.coming = [unplug]
    assert run_command(machine, "wait", NIC, "--released", "--timeout", "5", "-q").status == 0
    assert run_command(machine, "wait", NIC, "--released").status == 3
    assert run_command(machine, "wait", "4711", "--released").status == 3


@pytest.mark.parametrize("unseen", [3, None])
def test_a_holder_that_is_not_seen(
    machine: FakeMachine, monkeypatch: pytest.MonkeyPatch, unseen: int | None
) -> None:
    for step in steps(machine, NIC):
        step()
    monkeypatch.setattr(machine, "find_holders", lambda keys: Found((), unseen))
    assert run_command(machine, "wait", NIC, "--released", "-q").status == 0
    machine.held[NODE] = []
    late = run_command(machine, "wait", NIC, "--released", "--timeout", "0.1", "-J")
    assert late.status == 124
    assert "its group's node is open: a process that is not seen" in late.json_error["message"]
    monkeypatch.setattr(machine, "opening", lambda path: errno.EACCES)
    blind = run_command(machine, "wait", NIC, "--released", "-J")
    assert (blind.status, blind.json_error["code"]) == (4, "permission")
    assert "cannot be seen by this user" in blind.json_error["message"]


def test_who_perhaps_holds_another(machine: FakeMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel does not say of which device a file is; the node of the group, which nobody has open, does."""
    for step in steps(machine, NIC):
        step()
    unsure = HOLDER._replace(certain=False, node=None, kind="vfio-device")
    monkeypatch.setattr(machine, "find_holders", lambda keys: Found((unsure,)))
    free = run_command(machine, "wait", NIC, "--released", "-q")
    assert free.status == 0 and "perhaps qemu" in free.stderr
    machine.held[NODE] = []
    late = run_command(machine, "wait", NIC, "--released", "--timeout", "0.1", "-J")
    assert late.status == 124 and "perhaps qemu" in late.json_error["message"]


# --- the kernel's events -------------------------------------------------------------------------


def test_no_events_to_be_had(machine: FakeMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a sandbox: it is said, and looked from time to time."""

    def refuse(*arguments: object, **more: object) -> object:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("pyudev.Monitor.from_netlink", refuse)
    deaf = Machine.uevents(machine)
    assert deaf.failure is not None
    began = time.monotonic()
    assert deaf.wait(0.1) is False
    assert 0.1 <= time.monotonic() - began < 5
    monkeypatch.setattr(machine, "uevents", lambda reader: udev.Uevents(reader))
    monkeypatch.setattr(watching, "INTERVAL_ALONE", 0.05)
    result = run_command(machine, "wait", NIC, "--gone", "--timeout", "0.2")
    assert result.status == 124
    assert "events cannot be heard" in result.stderr
