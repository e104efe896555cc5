"""vfioctl unbind"""

from __future__ import annotations

import click

from vfioctl.cli import assigned, messages
from vfioctl.cli.arguments import SUBJECT, driver_name, resolve_all
from vfioctl.cli.output import Output, output_options
from vfioctl.cli.session import Session
from vfioctl.errors import UsageError
from vfioctl.model import KERNELS_CHOICE, Device, IommuGroup, Snapshot, shown
from vfioctl.policy.guards import IN_USE_GUARDS
from vfioctl.policy.selection import members_to_release
from vfioctl.policy.subjects import find_group


@click.command(
    "unbind",
    epilog="""\b
Examples:
  vfioctl unbind 0000:01:00.0
  vfioctl unbind 26
  vfioctl unbind 0000:01:00.0 --to e1000e
  vfioctl unbind 0000:05:00.0 --leave-unbound

\b
Exit status:
  0 given back (also when it was before), 4 not root, 5 refused by a guard, 6 somebody holds it,
  8 failed and put back, 9 failed and not all put back, 124 the kernel did not answer in time.""",
)
@click.argument("subjects", metavar="GROUP|DEVICE...", nargs=-1, required=True, type=SUBJECT)
@click.option(
    "--group", "whole", is_flag=True, help="Give back every member on a VFIO driver, or that vfioctl took."
)
@click.option("--to", callback=driver_name, metavar="DRIVER", help="To this driver.")
@click.option(
    "--leave-unbound", is_flag=True, help="To no driver; takes a device from its host driver as well."
)
@click.option(
    "--allow",
    type=click.Choice(IN_USE_GUARDS),
    multiple=True,
    help="Pass exactly this guard; repeatable.",
)
@click.option("--dry-run", is_flag=True, help="Print the writes as shell lines, and make none.")
@output_options(assigned.COLUMNS, assigned.DEFAULT)
@click.pass_obj
def command(
    session: Session,
    subjects: tuple[str, ...],
    whole: bool,
    to: str | None,
    leave_unbound: bool,
    allow: tuple[str, ...],
    dry_run: bool,
    output: Output,
) -> None:
    """Give devices back to the host: all of them or none.

    Each goes to the driver that it had when vfioctl took it, with the driver_override of then; without such a record,
    to the driver that the kernel picks. A GROUP stands for its members on a VFIO driver and those that vfioctl took.
    A group that somebody holds is refused, for the kernel would wait for the holder without limit.
    """
    from vfioctl.ops.assign import carry_out
    from vfioctl.ops.unbind import plan_unbind

    if to is not None and leave_unbound:
        raise UsageError("--to and --leave-unbound exclude each other")
    machine = session.machine
    snapshot = machine.snapshot()
    devices = _select(session, snapshot, subjects, whole, set(machine.state.homes()))
    planned = plan_unbind(machine, snapshot, devices, to, leave_unbound, frozenset(allow))
    if dry_run:
        assigned.print_dry_run(session, output, planned)
        return
    done = carry_out(machine, planned, None, session.tell)
    assigned.report(session, output, planned, done)
    for key, goal in planned.request.bindings.items():
        if goal.driver is KERNELS_CHOICE and done.outcome.after.bindings[key].driver is None:
            messages.note(f"{shown(key)} has no driver now: no host driver claims it")


def _select(
    session: Session, snapshot: Snapshot, subjects: tuple[str, ...], whole: bool, recorded: set[str]
) -> list[Device]:
    devices: dict[str, Device] = {}
    for found in resolve_all(session, snapshot, subjects):
        if isinstance(found, Device):
            devices.setdefault(found.key, found)
        if isinstance(found, IommuGroup) or (whole and found.group is not None):
            group = found if isinstance(found, IommuGroup) else find_group(snapshot, found.group or 0)
            devices.update((d.key, d) for d in members_to_release(group, recorded))
    return list(devices.values())
