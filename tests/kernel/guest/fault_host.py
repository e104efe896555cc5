"""One command on the real kernel, run again and again from the same state, each time with another fault."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.kernel.guest.conftest import Vfioctl
from tests.kernel.guest.sysfs import PCI, driver_of, override_of
from tests.kernel.testbed.inject import Call, Fault, Traced, calls, with_faults

STATE = Path("/run/vfioctl")
SAVED = Path("/run/vfioctl.before")
INTERRUPTED = Path("/run/vfioctl.interrupted")
JOURNAL = STATE / "journal.json"
DRIVERS = Path("/sys/bus/pci/drivers")
NIC_ID = "8086 10d3"

#: Calls that only the command itself makes: they change something of its own, start the writer of a kernel file, or
#: wait for it.
FORKS = ("clone", "clone3", "fork", "vfork")
#: Waiting for a child's answer, and for its end: how often depends on timing.
POLLS = ("pselect6", "select", "poll", "ppoll")
ENDS = ("wait4", "waitid")
OWN = (
    *FORKS,
    *POLLS,
    *ENDS,
    *("fsync", "fdatasync", "rename", "renameat", "renameat2", "unlink", "unlinkat", "mkdir", "mkdirat"),
    *("chown", "fchown", "lchown", "fchownat", "chmod", "fchmod", "fchmodat", "ftruncate", "pwrite64"),
    *("setxattr", "lsetxattr", "fsetxattr", "removexattr", "lremovexattr", "fremovexattr"),
    *("rt_sigprocmask", "exit_group"),
)
#: Calls that writers make as well, and readers: those count that touch vfioctl's own files, or device nodes.
SHARED = ("openat", "write")


class Picture(NamedTuple):
    """All that a change may change. ``known_id``: vfio-pci knows the network card's id."""

    bindings: Mapping[str, tuple[str | None, str | None]]
    nodes: Mapping[str, tuple[int, int, int]]
    homes: Any
    known_id: bool


class Scenario(NamedTuple):
    """``command`` after the commands of ``setup``."""

    name: str
    command: tuple[str, ...]
    setup: tuple[tuple[str, ...], ...] = ()


class Host:
    """The guest in the state before the scenario's command, as often as it is asked for."""

    def __init__(self, vfioctl: Vfioctl, scenario: Scenario) -> None:
        self.vfioctl = vfioctl
        self.scenario = scenario
        shutil.rmtree(STATE, ignore_errors=True)
        shutil.rmtree(SAVED, ignore_errors=True)
        self.first = picture()
        for arguments in scenario.setup:
            result = vfioctl(*arguments)
            assert result.status == 0, result.stderr
        self.before = picture()
        if STATE.exists():
            shutil.copytree(STATE, SAVED)
        result, self.calls = calls(scenario.command, (*OWN, *SHARED))
        assert result.status == 0, result.stderr
        self.after = picture()
        assert self.before != self.after
        self.reset()

    def reset(self) -> None:
        """Back to the state before, past all rules."""
        _forget_id()
        _bring_back(self.before)
        shutil.rmtree(STATE, ignore_errors=True)
        if SAVED.exists():
            shutil.copytree(SAVED, STATE)
        assert picture() == self.before

    def leave(self) -> None:
        """As it was before the setup."""
        _forget_id()
        _bring_back(self.first)
        for directory in (STATE, SAVED, INTERRUPTED):
            shutil.rmtree(directory, ignore_errors=True)

    def stay_interrupted(self, *faults: Fault) -> None:
        """From now on the state that a command leaves that was killed so; see interrupt."""
        self.strike(*faults)
        assert JOURNAL.exists(), f"{self.scenario.name}: {faults} left no journal"
        self.interrupted = picture()
        shutil.rmtree(INTERRUPTED, ignore_errors=True)
        shutil.copytree(STATE, INTERRUPTED)

    def interrupt(self) -> None:
        """Makes the state that stay_interrupted has seen, without vfioctl."""
        _bring_back(self.interrupted)
        shutil.rmtree(STATE, ignore_errors=True)
        shutil.copytree(INTERRUPTED, STATE)
        assert picture() == self.interrupted

    def recover(self, *faults: Fault) -> Traced:
        """``vfioctl recover`` with faults, which must happen."""
        traced = with_faults(("recover",), faults)
        self._must_have_met(traced, faults)
        return traced

    def strike(self, *faults: Fault) -> Traced:
        """Runs the command with faults; checks that they happen and that its status is true."""
        traced = with_faults(self.scenario.command, faults)
        self._must_have_met(traced, faults)
        status = traced.result.status
        now = picture()
        shown = f"{self.scenario.name}: {' and '.join(map(str, faults))}: status {status}"
        if status == 0 or "done, but" in traced.result.stderr:
            assert now == self.after, f"{shown}, but the goal is not reached"
            assert not JOURNAL.exists(), f"{shown}, and a journal"
        elif status in (9, 124):
            assert JOURNAL.exists() or now == self.before, f"{shown} without a journal"
        elif status in (3, 4, 5, 6, 7, 8):
            assert now == self.before, f"{shown}, but the state before is not back"
            assert not JOURNAL.exists(), f"{shown}, and a journal"
        else:
            assert status in (-9, -15, -2, -1, 130), f"{shown}: {traced.result.stderr}"
        return traced

    def _must_have_met(self, traced: Traced, faults: Sequence[Fault]) -> None:
        """Unless one of them was in waiting for a child: that may come sooner, or not at all."""
        if not any(fault.call in POLLS + ENDS for fault in faults):
            for fault in faults:
                assert traced.met(fault), f"{self.scenario.name}: no {fault}: {traced.result}"

    def settle(self, what: object, *, undone: bool = False) -> None:
        """``vfioctl recover`` must leave the state before when there is a journal; and without one it is the state
        before or, unless it was to be ``undone``, the state after."""
        if JOURNAL.exists():
            result = self.vfioctl("recover", "-J")
            assert result.status == 0, f"{self.scenario.name}: {what}: recover: {result}"
            assert result.json["changed"] is True, f"{self.scenario.name}: {what}: recover says nothing"
            assert picture() == self.before, f"{self.scenario.name}: {what}: not the state before"
            assert not JOURNAL.exists(), f"{self.scenario.name}: {what}: the journal stays"
        else:
            wanted = (self.before,) if undone else (self.before, self.after)
            assert picture() in wanted, f"{self.scenario.name}: {what}: another state"


def picture() -> Picture:
    """What is there now."""
    nodes = {}
    for path in Path("/dev/vfio").iterdir():
        status = path.stat()
        nodes[str(path)] = (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode))
    homes = {}
    with contextlib.suppress(FileNotFoundError):
        homes = json.loads((STATE / "homes.json").read_text())["homes"]
    devices = sorted(os.listdir(PCI))
    return Picture(
        {address: (driver_of(address), override_of(address)) for address in devices},
        nodes,
        homes,
        _forget_id(),
    )


def _forget_id() -> bool:
    """Whether vfio-pci knew the network card's id; the only way to find out takes the id away."""
    known = False
    with contextlib.suppress(OSError):
        while True:
            (DRIVERS / "vfio-pci" / "remove_id").write_text(NIC_ID)
            known = True
    return known


def _bring_back(wanted: Picture) -> None:
    for address, (driver, override) in wanted.bindings.items():
        current = driver_of(address)
        if (current, override_of(address)) != (driver, override):
            if current is not None and current != driver:
                (DRIVERS / current / "unbind").write_text(address)
            (PCI / address / "driver_override").write_text(f"{override or ''}\n")
            if driver is not None and current != driver:
                (DRIVERS / driver / "bind").write_text(address)
    for path, (uid, gid, mode) in wanted.nodes.items():
        os.chown(path, uid, gid)
        os.chmod(path, mode)


def instants(seen: Sequence[Call], *, after: int = -1, all: bool = False) -> Iterator[Fault]:
    """Every call of the command itself that changes something or waits for a change, as a fault that does nothing yet;
    of those ``after`` an index only.

    Left out is what differs in nothing from its neighbours: a call that fails without a fault, polls after the first of
    a row (the first is met while the child is at work), and unless ``all`` children that only read and what changes the
    mask of signals.
    """
    counts: dict[tuple[str, str | None], int] = {}
    writers = {call.pid for call in seen if _writes_sysfs(call)}
    polling, reading = False, False
    for index, call in enumerate(seen):
        if call.pid != seen[0].pid:
            continue
        path = call.path if call.name in SHARED else None
        count = counts[call.name, path] = counts.get((call.name, path), 0) + 1
        polled, polling = polling, call.name in POLLS
        if call.name not in POLLS + ENDS:
            reading = call.name in FORKS and call.result not in writers
        alien = call.name in SHARED and not (path or "").startswith((str(STATE), "/dev/vfio/"))
        same = reading or call.name == "rt_sigprocmask"
        idle = alien or (polled and polling) or call.result == -1
        if index > after and not idle and (all or not same):
            yield Fault(call.name, "", str(count), path)


def kernel_writes(seen: Sequence[Call]) -> list[str]:
    """The files of sysfs that the command's children write, each once, in order."""
    return list(dict.fromkeys(call.path for call in seen if _writes_sysfs(call) and call.path))


def _writes_sysfs(call: Call) -> bool:
    return call.name == "write" and (call.path or "").startswith("/sys/")
