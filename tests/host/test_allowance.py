"""Whose limit of locked memory: processes, users and units of this host, and of a tree."""

from __future__ import annotations

import os
import resource
import subprocess
from pathlib import Path

import pytest

from tests.fakes.tree import Tree
from vfioctl.errors import NotFound
from vfioctl.host.memory import allowance
from vfioctl.model import LockLimit, Login


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(str(tmp_path))


def test_the_caller() -> None:
    mine = allowance.of_caller()
    soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    assert (mine.soft, mine.hard) == tuple(None if n == resource.RLIM_INFINITY else n for n in (soft, hard))
    assert mine.value.startswith("Max locked memory ")


def test_a_process() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        try:
            resource.prlimit(process.pid, resource.RLIMIT_MEMLOCK, (4096, 8192))
            found = allowance.of_process("/", process.pid)
            assert (found.who, found.soft, found.hard) == (f"process {process.pid}", 4096, 8192)
            assert found.value == "Max locked memory 4096 8192 bytes"
        finally:
            process.kill()
    with pytest.raises(NotFound):
        allowance.of_process("/", process.pid)


def test_a_process_of_a_tree(tree: Tree) -> None:
    tree.put(
        "/proc/7/limits", "Limit Soft Hard Units\nMax locked memory         8388608    unlimited    bytes\n"
    )
    status = "Name:\tqemu\nUid:\t64055\t64055\t64055\t64055\nVmLck:\t    1024 kB\nCapEff:\t{:016x}\n"
    tree.put("/proc/7/status", status.format(0))
    assert allowance.of_process(tree.root, 7) == LockLimit(
        "process 7",
        8 << 20,
        None,
        "/proc/7/limits",
        "Max locked memory 8388608 unlimited bytes",
        1 << 20,
        False,
    )
    tree.put("/proc/7/status", status.format(1 << 14))
    assert allowance.of_process(tree.root, 7).exempt


def test_a_user() -> None:
    root = allowance.login_of("/", "root")
    assert (root.name, root.uid, root.groups[0]) == ("root", 0, ("root", 0))
    assert allowance.login_of("/", "0") == root
    with pytest.raises(NotFound):
        allowance.login_of("/", "no-such-user")


def test_a_user_of_a_tree(tree: Tree) -> None:
    tree.put("/etc/passwd", "root:x:0:0::/root:/bin/sh\nbroken\nalice:x:1000:100::/:/bin/sh\n")
    tree.put("/etc/group", "kvm:x:104:bob,alice\nusers:x:100:\nother:x:7:bob\n")
    expected = Login("alice", 1000, (("users", 100), ("kvm", 104)))
    assert allowance.login_of(tree.root, "alice") == allowance.login_of(tree.root, "1000") == expected
    with pytest.raises(NotFound):
        allowance.login_of(tree.root, "bob")


def test_files_of_a_unit(tree: Tree) -> None:
    for path in (
        "/usr/lib/systemd/system/vm@.service",
        "/etc/systemd/system/vm@win.service.d/20.conf",
        "/usr/lib/systemd/system/vm@.service.d/10.conf",
        "/usr/lib/systemd/system/service.d/10.conf",
        "/etc/systemd/system/service.d/30.conf",
        "/etc/systemd/system/service.d/30.conf.bak",
        "/etc/systemd/system.conf",
        "/usr/lib/systemd/system.conf",
        "/etc/systemd/system.conf.d/a.conf",
    ):
        tree.put(path, "[Service]\n")
    assert allowance.unit_files(tree.root, "vm@win.service") == [
        "/usr/lib/systemd/system/vm@.service",
        "/usr/lib/systemd/system/vm@.service.d/10.conf",
        "/etc/systemd/system/vm@win.service.d/20.conf",
        "/etc/systemd/system/service.d/30.conf",
    ]
    assert allowance.manager_files(tree.root) == [
        "/etc/systemd/system.conf",
        "/etc/systemd/system.conf.d/a.conf",
    ]
    tree.put("/etc/systemd/system/a-b-c.service", "")
    tree.put("/etc/systemd/system/a-.service.d/x.conf", "")
    tree.put("/etc/systemd/system/a-b-.service.d/y.conf", "")
    names = [path.rpartition("/")[2] for path in allowance.unit_files(tree.root, "a-b-c.service")]
    assert names == ["a-b-c.service", "10.conf", "30.conf", "x.conf", "y.conf"]
    with pytest.raises(NotFound):
        allowance.unit_files(tree.root, "other.service")
    os.symlink("/usr/lib/systemd/system/real.service", tree.at("/etc/systemd/system/alias.service"))
    tree.put("/etc/systemd/system/real.service.d/z.conf", "")
    assert allowance.unit_files(tree.root, "alias.service")[-1].endswith("/real.service.d/z.conf")
    os.symlink("/dev/null", tree.at("/etc/systemd/system/masked.service"))
    with pytest.raises(NotFound, match="masked"):
        allowance.unit_files(tree.root, "masked.service")


def test_what_a_login_inherits(tree: Tree) -> None:
    alice = Login("alice", 1000, ())
    assert "no process 1" in str(allowance.inherited(tree.root, alice))
    tree.put("/proc/1/limits", "Max locked memory         8388608              8388608              bytes\n")
    tree.put("/proc/1/status", "Uid:\t0\t0\t0\t0\nVmLck:\t4 kB\nCapEff:\tffffffff\n")
    found = allowance.inherited(tree.root, alice)
    assert isinstance(found, LockLimit)
    assert (found.who, found.soft, found.charged, found.exempt) == ("user alice", 8 << 20, 0, False)
    root = allowance.inherited(tree.root, Login("root", 0, ()))
    assert isinstance(root, LockLimit) and root.exempt
