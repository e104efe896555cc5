"""Exit statuses and how errors are said."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench.tree import build
from tests.fakes.command import run_command
from tests.fakes.machine import FakeMachine
from tests.fakes.topology import ROLES, boot
from tests.host.fake_vfio import FakeVfio, Group
from vfioctl import errors
from vfioctl.cli import messages
from vfioctl.cli.app import run
from vfioctl.errors import SEVERITY, ExitStatus, VfioctlError, errno_name, worst
from vfioctl.host import vfio
from vfioctl.policy.refusals import TABLE, State
from vfioctl.policy.refusals.gaps import gaps
from vfioctl.policy.refusals.state import Refusal


def test_the_numbers_that_scripts_rely_on() -> None:
    assert {status.name: int(status) for status in ExitStatus} == {
        "OK": 0,
        "NO": 1,
        "USAGE": 2,
        "NOT_FOUND": 3,
        "PERMISSION": 4,
        "GUARD": 5,
        "BUSY": 6,
        "KERNEL": 7,
        "RESTORED": 8,
        "BROKEN": 9,
        "TIMEOUT": 124,
    }


def test_the_worst() -> None:
    assert set(SEVERITY) == set(ExitStatus)
    assert worst() is ExitStatus.OK
    assert worst(ExitStatus.OK, ExitStatus.NO) is ExitStatus.NO
    assert worst(ExitStatus.TIMEOUT, ExitStatus.RESTORED) is ExitStatus.RESTORED
    assert worst(ExitStatus.BROKEN, ExitStatus.TIMEOUT, ExitStatus.OK) is ExitStatus.BROKEN


def test_every_error_has_its_code_and_status() -> None:
    kinds = [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, VfioctlError)]
    assert len({kind.code for kind in kinds}) == len(kinds)
    for kind in kinds:
        assert kind("x").status is kind.status
        assert kind("x", status=ExitStatus.NO, code="c").status is ExitStatus.NO


def test_errno_names() -> None:
    assert (errno_name(errno.EBUSY), errno_name(524)) == ("EBUSY", "524")
    assert errno_name(errno.ENOTSUP) == "EOPNOTSUPP"


def test_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    failure = VfioctlError("first\nsecond \x1b[2J", hint="do\nthis", errno=errno.EPERM)
    messages.error(failure)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "vfioctl: first [EPERM]",
        "vfioctl:   second \\x1b[2J",
        "vfioctl:   cure: do",
        "vfioctl:   cure: this",
    ]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EIO, errno.EOPNOTSUPP])
def test_the_hint_of_a_refused_write_is_the_cure_of_the_table(number: int, tmp_path: Path) -> None:
    kernel = boot(str(tmp_path))
    nic = ROLES["nic_a"]
    kernel.probe_errors["vfio-pci", nic] = number
    error = run_command(FakeMachine(kernel), "bind", nic, "-J").json_error
    refusal = Refusal("write bind", number, State(device=nic, driver="vfio-pci"))
    meaning = next(each for each in TABLE["write bind", number] if each.code == error["cause"])
    assert error["hint"] == meaning.hint.format_map(gaps(refusal))
    assert error["message"].startswith(meaning.message.format_map(gaps(refusal)))


def test_evidence_of_a_refused_write_is_what_the_machine_shows(tmp_path: Path) -> None:
    kernel = boot(str(tmp_path))
    nic = ROLES["nic_a"]
    kernel.probe_errors["vfio-pci", nic] = errno.ENODEV
    error = run_command(FakeMachine(kernel), "bind", nic, "-J").json_error
    top = f"/sys/bus/pci/devices/{nic}"
    pci = kernel.devices[nic].pci
    assert pci is not None
    assert error["evidence"] == [
        {"file": f"{top}/vendor", "value": f"0x{pci.vendor}"},
        {"file": f"{top}/device", "value": f"0x{pci.device}"},
    ]
    assert (error["code"], error["cause"], error["errno"]) == ("failed-restored", "kernel", "ENODEV")


def test_evidence_stands_between_cause_and_cure(capsys: pytest.CaptureFixture[str]) -> None:
    seen = {"evidence": [{"file": "/dev/vfio/26", "value": "mode 0600\x1b"}]}
    failure = VfioctlError("no", hint="do", details=seen)
    messages.error(failure)
    assert capsys.readouterr().err.splitlines() == [
        "vfioctl: no",
        "vfioctl:   evidence: /dev/vfio/26: mode 0600\\x1b",
        "vfioctl:   cure: do",
    ]
    messages.error(failure, as_json=True)
    assert json.loads(capsys.readouterr().err)["error"]["evidence"] == seen["evidence"]


def test_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    messages.error(VfioctlError("a\n\x1b\udcff", subject="s", code="c"), as_json=True)
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and err.isascii()
    expected = {"code": "c", "message": "a\n\x1b\udcff", "hint": None, "errno": None, "subject": "s"}
    assert json.loads(err) == {"error": expected}


@pytest.mark.parametrize("form", [("-J",), ("--json",), ("-nJ",), ("--format", "json"), ("--format=json",)])
def test_json_errors_when_json_was_asked_for(form: tuple[str, ...]) -> None:
    for arguments in (("list-groups", "--nonsense"), ("nonsense",), ("bind",)):
        result = run_command(None, *arguments, *form)
        assert (result.status, result.stdout) == (2, "")
        assert result.json_error["code"] == "usage"


def test_no_command_at_all() -> None:
    assert run_command(None).status == 2


@pytest.mark.parametrize(
    ("number", "status"),
    [
        (errno.EBUSY, 7),
        (errno.ENODEV, 7),
        (errno.EINVAL, 7),
        (errno.EACCES, 4),
        (errno.EROFS, 4),
        (errno.EIO, 7),
    ],
)
def test_what_a_refused_first_write_is(tmp_path: Path, number: int, status: int) -> None:
    """Nothing was changed, so the status is that of the refusal itself, not 8."""
    kernel = boot(str(tmp_path))
    kernel.load_module("vfio-pci")
    kernel.load_module("vfio_iommu_type1")
    machine = FakeMachine(kernel).fail_at(2, number)  # after the journal
    command = ("unbind", ROLES["nic_a"], "--leave-unbound", "-J")
    result = run_command(machine, *command)
    assert result.status == status
    assert result.json_error["errno"] == errno.errorcode[number]
    assert result.json_error["hint"]
    assert result.stdout == ""
    assert kernel.devices[ROLES["nic_a"]].driver == "e1000e"


def test_an_unforeseen_error_is_an_error_message(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from vfioctl.host import reader

    def broken(path: str, dir_fd: int | None = None) -> str | None:
        raise OSError(errno.EIO, "Input/output error", path)

    boot(str(tmp_path))
    monkeypatch.setattr(reader, "read", broken)
    result = run_command(None, "--root", tmp_path, "list-groups", "-J")
    assert (result.status, result.json_error["errno"]) == (7, "EIO")


@pytest.mark.parametrize("seconds", ["inf", "-inf", "nan", "1e300", "0", "-1", "soon"])
def test_a_timeout_that_is_none(seconds: str) -> None:
    result = run_command(None, f"--timeout={seconds}", "list-groups", "-J")
    assert (result.status, result.stdout) == (2, "")
    assert result.json_error["code"] == "usage"


@pytest.mark.parametrize("seconds", ["inf", "nan", "-1", "soon"])
def test_a_wait_that_is_none(tmp_path: Path, seconds: str) -> None:
    result = run_command(FakeMachine(boot(str(tmp_path))), "recover", f"--wait={seconds}", "-J")
    assert (result.status, result.stdout) == (2, "")
    assert result.json_error["code"] == "usage"


def test_what_the_command_line_lacks_is_said_as_everything_else() -> None:
    result = run_command(None, "bind", "26", "--no-such-option")
    assert result.stderr.splitlines()[0] == "vfioctl: no such option '--no-such-option'"


def test_an_option_of_the_program_behind_a_command() -> None:
    result = run_command(None, "unbind", "26", "--timeout", "3", "-J")
    assert (result.status, result.json_error["message"]) == (2, "no such option '--timeout' after 'unbind'")
    assert result.json_error["hint"].endswith("vfioctl --timeout ... unbind")


@pytest.mark.parametrize("size", ["small", "large"])
def test_a_reader_that_has_gone_is_not_told_no(tmp_path: Path, size: str) -> None:
    """As a program that SIGPIPE has ended: 1 would be a clean no. A large answer meets the closed pipe half-way."""
    build(str(tmp_path), 2000 if size == "large" else 5)
    reader, writer = os.pipe()
    os.close(reader)
    for asked in (("--root", str(tmp_path), "list-devices"), ("--help",), ("container", "--help")):
        command = [sys.executable, "-m", "vfioctl", *asked]
        done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, check=False, timeout=60)
        assert (done.returncode, done.stderr) == (141, b"")
    os.close(writer)


def test_a_root_that_is_not_there(tmp_path: Path) -> None:
    result = run_command(None, "--root", tmp_path / "none.tar.gz", "tree", "-J")
    assert (result.status, result.json_error["message"][:17]) == (2, "--root: there is ")


@pytest.mark.parametrize("command", ["tree", "list-devices"])
def test_a_group_to_filter_by_must_be_there(tmp_path: Path, command: str) -> None:
    kernel = boot(str(tmp_path))
    result = run_command(None, "--root", kernel.tree.root, command, "--group", "999", "-J")
    assert (result.status, result.json_error["code"]) == (3, "no-such-group")


@contextlib.contextmanager
def broken_stderr(kind: str) -> Iterator[None]:
    """A stderr that is full, or whose reader has gone."""
    if kind == "full":
        fd = os.open("/dev/full", os.O_WRONLY)
    else:
        reader, fd = os.pipe()
        os.close(reader)
    file = os.fdopen(fd, "w")
    with contextlib.redirect_stderr(file):
        yield
    with contextlib.suppress(OSError):
        file.close()


@pytest.mark.parametrize("kind", ["full", "closed"])
def test_a_stderr_that_takes_nothing_stops_no_change(tmp_path: Path, kind: str) -> None:
    kernel = boot(str(tmp_path))
    out = io.StringIO()
    with contextlib.redirect_stdout(out), broken_stderr(kind):
        assert run(["-v", "bind", ROLES["nic_a"]], FakeMachine(kernel)) == 0
        assert run(["bind", "no-such-name"], FakeMachine(kernel)) == 3
    assert kernel.devices[ROLES["nic_a"]].driver == "vfio-pci"
    assert ROLES["nic_a"] in out.getvalue()


def test_a_full_stderr_is_not_the_status_of_the_program(tmp_path: Path) -> None:
    """The note on a host without groups goes nowhere."""
    command = [sys.executable, "-m", "vfioctl", "--root", str(tmp_path), "list-groups", "-J"]
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=full, check=False, timeout=30)
    assert done.returncode == 0
    assert json.loads(done.stdout) == {"schema_version": 1, "groups": []}


def test_a_live_check_reports_all_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One group has no node, another is in use: that is said with the results of both."""
    kernel = boot(str(tmp_path))
    edu, nic = ROLES["edu"], ROLES["nic_a"]
    assert run_command(FakeMachine(kernel), "bind", edu).status == 0
    group = kernel.devices[edu].group
    assert group is not None
    fake = FakeVfio(Group(group))
    monkeypatch.setattr(vfio, "ioctl", fake.ioctl)
    monkeypatch.setattr(vfio, "open_node", fake.open_node)
    with vfio.opened(vfio.group_path(group)):
        result = run_command(FakeMachine(kernel), "check-viable", "--live", nic, group, "-J")
    assert result.status == 6, result.stderr
    assert [(found["group"], found["live"]) for found in result.json["results"]] == [
        (kernel.devices[nic].group, None),
        (group, None),
    ]
    assert [problem["code"] for problem in result.json["results"][1]["problems"]] == ["group-busy"]
