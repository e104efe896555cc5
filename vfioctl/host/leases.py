"""Devices that a living ``vfioctl run`` has lent to its command, each with the journal of its bind.

A lease is that journal, renamed to ``runs/PID-STARTED.json`` when the bind is done: so at every instant there is one of
the two, and it needs no room on the disk. Pid and start time (/proc/PID/stat, field 22) together name one process of
this boot: a lease whose process is gone is an unfinished change.
"""

from __future__ import annotations

import contextlib
import os
import re
from typing import NamedTuple

from vfioctl.host.files import names, read
from vfioctl.host.journal import Journal
from vfioctl.host.state import StateDirectory


class Owner(NamedTuple):
    """A process: its pid, and when it started (clock ticks since the boot)."""

    pid: int
    started: int


class Lease(NamedTuple):
    """What ``owner`` has to give back, and the name of the record."""

    owner: Owner
    journal: Journal
    name: str


class Leases:
    """The records below the state directory, which is root's alone."""

    def __init__(self, state: StateDirectory) -> None:
        self.state = state

    def lend(self) -> None:
        """Makes the journal of the change that is done a lease of this process. Raises OSError."""
        with contextlib.suppress(FileExistsError):
            os.mkdir(os.path.join(self.state.path, "runs"), 0o700)
        self.state.move("journal.json", _name(self.me()))

    def all(self) -> list[Lease]:
        """Every lease, by pid. Raises VfioctlError when one cannot be understood."""
        found = []
        for name in names(os.path.join(self.state.path, "runs")):
            match = re.fullmatch(r"([0-9]+)-([0-9]+)\.json", name)
            journal = self.state.load_journal(f"runs/{name}") if match else None
            if match and journal:  # it may have been given back since
                found.append(Lease(Owner(int(match[1]), int(match[2])), journal, f"runs/{name}"))
        return sorted(found)

    def mine(self) -> Lease | None:
        """What this process has to give back."""
        me = self.me()
        name = _name(me)
        journal = self.state.load_journal(name)  # whatever the others look like
        return Lease(me, journal, name) if journal else None

    def end(self, lease: Lease) -> None:
        """All of it is given back."""
        self.state.clear_journal(lease.name)

    def me(self) -> Owner:
        """This process."""
        return Owner(os.getpid(), _started(os.getpid()) or 0)

    def is_alive(self, owner: Owner) -> bool:
        """Whether the process still runs."""
        return _started(owner.pid) == owner.started


def _name(owner: Owner) -> str:
    return f"runs/{owner.pid}-{owner.started}.json"


def _started(pid: int) -> int | None:
    """When a process started; None when it is gone, or has ended and its parent has not asked yet."""
    with contextlib.suppress(ProcessLookupError):  # it may end while it is being read
        fields = (read(f"/proc/{pid}/stat") or "").rpartition(")")[2].split()
        if fields and fields[0] not in ("Z", "X"):
            return int(fields[19])
    return None
