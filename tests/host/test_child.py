"""What can be said of a command's child without becoming somebody else; the rest is tests/kernel/guest/test_run.py."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from vfioctl.host import bounded
from vfioctl.host.accounts import account_of
from vfioctl.host.child import LIMIT, _become, _libc, _search
from vfioctl.host.leases import _started


@pytest.fixture
def places(tmp_path: Path) -> str:
    for name, mode in (("first/plain", 0o644), ("second/plain", 0o755), ("second/locked", 0o644)):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("#!/bin/sh\n")
        path.chmod(mode)
    (tmp_path / "first" / "directory").mkdir()
    return f"{tmp_path}/first:/no/such:{tmp_path}/second"


def test_the_first_that_can_be_executed(places: str, tmp_path: Path) -> None:
    assert _search("plain", places) == f"{tmp_path}/second/plain"
    assert _search(f"{tmp_path}/second/plain", "") == f"{tmp_path}/second/plain"


def test_there_and_not_executable(places: str, tmp_path: Path) -> None:
    for word in ("locked", f"{tmp_path}/second/locked", f"{tmp_path}/first/directory"):
        with pytest.raises(PermissionError):
            _search(word, places)


def test_not_there(places: str) -> None:
    for word in ("nothing", "directory", "/no/such/path", ""):
        with pytest.raises(FileNotFoundError):
            _search(word, places)


def test_a_process_that_has_ended_is_gone_before_its_parent_asks() -> None:
    assert _started(os.getpid()) == _started(os.getpid()) != None  # noqa: E711
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    try:
        assert os.path.exists(f"/proc/{child}/stat") and _started(child) is None
    finally:
        os.waitpid(child, 0)
    assert _started(child) is None


def test_the_limit_that_cannot_be_raised() -> None:
    """As in a container without CAP_SYS_RESOURCE: the error tells what it was."""
    user = account_of("nobody")
    assert user is not None

    def attempt() -> None:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (4096, 4096))
        if os.geteuid() == 0:
            os.setresuid(user.uid, user.uid, user.uid)
        _become(_libc(), user, None)

    with pytest.raises(PermissionError) as caught:
        bounded.call(attempt, 10)
    assert caught.value.filename == LIMIT
