"""Processes that hold a node of a device other than VFIO's: its driver waits for them, or they lose what they do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from vfioctl.errors import visible
from vfioctl.host.holders import VFIO_KINDS, Found, Holder
from vfioctl.model import Use

#: They have the graphics and input devices of every session open, or look at whatever appears, and let go of what goes.
_ONLOOKERS = frozenset(
    {"systemd-logind", "elogind", "elogind-daemon", "systemd-udevd", "(udev-worker)", "udevd"}
)


class Held:
    """The uses that processes make of some devices; ``found`` is one look at all processes."""

    def __init__(self, found: Found) -> None:
        self._unseen = found.unseen
        self._of: dict[str, list[Holder]] = {}
        for holder in found.holders:
            if holder.kind not in VFIO_KINDS:
                self._of.setdefault(holder.key, []).append(holder)

    def uses(self, key: str) -> Iterator[Use]:
        """The uses of one device."""
        for who, holders in _by_process(self._of.get(key, ())).items():
            nodes = ", ".join(holder.node or "" for holder in holders)
            onlooker = all(holder.uid == 0 and holder.command in _ONLOOKERS for holder in holders)
            yield Use("held", visible(f"{who} has {nodes} open"), refuses=not onlooker)
        if self._unseen is None:
            yield Use("unseen", "the processes of other users are hidden", refuses=False)
        elif self._unseen:
            yield Use("unseen", f"{self._unseen} processes could not be looked into", refuses=False)


def _by_process(holders: Iterable[Holder]) -> dict[str, list[Holder]]:
    found: dict[str, list[Holder]] = {}
    for holder in holders:
        found.setdefault(str(holder), []).append(holder)
    return found
