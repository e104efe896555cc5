"""Looking again and again, whenever the kernel says that something has changed, and from time to time (floor 4)."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

from vfioctl.host.machine import Machine
from vfioctl.model import Snapshot
from vfioctl.policy.events import Event, concerning, differences, known
from vfioctl.policy.subjects import Name

#: Seconds between looks that no event asks for: of what makes none, where there are events and where there are not.
INTERVAL, INTERVAL_ALONE = 5.0, 1.0
#: Seconds after an event in which those that belong to it come.
SETTLING = 0.05
#: How many times as long as a look takes at least pass before the next that no event asks for.
_REST = 2


class Happened(NamedTuple):
    """An event, when it was seen (seconds since the epoch), and whether it stands for what was there at the start."""

    time: float
    initial: bool
    event: Event


def looks(
    machine: Machine,
    patience: float,
    *,
    interval: float | None = None,
    reader: int | None = None,
    tell: Callable[[str], None],
) -> Iterator[Snapshot]:
    """What is there now, and again when that may have changed; for the last time when ``patience`` seconds are over.

    A flood of events makes it look no more often than it can: what they say is in the next look. ``reader``: the
    descriptor of an output; BrokenPipeError is raised when nobody reads it any more.
    """
    gc.enable()  # it is off for commands that are short
    deadline = time.monotonic() + patience
    uevents = machine.uevents(reader)
    if uevents.failure is not None:
        tell(f"the kernel's events cannot be heard ({uevents.failure}): it is looked again from time to time")
    if interval is None:
        interval = INTERVAL if uevents.failure is None else INTERVAL_ALONE
    listening = False
    while True:
        began = time.monotonic()
        snapshot = machine.snapshot()
        if not listening:
            listening = True
            tell("+ listening: what happens from now on is seen")
        yield snapshot
        took = time.monotonic() - began
        left = deadline - time.monotonic()
        if left <= 0:
            return
        if uevents.wait(min(max(interval, _REST * took), left)):
            time.sleep(max(0.0, min(max(SETTLING, took), deadline - time.monotonic())))
            uevents.wait(0)


def follow(
    machine: Machine,
    names: Collection[Name],
    kinds: Collection[str],
    *,
    patience: float = math.inf,
    interval: float | None = None,
    initial: bool = False,
    reader: int | None = None,
    tell: Callable[[str], None],
) -> Iterator[Happened]:
    """The events of these kinds that concern what is named; with ``initial`` first those by which what is there now
    would have come."""
    before = None
    for found in looks(machine, patience, interval=interval, reader=reader, tell=tell):
        seen = time.time()
        first = before is None
        if before is None:
            before = found._replace(groups=(), devices=()) if initial else found
        after = known(before, found)
        for event in concerning(differences(before, after), names, before, after):
            if event.kind in kinds:
                yield Happened(seen, first, event)
        before = after
