"""A process that holds a device, and the words for it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from vfioctl.errors import Busy
from vfioctl.model import shown

#: How the processes that keep vfioctl's containers call themselves, followed by the container's name, as far as the
#: kernel's 15 bytes go.
_KEEPER = "vfioctl:"

#: Kinds of holds on a device through VFIO: its group's node, its cdev, the file that either gives.
VFIO_KINDS = frozenset({"vfio", "vfio-dev", "vfio-device"})


def keep_under(name: str) -> None:
    """Has this process called the keeper of that container: what ps, and whoever finds a device held, sees."""
    with suppress(OSError), open("/proc/self/comm", "w", encoding="ascii") as comm:
        comm.write(f"{_KEEPER}{name}"[:15])


class Holder(NamedTuple):
    """A process and the node that it holds. ``node`` is None for a VFIO device whose group has been opened and closed
    again; not ``certain``: the process holds some VFIO device, perhaps this one. All text is fit to be shown.

    What holds a device without a process says so in ``what``; it has no pid, command or uid."""

    pid: int | None
    command: str | None
    uid: int | None
    certain: bool = True
    user: str | None = None
    unit: str | None = None
    container: str | None = None
    bus: str = "pci"
    address: str = ""
    node: str | None = None
    kind: str = "vfio-device"
    what: str | None = None

    def __str__(self) -> str:
        if self.what is not None:
            return self.what
        facts = [f"process {self.pid}", f"user {self.user}" if self.user else f"uid {self.uid}"]
        if self.unit:
            facts.append(f"unit {self.unit}")
        if self.container:
            kind, _, name = self.container.partition(":")
            facts.append(f"VM {name}" if kind == "vm" else f"container {self.container}")
        return f"{'' if self.certain else 'perhaps '}{self.command} ({', '.join(facts)})"

    @property
    def key(self) -> str:
        """The device, as ``bus/address``."""
        return f"{self.bus}/{self.address}"

    @property
    def sentence(self) -> str:
        """Who holds what, as a sentence."""
        if self.what is not None:
            return self.what
        return f"{self} has {self.node or f'the VFIO device {shown(self.key)}'} open"


class Found(NamedTuple):
    """An answer: the holders by device, process and node, and how many processes could not be looked into; None for
    that when /proc does not even show other users' processes (hidepid)."""

    holders: tuple[Holder, ...] = ()
    unseen: int | None = 0


def how_to_end(found: Sequence[Holder]) -> str:
    """What makes holders let go."""
    keeper = next((holder for holder in found if (holder.command or "").startswith(_KEEPER)), None)
    if keeper is None:
        return "end that process"
    who = keeper.user or f"uid {keeper.uid}"
    return f"close that container, as {who}: vfioctl container list; vfioctl container close NAME"


def details(found: Sequence[Holder]) -> dict[str, Any]:
    """The holders as an error carries them."""
    return {"holders": [holder._asdict() for holder in found]}


def being_unbound(address: str, found: Sequence[Holder]) -> Busy:
    """The error for a device whose VFIO driver the kernel is taking away, as soon as its user lets go of it."""
    who = ", ".join(dict.fromkeys(map(str, found)))
    return Busy(
        f"{address} is being taken from its VFIO driver, and the kernel waits for its user"
        + (f": {who}" if who else ""),
        hint=f"{how_to_end(found)}; the kernel then goes on by itself",
        subject=address,
        code="being-unbound",
        details=details(found),
    )


def being_changed(address: str) -> Busy:
    """The error for a device whose lock the kernel holds: nothing can be asked of it, and nothing done to it."""
    return Busy(
        f"the kernel is at work on {address} and does not answer: a driver is being bound, unbound or reset, or its "
        "virtual functions are being made or taken away",
        hint="see who waits for it (ps -eo pid,stat,wchan:32,args | grep ' D'), and in the kernel log; then try again",
        subject=address,
        code="being-changed",
    )
