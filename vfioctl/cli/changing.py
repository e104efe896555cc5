"""What the changing commands share on the command line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from vfioctl.cli import messages
from vfioctl.cli.arguments import driver_name
from vfioctl.errors import UsageError
from vfioctl.model import Device, IommuGroup, Snapshot
from vfioctl.policy.buses import shares_of
from vfioctl.policy.guards import ALLOWABLE_GUARDS
from vfioctl.policy.subjects import find_group, named_on_bus

if TYPE_CHECKING:
    from vfioctl.cli.session import Session
    from vfioctl.ops.assign import Plan
    from vfioctl.ops.bind import BindOptions

F = TypeVar("F", bound=Callable[..., Any])


def _seconds(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    if value != value:  # nan is in every range, and no deadline
        raise UsageError(f"{param.opts[0]}: nan is no number of seconds")
    return value


def allow_option(guards: Sequence[str]) -> Callable[[F], F]:
    """Adds --allow: which of the ``guards`` may be passed."""
    return click.option(
        "--allow",
        type=click.Choice(guards),
        metavar="GUARD",
        multiple=True,
        help="Pass exactly this guard; repeatable. vfioctl impact names those that stand in the way.",
    )


def dry_run_option(function: F) -> F:
    """Adds --dry-run."""
    return click.option(
        "--dry-run",
        is_flag=True,
        help="Print the writes as shell lines, and what the host would lose as comments, and change nothing; exit "
        "status 5 when a guard would refuse.",
    )(function)


def wait_option(function: F) -> F:
    """Adds --wait: how long another vfioctl may take."""
    return click.option(
        "--wait",
        callback=_seconds,
        type=click.FloatRange(min=0, max=86400),
        metavar="SECONDS",
        help="How long to wait for another vfioctl that is changing devices.  [default: --timeout]",
    )(function)


def binding_options(function: F) -> F:
    """Adds --group, --driver and --allow: what is bound, and to what."""
    function = allow_option(ALLOWABLE_GUARDS)(function)
    function = click.option(
        "--driver",
        callback=driver_name,
        metavar="NAME",
        help="The VFIO driver; default: that of the device's bus (vfio-pci). auto: the most specific one that this "
        "kernel has for the device (a variant driver, which can migrate it), or else the default.",
    )(function)
    return click.option(
        "--group", "whole", is_flag=True, help="Take every member of the groups that needs it."
    )(function)


def bind_planner(
    session: Session,
    subjects: Sequence[str],
    whole: bool,
    options: BindOptions,
    choices: list[str],
    *,
    dry_run: bool = False,
) -> Callable[[], Plan]:
    """What plans the bind of the arguments from what is there when it is called; why which driver was chosen goes into
    ``choices``."""
    from vfioctl.ops.bind import plan_bind, whole_group
    from vfioctl.ops.drivers import AUTO, prepare

    machine = session.machine
    machine.named = named_on_bus(subjects)

    def look() -> tuple[list[Device], Plan]:
        snapshot = machine.snapshot()
        bridges: dict[str, Device] = {}

        def members(group: IommuGroup) -> list[Device]:
            endpoints, blocking = whole_group(snapshot, group)
            bridges.update((bridge.key, bridge) for bridge in blocking)
            return endpoints

        endpoints = chosen(session, snapshot, subjects, whole, members)
        return endpoints, plan_bind(machine, snapshot, endpoints, list(bridges.values()), options)

    def plan() -> Plan:
        endpoints, planned = look()
        for device in endpoints:
            for warning in shares_of(device, machine.offers(device.key)):
                messages.warn(warning)
        if options.driver != AUTO:
            return planned
        if not dry_run:
            planned.refuse_in_use()  # before a variant's module is loaded
        choices[:] = prepare(machine, endpoints, dry_run=dry_run, tell=session.tell)
        for choice in () if dry_run else choices:
            messages.note(choice)
        # Again, for now the drivers' names are known, and a module that was loaded may have taken devices.
        return look()[1]

    return plan


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
