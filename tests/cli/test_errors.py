"""Exit statuses and how errors are said."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from tests.fakes.command import run_command
from tests.fakes.machine import FakeMachine
from tests.fakes.topology import ROLES, boot
from vfioctl import errors
from vfioctl.cli import messages
from vfioctl.errors import SEVERITY, ExitStatus, VfioctlError, errno_name, worst


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
