"""vfioctl unbind"""

from __future__ import annotations

import click

from vfioctl.cli import assigned, messages
from vfioctl.cli.arguments import SUBJECT, driver_name
from vfioctl.cli.changing import allow_option, chosen, dry_run_option, wait_option
from vfioctl.cli.output import Output, output_options
from vfioctl.cli.session import Session
from vfioctl.errors import UsageError
from vfioctl.model import KERNELS_CHOICE, shown
from vfioctl.policy.guards import IN_USE_GUARDS
from vfioctl.policy.selection import members_to_release
from vfioctl.policy.subjects import named_on_bus


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
  0 given back (also when it was before), 3 no such group or device, 4 not root, 5 refused by a guard, 6 somebody
  holds it, 7 the kernel refused the first step, 8 failed and put back, 9 failed and not all put back, 124 the
  kernel did not answer in time.""",
)
@click.argument("subjects", metavar="GROUP|DEVICE...", nargs=-1, required=True, type=SUBJECT)
@click.option(
    "--group", "whole", is_flag=True, help="Give back every member on a VFIO driver, or that vfioctl took."
)
@click.option("--to", callback=driver_name, metavar="DRIVER", help="To this driver.")
@click.option(
    "--leave-unbound", is_flag=True, help="To no driver; takes a device from its host driver as well."
)
@allow_option(IN_USE_GUARDS)
@dry_run_option
@wait_option
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
    wait: float | None,
    output: Output,
) -> None:
    """Give devices back to the host: all of them or none.

    Each goes to the driver that it had when vfioctl took it, with the driver_override of then; without such a record,
    to the driver that the kernel picks. A GROUP stands for its members on a VFIO driver and those that vfioctl took.
    A group that somebody holds is refused, for the kernel would wait for the holder without limit.
    """
    from vfioctl.ops.assign import Plan, carry_out
    from vfioctl.ops.unbind import plan_unbind

    if to is not None and leave_unbound:
        raise UsageError("--to and --leave-unbound exclude each other")
    machine = session.machine
    machine.named = named_on_bus(subjects)

    def plan() -> Plan:
        snapshot = machine.snapshot()
        recorded = set(machine.state.homes())
        devices = chosen(
            session, snapshot, subjects, whole, lambda group: members_to_release(group, recorded)
        )
        return plan_unbind(machine, snapshot, devices, to, leave_unbound, frozenset(allow))

    if dry_run:
        assigned.print_dry_run(session, output, plan())
        return
    done = carry_out(machine, plan, None, session.tell, wait)
    assigned.report(session, output, done)
    for key, goal in done.plan.request.bindings.items():
        if goal.driver is KERNELS_CHOICE and done.outcome.after.bindings[key].driver is None:
            messages.note(f"{shown(key)} has no driver now: no host driver claims it")
