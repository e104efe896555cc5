"""Every write fails, every instant kills: afterwards the host is as it was before, or as it was to be."""

from __future__ import annotations

import errno
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from functools import cache, partial

import pytest

from tests.fakes.machine import FakeMachine
from tests.fakes.topology import ROLES
from tests.faults.sweep import Count, Host, Scenario, settle, strike
from vfioctl.host.accounts import account_of
from vfioctl.ops import run

Record = Callable[[str, object], None]

EDU, NIC, TWIN, NVME = ROLES["edu"], ROLES["nic_a"], ROLES["nic_b"], ROLES["nvme"]
VFS = ("--allow", "virtual-functions")
GROUP = "14"  # with a bridge on shpchp
ERRNOS = (
    errno.EBUSY, errno.ENODEV, errno.EIO, errno.EACCES, errno.ENOSPC, errno.EINVAL, errno.ENOMEM, errno.EEXIST,
    errno.EAGAIN, errno.ENOENT,
)  # fmt: skip
NEW_ID = ("bind", NIC, "--method", "new-id", "--allow", "new-id-match")
RUN = ("--user", "nobody", "--", "true")

SCENARIOS = (
    Scenario("bind one", ("bind", NIC)),
    Scenario("bind one with a cdev", ("bind", NIC, "--user", "1000"), cdevs=True),
    Scenario("bind a group", ("bind", GROUP)),
    Scenario("bind by new-id", NEW_ID),
    Scenario("bind by new-id with an unbound twin", NEW_ID, (("unbind", "--leave-unbound", TWIN),)),
    Scenario("bind two for a user", ("bind", NIC, TWIN, "--user", "1000", "--mode", "660")),
    Scenario("unbind one", ("unbind", NIC), (("bind", NIC),)),
    Scenario("unbind a driverless one", ("unbind", EDU), (("bind", EDU),)),
    Scenario("unbind a group", ("unbind", GROUP), (("bind", GROUP),)),
    Scenario("unbind to another driver", ("unbind", NIC, "--to", "pci-stub"), (("bind", NIC),)),
    Scenario("bind one with virtual functions", ("bind", NVME, *VFS), numvfs=2),
    Scenario("unbind one that had virtual functions", ("unbind", NVME), (("bind", NVME, *VFS),), numvfs=2),
    Scenario("leave unbound", ("unbind", NIC, "--leave-unbound")),
    Scenario("permit", ("permit", "12", "--user", "1000"), (("bind", NIC),)),
    Scenario("permit two nodes", ("permit", "12", "--user", "1000"), (("bind", NIC),), cdevs=True),
    Scenario("run", ("run", NIC, *RUN), returns=True),
    Scenario(
        "run with what was bound", ("run", NIC, *RUN), (("bind", NIC, "--user", "7"),), True, returns=True
    ),
    Scenario("run with a group", ("run", GROUP, *RUN), returns=True),
    Scenario("run with virtual functions", ("run", NVME, *VFS, *RUN), numvfs=2, returns=True),
    Scenario("revoke", ("revoke", "12"), (("bind", NIC, "--user", "1000"),)),
)


@pytest.fixture(params=SCENARIOS, ids=lambda scenario: scenario.name.replace(" ", "-"))
def host(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """On a file system in memory where there is one: every case syncs a journal. And who nobody is is asked once."""
    monkeypatch.setattr(run, "account_of", cache(account_of))
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as root:
        yield Host(root, request.param)


def places(host: Host) -> Iterator[tuple[int, bool, str]]:
    """Every point of the command, before and after its effect."""
    for number, name in enumerate(host.points, 1):
        yield number, False, f"before {number} ({name})"
        yield number, True, f"after {number} ({name})"


def test_every_write_fails(host: Host, record_property: Record) -> None:
    count = Count()
    for number, after, where in places(host):
        if after and host.points[number - 1].startswith(("state clear", "state move")):
            continue  # unlink and rename have no effect when they fail
        for error in ERRNOS:
            if error == errno.EEXIST and after:
                continue  # the kernel adds no id and says that it is there
            what = f"{errno.errorcode[error]} {where}"
            with count.case(host):
                strike(host, lambda m: m.fail_at(number, error, after=after), what)  # noqa: B023
                settle(host, what)
    count.judge(20, record_property)


def test_every_write_fails_from_one_on(host: Host, record_property: Record) -> None:
    """The way back fails too: that has to be said, and ``recover`` puts it right later."""
    count = Count()
    for number in range(1, len(host.points) + 1):
        for error in (errno.EBUSY, errno.EIO, errno.EACCES):
            what = f"{errno.errorcode[error]} from {number} on"
            with count.case(host):
                strike(host, lambda m: m.fail_from(number, error), what)  # noqa: B023
                settle(host, what)
    count.judge(5, record_property)


def test_no_process_can_be_started_from_one_on(host: Host, record_property: Record) -> None:
    """Neither to write nor to look, on the way back neither; and a change that is done stays done."""
    count = Count()
    number = 0
    reached = True
    while reached:
        number += 1
        machines: list[FakeMachine] = []
        what = f"no process from {number} on"
        with count.case(host):
            strike(host, lambda m: machines.append(m.no_process_from(number)), what)  # noqa: B023
            settle(host, what)
        reached = (machines[0].processes or 0) < 0
    count.judge(3, record_property)


def test_the_kernel_hangs(host: Host, record_property: Record) -> None:
    count = Count()
    for number, after, where in places(host):
        if host.points[number - 1].startswith("state "):
            continue
        with count.case(host):
            strike(host, lambda m: m.hang_at(number, after=after), f"hangs {where}")  # noqa: B023
            settle(host, f"hangs {where}")
    count.judge(2, record_property)


def test_killed_everywhere(host: Host, record_property: Record) -> None:
    count = Count()
    for number, after, where in places(host):
        with count.case(host):
            status = strike(host, lambda m: m.die_at(number, after=after), f"killed {where}")  # noqa: B023
            assert status == -9
            settle(host, f"killed {where}")
    count.judge(8, record_property)


@pytest.mark.parametrize("name", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT], ids=lambda s: s.name)
def test_a_signal_everywhere(host: Host, name: signal.Signals, record_property: Record) -> None:
    count = Count()
    for number, after, where in places(host):
        with count.case(host):
            strike(host, lambda m: m.signal_at(number, name, after=after), f"{name.name} {where}")  # noqa: B023
            settle(host, f"{name.name} {where}")
    count.judge(8, record_property)


def second_faults(number: int) -> Iterator[tuple[str, Callable[[FakeMachine], object]]]:
    for error in (errno.EBUSY, errno.EIO):
        yield f"{errno.errorcode[error]} at {number}", partial(_fail, number=number, error=error)
    for after in (False, True):
        yield f"killed {'after' if after else 'before'} {number}", partial(_die, number=number, after=after)


def _fail(machine: FakeMachine, number: int, error: int) -> None:
    machine.fail_at(number, error)


def _die(machine: FakeMachine, number: int, after: bool) -> None:
    machine.die_at(number, after=after)


def test_killed_and_then_a_fault_in_recovery(host: Host, record_property: Record) -> None:
    count = Count()
    for number, after, where in places(host):
        for second in range(1, 40):
            reached = False
            for name, arm in second_faults(second):
                what = f"killed {where}, then in recovery {name}"
                with count.case(host):
                    strike(host, lambda m: m.die_at(number, after=after), what)  # noqa: B023
                    status, machine = host.recover(arm)
                    reached = len(machine.points) >= second
                    assert status in (-9, 0, 9, 7), f"{host.scenario.name}: {what}: status {status}"
                    if status == 0:
                        assert not host.has_journal(), what
                    elif status == 9:
                        assert host.has_journal(), what
                    settle(host, what)
            if not reached:
                break
    count.judge(16, record_property)


def test_a_fault_and_then_another_on_the_way_back(host: Host, record_property: Record) -> None:
    """In one process: the way back fails, or is killed."""
    count = Count()
    for number, name in enumerate(host.points, 1):
        for second in range(number + 1, number + 40):
            reached = False
            for again, arm in second_faults(second):
                what = f"EIO at {number} ({name}), then {again}"
                with count.case(host):
                    machines: list[FakeMachine] = []

                    def both(machine: FakeMachine) -> None:
                        machines.append(machine.fail_at(number, errno.EIO))  # noqa: B023
                        arm(machine)  # noqa: B023

                    strike(host, both, what)
                    reached = len(machines[0].points) >= second
                    settle(host, what)
            if not reached:
                break
    count.judge(4, record_property)


def test_a_device_is_pulled_out_at_any_write(host: Host, record_property: Record) -> None:
    """What is left of the host is as it was before, or as it was to be."""
    before, after = host.before.bindings, host.after.bindings
    changes = [a for a in before if a in after and before[a] != after[a]]
    moved = [address for address in changes if not host.kernel.devices[address].is_bridge]
    count = Count()
    for number, _, where in (place for place in places(host) if not place[1]):
        for address in moved:
            kernel = host.kernel
            device = kernel.devices[address]
            count.cases += 1
            machine = host.machine().unplug_at(number, address)
            status = _status(machine, host)
            recovered, _ = host.recover()
            now = host.picture().without(address)
            what = f"{host.scenario.name}: {address} pulled out {where}: {status}, then {recovered}"
            if now not in (host.before.without(address), host.after.without(address)):
                count.wrong.append(f"{what}: a third state")
            if recovered != 0 or host.has_journal():
                count.wrong.append(what)
            device.driver = device.override = None
            kernel.plug(device)
            host.reset()
    count.judge(0, record_property)


def _status(machine: FakeMachine, host: Host) -> int:
    from tests.fakes.command import run_command

    return run_command(machine, *host.scenario.command).status


def test_an_unfinished_change_stops_the_next_one(host: Host) -> None:
    first = next(n for n, name in enumerate(host.points, 1) if name == "state journal.json")
    strike(host, lambda m: m.die_at(first, after=True), "killed")
    name, *rest = host.scenario.command
    form = [] if name == "run" else ["-J"]
    refused = host.run(name, *form, *rest)
    assert refused.status == 5 and "vfioctl recover" in refused.stderr
    for command in (("bind", TWIN), ("unbind", NIC)):
        refused = host.run(*command, "-J")
        assert refused.status == 5
        assert refused.stdout == ""
        assert refused.json_error["code"] == "unfinished-change"
        assert refused.json_error["hint"] == "vfioctl recover"
    assert host.run("list-groups").status == 0
    settle(host, "killed")
    assert host.run(*host.scenario.command).status == 0
    assert host.picture() == host.after
