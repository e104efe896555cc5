"""run on the imitated kernel: what the command finds, what is given back, and who is kept out meanwhile."""

from __future__ import annotations

import errno
import os
import pwd
import signal
from pathlib import Path

import pytest

from tests.fakes.command import Result, run_command
from tests.fakes.kernel import FakeKernel
from tests.fakes.machine import FakeMachine, Killed
from tests.fakes.topology import ROLES, SMALL, boot
from vfioctl.host.child import Command
from vfioctl.host.holders import Holder
from vfioctl.host.state import StateDirectory
from vfioctl.model import Access

EDU, NIC, TWIN = ROLES["edu"], ROLES["nic_a"], ROLES["nic_b"]
NOBODY = pwd.getpwnam("nobody")
ACL = "u::rw-,u:7:rw-,g::---,m::rw-,o::---"


@pytest.fixture
def kernel(tmp_path: Path) -> FakeKernel:
    kernel = boot(str(tmp_path), SMALL, cdevs=True)
    for module in ("vfio-pci", "vfio_iommu_type1"):
        kernel.load_module(module)
    return kernel


@pytest.fixture
def machine(kernel: FakeKernel) -> FakeMachine:
    return FakeMachine(kernel)


def run(machine: FakeMachine, *arguments: str, words: tuple[str, ...] = ("true",)) -> Result:
    return run_command(machine, "run", *arguments, "--user", "nobody", "--", *words)


def leases(kernel: FakeKernel) -> list[str]:
    top = kernel.tree.at("/run/vfioctl/runs")
    return os.listdir(top) if os.path.isdir(top) else []


def binding(kernel: FakeKernel, address: str) -> tuple[str | None, str | None]:
    return kernel.devices[address].driver, kernel.devices[address].override


def assert_given_back(kernel: FakeKernel) -> None:
    assert binding(kernel, NIC) == ("e1000e", None)
    assert list(kernel.nodes) == ["/dev/vfio/vfio"]
    assert leases(kernel) == []
    assert not os.path.exists(kernel.tree.at("/run/vfioctl/journal.json"))
    assert StateDirectory(kernel.tree.at("/run/vfioctl")).homes() == {}


def test_what_the_command_finds(kernel: FakeKernel, machine: FakeMachine) -> None:
    found: list[Command] = []
    group = kernel.devices[NIC].group

    def command(command: Command) -> int:
        found.append(command)
        assert binding(kernel, NIC) == ("vfio-pci", "vfio-pci")
        assert kernel.nodes[f"/dev/vfio/{group}"] == Access(NOBODY.pw_uid, 0, 0o600)
        assert kernel.nodes["/dev/vfio/devices/vfio0"] == Access(NOBODY.pw_uid, 0, 0o600)
        assert len(leases(kernel)) == 1
        return 3

    machine.command = command
    result = run(machine, NIC, "--memlock", "2M", words=("driver", "-J", "--", "--queues"))
    assert (result.status, result.stdout, result.stderr) == (3, "", "")
    (asked,) = found
    assert asked.account is not None
    assert asked.words == ["driver", "-J", "--", "--queues"]
    assert (asked.path, asked.memlock, asked.account.uid) == ("/usr/bin/driver", 2 << 20, NOBODY.pw_uid)
    environment = asked.environment
    assert environment["VFIOCTL_DEVICES"] == NIC
    assert environment["VFIOCTL_GROUPS"] == str(group)
    assert environment["VFIOCTL_NODES"] == f"/dev/vfio/{group} /dev/vfio/devices/vfio0"
    assert (environment["USER"], environment["LOGNAME"], environment["HOME"]) == (
        "nobody",
        "nobody",
        NOBODY.pw_dir,
    )
    assert environment["PATH"] == os.environ["PATH"]
    assert_given_back(kernel)


def test_what_was_bound_before_stays(kernel: FakeKernel, machine: FakeMachine) -> None:
    assert run_command(FakeMachine(kernel), "bind", NIC, "--user", 7).status == 0
    node = f"/dev/vfio/{kernel.devices[NIC].group}"
    before = kernel.nodes[node] = Access(7, 8, 0o660, ACL)
    homes = StateDirectory(kernel.tree.at("/run/vfioctl")).homes()
    kernel.writes.clear()
    seen: list[Access] = []
    machine.command = lambda command: seen.append(kernel.nodes[node]) or 0  # type: ignore[func-returns-value]
    assert run(machine, NIC).status == 0
    assert seen == [Access(NOBODY.pw_uid, 8, 0o600)]
    assert kernel.nodes[node] == before
    assert kernel.writes == [] and leases(kernel) == []
    assert StateDirectory(kernel.tree.at("/run/vfioctl")).homes() == homes


def test_all_or_none(kernel: FakeKernel, machine: FakeMachine) -> None:
    kernel.probe_errors["vfio-pci", TWIN] = errno.EINVAL
    machine.command = lambda command: pytest.fail("it must not run")
    assert run(machine, NIC, TWIN).status == 8
    assert_given_back(kernel)


@pytest.mark.parametrize(
    ("error", "status"), [(errno.ENOENT, 127), (errno.EACCES, 126), (errno.ENOEXEC, 126)]
)
def test_a_command_that_cannot_be_executed(
    kernel: FakeKernel, machine: FakeMachine, error: int, status: int
) -> None:
    def refuse(command: Command) -> int:
        raise OSError(error, os.strerror(error), command.path)

    machine.command = refuse
    result = run(machine, NIC)
    assert (result.status, result.stdout) == (status, "")
    assert f"/usr/bin/true: {os.strerror(error)}" in result.stderr
    assert_given_back(kernel)


def test_a_command_that_is_not_there_changes_nothing(
    kernel: FakeKernel, machine: FakeMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find(*arguments: object) -> str:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "true")

    monkeypatch.setattr(machine, "find_command", find)
    assert run(machine, NIC).status == 127
    assert kernel.writes == []


class TestUser:
    @pytest.fixture(autouse=True)
    def nobody_behind_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("SUDO_UID", "PKEXEC_UID", "DOAS_USER"):
            monkeypatch.delenv(name, raising=False)

    @pytest.mark.parametrize("name", ["no-such-user", "4242424242424242", "9" * 5000, "", "-x"])
    def test_that_is_none(self, kernel: FakeKernel, machine: FakeMachine, name: str) -> None:
        result = run_command(machine, "run", NIC, "--user", name, "--", "true")
        assert result.status == 3 and "there is no user" in result.stderr
        assert kernel.writes == []

    def test_who_called_sudo(
        self, kernel: FakeKernel, machine: FakeMachine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SUDO_UID", str(NOBODY.pw_uid))
        found: list[int] = []

        def command(order: Command) -> int:
            assert order.account is not None
            found.append(order.account.uid)
            return 0

        machine.command = command
        assert run_command(machine, "run", NIC, "--", "true").status == 0
        assert found == [NOBODY.pw_uid]


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ((NIC,), "run what?"),
        ((NIC, "--"), "run what?"),
        (("--", "true"), "missing argument"),
        ((NIC, "--memlock", "much", "--user", "nobody", "--", "true"), "not a size"),
        ((NIC, "--no-such-option", "--", "true"), "no such option"),
    ],
)
def test_usage(kernel: FakeKernel, machine: FakeMachine, arguments: tuple[str, ...], what: str) -> None:
    result = run_command(machine, "run", *arguments)
    assert result.status == 2 and what in result.stderr
    assert kernel.writes == []


def test_a_group_that_somebody_has_open(kernel: FakeKernel, machine: FakeMachine) -> None:
    assert run_command(FakeMachine(kernel), "bind", NIC).status == 0
    kernel.writes.clear()
    machine.held[f"/dev/vfio/{kernel.devices[NIC].group}"] = [Holder(7, "qemu", 0)]
    result = run(machine, NIC)
    assert result.status == 6 and "qemu (process 7, uid 0)" in result.stderr
    assert kernel.writes == [] and leases(kernel) == []


class TestUsersThatStay:
    def test_are_waited_for(
        self, kernel: FakeKernel, machine: FakeMachine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        looks: list[str] = []

        def is_held(path: str) -> bool:
            looks.append(path)
            return len(looks) < 3

        monkeypatch.setattr(machine, "is_held", is_held)
        result = run(machine, NIC)
        assert result.status == 0 and "waiting until the devices are let go" in result.stderr
        assert_given_back(kernel)

    def test_and_stay(self, kernel: FakeKernel, machine: FakeMachine) -> None:
        node = f"/dev/vfio/{kernel.devices[NIC].group}"

        def leave_a_daemon(command: Command) -> int:
            machine.held[node] = [Holder(7, "daemon", 0)]
            return 3

        machine.command = leave_a_daemon
        result = run(machine, NIC)
        assert result.status == 9
        assert f"{node} is held by daemon (process 7, uid 0)" in result.stderr
        assert (
            f"{NIC} has driver vfio-pci, override vfio-pci; it had driver e1000e, no override"
            in result.stderr
        )
        assert "ended with status 3" in result.stderr
        assert binding(kernel, NIC) == ("vfio-pci", "vfio-pci")
        assert run_command(FakeMachine(kernel), "bind", TWIN, "-J").json_error["code"] == "unfinished-change"
        still = FakeMachine(kernel)
        still.held = machine.held
        refused = run_command(still, "recover", "-J")
        assert refused.status == 9 and "daemon" in refused.json_error["message"]
        assert run_command(FakeMachine(kernel), "recover").status == 0
        assert_given_back(kernel)

    def test_a_signal_ends_the_waiting(self, kernel: FakeKernel, machine: FakeMachine) -> None:
        machine.timeout = 60.0

        def leave_a_daemon(command: Command) -> int:
            machine.held[f"/dev/vfio/{kernel.devices[NIC].group}"] = [Holder(7, "daemon", 0)]
            os.kill(os.getpid(), signal.SIGTERM)
            return 0

        machine.command = leave_a_daemon
        assert run(machine, NIC).status == 9
        assert run_command(FakeMachine(kernel), "recover").status == 0
        assert_given_back(kernel)


class TestLent:
    @pytest.mark.parametrize("command", ["bind", "unbind", "permit", "run"])
    def test_it_is_refused_to_others(self, kernel: FakeKernel, machine: FakeMachine, command: str) -> None:
        group = str(kernel.devices[NIC].group)
        found: list[Result] = []

        def meanwhile(_: Command) -> int:
            other = FakeMachine(kernel)
            if command == "run":
                found.append(run(other, NIC))
            elif command == "permit":
                found.append(run_command(other, "permit", group, "--user", 7))
            else:
                found.append(run_command(other, command, NIC))
            return 0

        machine.command = meanwhile
        assert run(machine, NIC).status == 0
        (refused,) = found
        assert refused.status == 5 and f"(process {machine.leases.pid})" in refused.stderr
        assert_given_back(kernel)

    def test_other_devices_are_not(self, kernel: FakeKernel, machine: FakeMachine) -> None:
        """And what others have recorded meanwhile stays."""
        machine.command = lambda command: run_command(FakeMachine(kernel), "bind", TWIN).status
        assert run(machine, NIC).status == 0
        assert binding(kernel, NIC) == ("e1000e", None)
        assert binding(kernel, TWIN) == ("vfio-pci", "vfio-pci")
        assert list(StateDirectory(kernel.tree.at("/run/vfioctl")).homes()) == [f"pci/{TWIN}"]

    def test_recover_leaves_it_alone(self, kernel: FakeKernel, machine: FakeMachine) -> None:
        found: list[Result] = []

        def recover(command: Command) -> int:
            found.append(run_command(FakeMachine(kernel), "recover"))
            assert binding(kernel, NIC) == ("vfio-pci", "vfio-pci")
            return 0

        machine.command = recover
        assert run(machine, NIC).status == 0
        assert found[0].status == 0 and "which still runs; left alone" in found[0].stderr
        assert_given_back(kernel)


class TestKilled:
    @pytest.fixture
    def killed(self, kernel: FakeKernel, machine: FakeMachine) -> None:
        def die(command: Command) -> int:
            machine.dead = True
            raise Killed

        machine.command = die
        with pytest.raises(Killed):
            run(machine, NIC, EDU)

    @pytest.mark.usefixtures("killed")
    def test_recover_gives_back(self, kernel: FakeKernel) -> None:
        refused = run_command(FakeMachine(kernel), "bind", TWIN, "-J")
        assert (refused.status, refused.json_error["code"]) == (5, "unfinished-change")
        result = run_command(FakeMachine(kernel), "recover", "-J")
        assert result.status == 0, result.stderr
        assert result.json["command"] == "run"
        assert result.json["devices"] == sorted([f"pci/{EDU}", f"pci/{NIC}"])
        assert_given_back(kernel)
        assert run_command(FakeMachine(kernel), "bind", TWIN).status == 0

    @pytest.mark.usefixtures("killed")
    def test_a_journal_for_the_same_bind_as_well(self, kernel: FakeKernel) -> None:
        (name,) = leases(kernel)
        top = Path(kernel.tree.at("/run/vfioctl"))
        (top / "journal.json").write_bytes((top / "runs" / name).read_bytes())
        assert run_command(FakeMachine(kernel), "recover").status == 0
        assert_given_back(kernel)

    @pytest.mark.usefixtures("killed")
    def test_a_lease_that_cannot_be_understood(self, kernel: FakeKernel) -> None:
        (name,) = leases(kernel)
        Path(kernel.tree.at("/run/vfioctl"), "runs", name).write_text("{")
        for arguments in (("bind", TWIN), ("recover",)):
            refused = run_command(FakeMachine(kernel), *arguments, "-J")
            assert (refused.status, refused.json_error["code"]) == (5, "journal-unreadable")


def test_a_device_that_is_pulled_out_meanwhile(kernel: FakeKernel, machine: FakeMachine) -> None:
    def pull(command: Command) -> int:
        kernel.unplug(NIC)
        return 4

    machine.command = pull
    result = run(machine, NIC, EDU)
    assert result.status == 4 and f"{NIC} is gone" in result.stderr
    assert binding(kernel, EDU) == (None, None)
    assert leases(kernel) == []


def test_a_signal_before_the_command_is_there(kernel: FakeKernel, machine: FakeMachine) -> None:
    point = next(n for n, name in enumerate(_points(kernel), 1) if name.startswith("state move"))
    machine.command = lambda command: pytest.fail("it must not run")
    machine.signal_at(point, signal.SIGINT, after=True)
    assert run(machine, NIC).status == 8
    assert_given_back(kernel)


def _points(kernel: FakeKernel) -> list[str]:
    machine = FakeMachine(kernel)
    assert run(machine, NIC).status == 0
    return machine.points


def test_a_dry_run_answers_as_the_change_would(kernel: FakeKernel, machine: FakeMachine) -> None:
    found: list[Result] = []

    def command(command: Command) -> int:
        found.extend(
            run_command(FakeMachine(kernel), name, NIC, "--dry-run", "-J") for name in ("bind", "unbind")
        )
        return 0

    machine.command = command
    assert run(machine, NIC).status == 0
    assert [(result.status, result.json_error["code"]) for result in found] == [(5, "lent")] * 2
    assert all("commands" in result.json for result in found)
    Path(kernel.tree.at("/run/vfioctl/journal.json")).write_text("{")
    refused = run_command(FakeMachine(kernel), "bind", NIC, "--dry-run", "-J")
    assert (refused.status, refused.json_error["code"]) == (5, "unfinished-change")


def test_a_device_that_is_back_is_not_said_to_be_lent_still(
    kernel: FakeKernel, machine: FakeMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*anything: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "homes.json.new")

    def command(command: Command) -> int:
        monkeypatch.setattr(StateDirectory, "save_homes", full)
        return 0

    machine.command = command
    result = run(machine, NIC)
    assert result.status == 9 and binding(kernel, NIC) == ("e1000e", None)
    assert (
        "not everything could be given back:\nvfioctl:   the record of home drivers: No space"
        in result.stderr
    )
    monkeypatch.undo()
    assert run_command(FakeMachine(kernel), "recover").status == 0
    assert_given_back(kernel)
