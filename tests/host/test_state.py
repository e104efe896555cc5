"""/run/vfioctl: who may be trusted with it, and what a crash leaves."""

from __future__ import annotations

import errno
import json
import os
import signal
import time
from pathlib import Path

import pytest

from vfioctl.errors import Busy, ExitStatus, GuardRefusal, PermissionDenied, VfioctlError
from vfioctl.host.journal import Home, Journal, journal_from_json, journal_to_json
from vfioctl.host.state import StateDirectory
from vfioctl.model import Access, Binding, DynamicId, State

JOURNAL = Journal(
    "bind",
    State({"pci/0000:01:00.0": Binding("e1000e", None)}, {"/dev/vfio/1": Access(1, 2, 0o640)}),
    (DynamicId("vfio-pci", "8086 10d3"),),
    {"pci/0000:01:00.0": Home("pci:v", Binding("e1000e", None))},
)


@pytest.fixture
def state(tmp_path: Path) -> StateDirectory:
    return StateDirectory(str(tmp_path / "run" / "vfioctl"))


def journal_text(**parts: object) -> bytes:
    """A journal as it stands in its file, with some ``parts`` of it."""
    return json.dumps(journal_to_json(Journal("bind", State({}, {}))) | parts).encode()


def test_what_is_saved_is_loaded(state: StateDirectory) -> None:
    assert state.load_journal() is None
    state.save_journal(JOURNAL)
    assert state.load_journal() == JOURNAL
    with pytest.raises(GuardRefusal, match="interrupted"):
        state.refuse_unfinished()
    state.clear_journal()
    state.clear_journal()
    assert state.load_journal() is None
    state.refuse_unfinished()
    state.save_homes(JOURNAL.homes)
    assert state.homes() == JOURNAL.homes
    assert sorted(os.listdir(state.path)) == ["homes.json"]
    assert journal_from_json(json.loads(json.dumps(journal_to_json(JOURNAL))), "there") == JOURNAL


def test_it_is_the_owners_alone(state: StateDirectory) -> None:
    state.save_journal(JOURNAL)
    assert os.stat(state.path).st_mode & 0o777 == 0o700
    assert os.stat(f"{state.path}/journal.json").st_mode & 0o777 == 0o600


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o770, 0o702])
def test_a_directory_that_others_write_to_is_refused(state: StateDirectory, mode: int) -> None:
    os.makedirs(state.path)
    os.chmod(state.path, mode)
    for action in (state.ensure, lambda: state.save_journal(JOURNAL)):
        with pytest.raises(PermissionDenied) as caught:
            action()
        assert caught.value.code == "state-directory"
    assert os.listdir(state.path) == []


def test_a_symbolic_link_is_refused(state: StateDirectory, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    os.makedirs(os.path.dirname(state.path))
    os.symlink(tmp_path / "elsewhere", state.path)
    with pytest.raises(PermissionDenied):
        state.save_journal(JOURNAL)
    assert os.listdir(tmp_path / "elsewhere") == []


@pytest.mark.parametrize("name", ["lock", "journal.json.new"])
def test_links_inside_are_not_followed(state: StateDirectory, tmp_path: Path, name: str) -> None:
    state.ensure()
    victim = tmp_path / "victim"
    victim.write_text("precious")
    os.symlink(victim, f"{state.path}/{name}")
    with pytest.raises(OSError), state.lock(0.1, lambda text: None):
        state.save_journal(JOURNAL)
    assert victim.read_text() == "precious"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"null",
        b'{"version": 2}',
        b'{"version": 1}',
        b'{"version": 1, "command": "bind", "before": [], "nodes": {}, "dynamic_ids": [], "homes": {}}',
        b'{"version": 1, "command": "bind", "before": {"a": {}}, "nodes": {}, "dynamic_ids": [], "homes": {}}',
        b'{"version": 1, "command": "bind", "before": {}, "nodes": {"a": 1}, "dynamic_ids": [], "homes": {}}',
        journal_text(before={"pci/../..": {"driver": None, "driver_override": None}}),
        journal_text(before={"pci/0000:00:02.0": {"driver": "../x", "driver_override": None}}),
        journal_text(nodes={"/etc/passwd": {"uid": 0, "gid": 0, "mode": 438}}),
        journal_text(nodes={"/dev/vfio/../sda": {"uid": 0, "gid": 0, "mode": 438}}),
        journal_text(dynamic_ids=[{"driver": "../x", "fields": "8086 10d3"}]),
        journal_text(dynamic_ids=[{"driver": "vfio-pci", "fields": "8086\n10d3"}]),
    ],
)
def test_a_journal_that_is_no_journal(state: StateDirectory, content: bytes) -> None:
    state.ensure()
    path = Path(state.path, "journal.json")
    path.write_bytes(content)
    with pytest.raises(VfioctlError) as caught:
        state.load_journal()
    assert caught.value.code == "journal-unreadable"
    assert caught.value.status is ExitStatus.GUARD
    assert str(path) in caught.value.message
    assert path.read_bytes() == content
    with pytest.raises(GuardRefusal):
        state.refuse_unfinished()


@pytest.mark.parametrize(
    "content", [b"{", b'{"version": 1, "homes": {"a": 1}}', b'{"version": 1, "homes": []}']
)
def test_homes_that_are_none(state: StateDirectory, content: bytes) -> None:
    state.ensure()
    Path(state.path, "homes.json").write_bytes(content)
    with pytest.raises(VfioctlError):
        state.homes()


def test_a_torn_write_leaves_the_old_journal(state: StateDirectory) -> None:
    state.save_journal(JOURNAL)
    Path(state.path, "journal.json.new").write_bytes(b'{"version": 1, "comm')
    assert state.load_journal() == JOURNAL
    state.save_journal(JOURNAL._replace(command="unbind"))
    found = state.load_journal()
    assert found is not None and found.command == "unbind"


def test_one_change_at_a_time(state: StateDirectory) -> None:
    ready, told = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with state.lock(1, lambda text: None):
                os.write(told, b"x")
                time.sleep(30)
        finally:
            os._exit(1)
    os.close(told)
    try:
        assert os.read(ready, 1) == b"x"
        said: list[str] = []
        with pytest.raises(Busy, match=f"process {child}") as caught, state.lock(0.2, said.append):
            pytest.fail("two at a time")
        assert caught.value.code == "locked"
        (text,) = said
        assert text.startswith(f"waiting for another vfioctl (process {child}: ") and "pytest" in text
        # The lock dies with its holder, however that dies.
        os.kill(child, signal.SIGKILL)
        with state.lock(5, said.append):
            pass
    finally:
        os.close(ready)
        os.waitpid(child, 0)


def test_a_full_disk_does_not_keep_the_lock_from_anybody(
    state: StateDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recovery needs no room, and who holds the lock is but a courtesy."""
    state.ensure()

    def full(*arguments: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    with state.lock(1, lambda text: None):
        pass
