"""Work that a child does: its answer, its errno, its deadline, and what is left of it."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vfioctl.host import bounded, locked
from vfioctl.host.locked import LOCKED
from vfioctl.host.machine import Machine


def _all_children() -> set[int]:
    return {int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}


#: What other tests have left behind.
_others: set[int] = set()


@pytest.fixture(autouse=True)
def _others_are_known() -> None:
    _others.clear()
    _others.update(_all_children())


def children() -> set[int]:
    """Those of this test that are there, or have not been waited for."""
    return _all_children() - _others


@pytest.fixture
def fifo(tmp_path: Path) -> str:
    """A file whose opening blocks."""
    path = str(tmp_path / "fifo")
    os.mkfifo(path)
    return path


def test_what_is_returned() -> None:
    answer = {"pid": 1, "names": ["a", "\udcff", None], "data": b"\0" * 100_000, "set": {(1, 2)}}
    assert bounded.call(lambda: answer, 10) == answer
    assert bounded.call(lambda: None, 10) is None
    assert children() == set()


def test_an_errno_comes_with_its_file() -> None:
    def refuse() -> None:
        raise OSError(errno.EBUSY, "busy", "/dev/vfio/1")

    with pytest.raises(OSError) as caught:
        bounded.call(refuse, 10)
    assert (caught.value.errno, caught.value.filename) == (errno.EBUSY, "/dev/vfio/1")
    assert children() == set()


def test_a_bug_in_the_work_is_no_answer() -> None:
    with pytest.raises(OSError, match="died"):
        bounded.call(lambda: 1 // 0, 10)


def test_the_deadline_of_a_reader(fifo: str) -> None:
    began = time.monotonic()
    with pytest.raises(bounded.Expired) as caught:
        bounded.call(lambda: os.open(fifo, os.O_RDONLY), 0.3)
    assert 0.3 <= time.monotonic() - began < 20
    place = caught.value.place
    assert place.state == "S" and str(place).startswith(f"process {place.pid} in state S")
    assert not os.path.exists(f"/proc/{place.pid}")
    assert children() == set()


def test_one_that_is_left(fifo: str) -> None:
    with pytest.raises(bounded.Expired) as caught:
        bounded.call(lambda: os.open(fifo, os.O_WRONLY), 0.2, leave=True)
    assert children() == {caught.value.place.pid}
    os.close(os.open(fifo, os.O_RDONLY))
    os.waitpid(caught.value.place.pid, 0)


def test_its_streams_and_group_are_its_own() -> None:
    targets = bounded.call(lambda: [os.readlink(f"/proc/self/fd/{fd}") for fd in (0, 1, 2)], 10)
    assert targets == [os.devnull] * 3
    assert bounded.call(lambda: os.getpgid(0) == os.getpid(), 10)


def test_a_process_that_is_not_there() -> None:
    assert bounded.place_of(2**22 + 1) == bounded.Place(2**22 + 1)


def test_words_of_a_place() -> None:
    place = bounded.Place(7, "D", "vfio_unregister_group_dev", ("schedule", "vfio_unregister_group_dev"))
    assert str(place) == (
        "process 7 in state D waits in vfio_unregister_group_dev (schedule < vfio_unregister_group_dev)"
    )
    assert str(bounded.Place(7)) == "process 7"


def test_files_that_take_a_lock(tmp_path: Path, fifo: str) -> None:
    """Each one that does not answer is said so, and those after it are read."""
    (tmp_path / "one").write_text("vfio-pci\n")
    (tmp_path / "empty").write_text("\n")
    paths = [str(tmp_path / name) for name in ("one", "fifo", "none", "fifo", "empty", "one")]
    assert locked.read_all(paths, 0.3) == ["vfio-pci", LOCKED, None, LOCKED, "", "vfio-pci"]
    assert locked.read_all([fifo], 0.1) == [LOCKED]
    assert locked.read_all([]) == []
    assert children() == set()


def test_many_files_are_one_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "one").write_text("x" * 100)
    real, forks = bounded.start, 0

    def counted(work: object) -> tuple[int, int]:
        nonlocal forks
        forks += 1
        return real(work)  # type: ignore[arg-type]

    monkeypatch.setattr(bounded, "start", counted)
    assert locked.read_all([str(tmp_path / "one")] * 3000) == ["x" * 100] * 3000
    assert forks == 1


def test_a_signal_in_the_child_does_not_send_it_through_its_parents_code() -> None:
    """As Ctrl-C does, which is for the whole process group, until the child has left it."""
    script = """
import os, signal
from vfioctl.host import bounded
fork = os.fork
def interrupted_fork():
    child = fork()
    if child == 0:
        signal.raise_signal(signal.SIGINT)
    return child
os.fork = interrupted_fork
try:
    print(bounded.call(lambda: 7, 10), flush=True)
except KeyboardInterrupt:
    print("escaped", os.getpid(), flush=True)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.stdout == "7\n", done.stderr


def test_a_group_whose_lock_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its opening waits: whoever has the lock for that long uses the group."""
    node = tmp_path / "26"
    node.touch()
    machine = Machine(timeout=0.3)
    machine.root = str(tmp_path)
    assert not machine.is_held("/26") and not machine.is_held("/27")
    real = os.open

    def waiting(path: object, *arguments: object, **named: object) -> int:
        if path == str(node):
            time.sleep(30)
        return real(path, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", waiting)
    assert machine.is_held("/26")
    assert children() == set()
