"""What a doctor says, and what it is said of. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import NamedTuple

from vfioctl.model import Device, Evidence, IommuGroup, LockLimit, Platform, Readings, Snapshot, Use
from vfioctl.policy.viability import is_vfio_bound


class Severity(Enum):
    """An ERROR keeps assignment from working; with a WARNING it works, but is unsafe or will surprise; an INFO is worth
    knowing."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


class Finding(NamedTuple):
    """``subject``: the device, group, node or module that it is about; None for the host."""

    code: str
    severity: Severity
    subject: str | None
    detail: str
    evidence: tuple[Evidence, ...] = ()
    cure: str | None = None


class Check(NamedTuple):
    """What was looked at. ``detail``: what was seen, or why it could not be (then it is not ``known``)."""

    name: str
    subject: str | None
    detail: str
    findings: tuple[Finding, ...] = ()
    known: bool = True

    @property
    def verdict(self) -> str:
        """``finding``, ``unknown`` or ``ok``."""
        return "finding" if self.findings else "ok" if self.known else "unknown"


class Case(NamedTuple):
    """All that is known. ``asked``: the groups and devices to which the question is narrowed, none for the host;
    ``candidates``: the devices that are to be assigned or are already; ``uses`` of them by key; ``variants``: module of
    the VFIO driver made for a device, by key; ``lock``: whose limit of locked memory counts, or why it is not known;
    ``memory``: bytes to be pinned, as they were asked for."""

    snapshot: Snapshot
    platform: Platform
    readings: Readings
    asked: tuple[IommuGroup | Device, ...] = ()
    candidates: tuple[Device, ...] = ()
    uses: Mapping[str, tuple[Use, ...]] = {}
    variants: Mapping[str, str] = {}
    lock: LockLimit | str = "it was not asked for"
    memory: int | None = None

    @property
    def groups(self) -> list[IommuGroup]:
        """The groups that an IOMMU has made: those of no-IOMMU mode and of mediated devices are not."""
        return [
            group
            for group in self.snapshot.groups
            if not group.is_noiommu and any(device.bus != "mdev" for device in group.devices)
        ]

    @property
    def numbers(self) -> set[int | None]:
        """The groups that were asked for, and those of the devices that were."""
        return {s.id if isinstance(s, IommuGroup) else s.group for s in self.asked}

    def is_wanted(self, group: IommuGroup) -> bool:
        """Whether somebody wants to assign the group: a member has a VFIO driver, or it was asked for."""
        return group.id in self.numbers or any(map(is_vfio_bound, group.devices))

    def said(self, *paths: str) -> tuple[Evidence, ...]:
        """The text of the files that could be read, as evidence."""
        texts = ((path, self.readings.text(path)) for path in paths)
        return tuple(Evidence(path, text) for path, text in texts if text is not None)


CMDLINE = "/proc/cmdline"


def listed(names: Iterable[str], most: int = 8) -> str:
    """Names with commas between them, and how many more there are."""
    found = list(names)
    rest = f" and {len(found) - most} more" if len(found) > most else ""
    return ", ".join(found[:most]) + rest
