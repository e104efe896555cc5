"""What the changing commands share on the command line."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from vfioctl.model import Device, IommuGroup, Snapshot
from vfioctl.policy.subjects import find_group

if TYPE_CHECKING:
    from vfioctl.cli.session import Session

F = TypeVar("F", bound=Callable[..., Any])


def wait_option(function: F) -> F:
    """Adds --wait: how long another vfioctl may take."""
    return click.option(
        "--wait",
        type=click.FloatRange(min=0, max=86400),
        metavar="SECONDS",
        help="How long to wait for another vfioctl that is changing devices.  [default: --timeout]",
    )(function)


def chosen(
    session: Session,
    snapshot: Snapshot,
    subjects: Iterable[str],
    whole: bool,
    members: Callable[[IommuGroup], Iterable[Device]],
) -> list[Device]:
    """The devices that the arguments stand for: a device for itself, and a group (or with ``whole`` that of a device)
    for its ``members``; each once, sorted by (group, address)."""
    from vfioctl.cli.arguments import resolve_all

    found: dict[str, Device] = {}
    for subject in resolve_all(session, snapshot, subjects):
        if isinstance(subject, Device):
            found[subject.key] = subject
        if isinstance(subject, IommuGroup) or (whole and subject.group is not None):
            group = subject if isinstance(subject, IommuGroup) else find_group(snapshot, subject.group or 0)
            found.update((device.key, device) for device in members(group))
    return sorted(
        found.values(), key=lambda device: (-1 if device.group is None else device.group, device.key)
    )
