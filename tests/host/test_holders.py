"""Who holds a node: real processes with real nodes, and a survey of which some do not answer."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from vfioctl.host.holders import DeviceNode, Holder, being_unbound, holders_of_node, scan
from vfioctl.host.survey import survey

KEY = "pci/0000:01:00.0"
FULL = DeviceNode("/dev/full", "mem", os.stat("/dev/full").st_rdev)
ZERO = DeviceNode("/dev/zero", "mem", os.stat("/dev/zero").st_rdev)


@contextmanager
def process(program: str) -> Iterator[int]:
    """A Python process that has run ``program`` and goes on until it is not needed any more."""
    body = f"import mmap, os, sys\n{program}\nprint(flush=True)\nsys.stdin.read()"
    running = subprocess.Popen(
        [sys.executable, "-I", "-c", body], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert running.stdout is not None
    running.stdout.readline()
    try:
        yield running.pid
    finally:
        running.kill()
        running.communicate()


def holding(*nodes: DeviceNode) -> list[tuple[int, str | None, bool]]:
    """Process, node and certainty of the holders that are children of this process."""
    found = scan({KEY: nodes}, 30).holders
    return [(h.pid, h.node, h.certain) for h in found if h.pid and _parent(h.pid) == os.getpid()]


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_an_open_node() -> None:
    with process("f = open('/dev/full')") as pid:
        assert holding(FULL, ZERO) == [(pid, "/dev/full", True)]
        (found,) = [h for h in scan({KEY: [FULL]}, 30).holders if h.pid == pid]
        assert (found.key, found.kind, found.uid, found.command) == (
            KEY, "mem", os.geteuid(), Path(f"/proc/{pid}/comm").read_text().strip(),
        )  # fmt: skip


def test_a_node_of_another_name(tmp_path: Path) -> None:
    """Its number tells, not its name: containers have nodes of their own."""
    other = DeviceNode("/dev/vfio/26", "vfio", FULL.number)
    with process("f = open('/dev/full')") as pid:
        assert holding(other) == [(pid, "/dev/vfio/26", True)]
        assert [h.pid for h in holders_of_node("/dev/full") if h.pid == pid] == [pid]
        assert holders_of_node("/dev/no-such-node") == []
    with process(f"f = open({str(tmp_path / 'full')!r}, 'w')"):
        assert holding(FULL) == []


def test_a_block_device_of_that_number() -> None:
    with process("f = open('/dev/full')"):
        assert holding(FULL._replace(is_block=True)) == []


def test_a_mapping_alone() -> None:
    opening = "f = open('/dev/zero', 'r+b', buffering=0)"
    program = f"{opening}; m = mmap.mmap(f.fileno(), 4096, mmap.MAP_PRIVATE); os.closerange(3, 99)"
    with process(program) as pid:
        fds = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
        assert "/dev/zero" not in fds
        assert holding(ZERO) == [(pid, "/dev/zero", True)]


def test_several_processes_devices_and_nodes() -> None:
    with ExitStack() as stack:
        first = stack.enter_context(process("f = open('/dev/full'); g = open('/dev/full')"))
        second = stack.enter_context(process("f = open('/dev/full'); g = open('/dev/zero')"))
        found = scan({KEY: [FULL, ZERO], "pci/x": [ZERO]}, 30).holders
        mine = [(h.address, h.pid, h.node) for h in found if h.pid in (first, second)]
        assert mine == [
            *sorted([("0000:01:00.0", first, "/dev/full"), ("0000:01:00.0", second, "/dev/full"),
                     ("0000:01:00.0", second, "/dev/zero")], key=lambda row: row[1:]),
            ("x", second, "/dev/zero"),
        ]  # fmt: skip


def test_not_the_one_who_asks() -> None:
    with open("/dev/full", encoding="ascii"):
        assert os.getpid() not in [h.pid for h in scan({KEY: [FULL]}, 30).holders]


def test_words() -> None:
    holder = Holder(4711, "qemu-system-x86", 64055)
    assert str(holder) == "qemu-system-x86 (process 4711, uid 64055)"
    holder = holder._replace(
        user="libvirt-qemu",
        unit=r"machine-qemu\x2d1\x2dwin.scope",
        container="vm:win",
        node="/dev/vfio/26",
        kind="vfio",
    )
    words = r"qemu-system-x86 (process 4711, user libvirt-qemu, unit machine-qemu\x2d1\x2dwin.scope, VM win)"
    assert str(holder) == words
    assert holder.sentence == f"{words} has /dev/vfio/26 open"
    unsure = Holder(1, "a", 0, False, container="lxc:web", address="0000:01:00.0")
    assert (
        unsure.sentence
        == "perhaps a (process 1, uid 0, container lxc:web) has the VFIO device 0000:01:00.0 open"
    )


def test_words_without_a_process() -> None:
    up = Holder(None, None, None, what="eth0 is up with the address 192.0.2.1", kind="net")
    assert str(up) == up.sentence == "eth0 is up with the address 192.0.2.1"


def test_the_error_has_the_holders_in_its_details() -> None:
    error = being_unbound("0000:01:00.0", [Holder(7, "a", 0), Holder(7, "a", 0, node="/dev/vfio/1")])
    assert error.message.count("process 7") == 1
    assert error.details is not None
    assert [h["node"] for h in error.details["holders"]] == [None, "/dev/vfio/1"]


# --- survey ----------------------------------------------------------------------------------------


def test_a_survey_of_all() -> None:
    assert survey(lambda n: (n, [str(n)]), list(range(5000)), 30) == (
        [(n, (n, [str(n)])) for n in range(5000)],
        [],
    )
    assert survey(str, [], 30) == ([], [])


def test_one_that_does_not_answer_hides_no_other() -> None:
    """One that waits for ever, and one whose question dies."""

    def ask(n: int) -> int:
        if n == 3:
            time.sleep(1000)
        if n == 5:
            os._exit(1)
        return n

    answers, silent = survey(ask, list(range(8)), 1.0, 60.0)
    assert [n for n, _ in answers] == [0, 1, 2, 4, 6, 7]
    assert silent == [3, 5]


def test_a_survey_ends_in_time() -> None:
    began = time.monotonic()
    answers, silent = survey(lambda n: time.sleep(1000), list(range(100)), 0.05, 0.5)
    assert time.monotonic() - began < 20
    assert (answers, silent) == ([], list(range(100)))


def test_a_process_that_ends_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    from vfioctl.host.holders import processes as module

    mapped = module._mapped
    with process("f = open('/dev/full')") as pid:

        def and_end(other: int) -> object:
            if other == pid:
                os.kill(pid, 9)
                while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                    time.sleep(0.01)
            return mapped(other)

        monkeypatch.setattr(module, "_mapped", and_end)
        assert holding(FULL) == []
        assert Path(f"/proc/{pid}/stat").exists()
