"""vfioctl bind"""

from __future__ import annotations

import click

from vfioctl.cli import assigned, messages
from vfioctl.cli.access_options import access_options, wish
from vfioctl.cli.arguments import SUBJECT
from vfioctl.cli.changing import bind_planner, binding_options, dry_run_option, wait_option
from vfioctl.cli.output import Output, output_options
from vfioctl.cli.session import Session
from vfioctl.errors import ExitStatus
from vfioctl.policy.buses import next_step


@click.command(
    "bind",
    epilog="""\b
Examples:
  vfioctl bind 0000:01:00.0
  vfioctl bind 26 --user alice
  vfioctl bind --group 0000:06:0d.0 --dry-run
  vfioctl bind eth0 --method new-id
  vfioctl bind 0000:01:00.2 --driver auto

\b
Exit status:
  0 bound (also when it was before), 3 no such device or no IOMMU group, 4 not root, 5 refused by a guard,
  6 somebody holds it, 7 the kernel refused the first step, 8 failed and put back, 9 failed and not all
  put back, 124 the kernel or udev did not answer in time.""",
)
@click.argument("subjects", metavar="GROUP|DEVICE...", nargs=-1, required=True, type=SUBJECT)
@binding_options
@click.option(
    "--method",
    type=click.Choice(["override", "new-id"]),
    default="override",
    show_default=True,
    help="new-id gives the driver the device's ids for a moment: every device with the same ids matches then.",
)
@access_options
@dry_run_option
@wait_option
@output_options(assigned.COLUMNS, assigned.DEFAULT)
@click.pass_obj
def command(
    session: Session,
    subjects: tuple[str, ...],
    whole: bool,
    driver: str | None,
    method: str,
    allow: tuple[str, ...],
    user: str | None,
    group_owner: str | None,
    mode: str | None,
    acl: tuple[str, ...],
    dry_run: bool,
    wait: float | None,
    output: Output,
) -> int:
    """Bind devices to a VFIO driver: all of them or none.

    A DEVICE is bound alone; a GROUP, or any member with --group, stands for every member that needs it: endpoints
    without a driver or with a host driver are bound, bridges whose driver blocks the group are unbound, and members
    that the kernel tolerates (ports on pcieport, pci-stub) are left alone. vfio-pci and the IOMMU backend are loaded
    when they are missing. The driver links, nodes, owners and modes are read back before anything is reported, and
    when a step fails everything is put back. What the host uses is refused, guard by guard, and taken only with
    --allow for each.
    """
    from vfioctl.ops.assign import carry_out
    from vfioctl.ops.bind import BindOptions

    machine = session.machine
    access = wish(user, group_owner, mode, acl)
    choices: list[str] = []
    options = BindOptions(driver, method == "new-id", frozenset(allow))
    plan = bind_planner(session, subjects, whole, options, choices, dry_run=dry_run)
    if dry_run:
        assigned.print_dry_run(session, output, plan(), access, choices)
        return int(ExitStatus.OK)
    done = carry_out(machine, plan, access, session.tell, wait)
    assigned.report(session, output, done)
    assigned.warn_unusable(machine, done)
    for device in done.snapshot.devices:
        if device.key in done.plan.request.bindings and (step := next_step(device)):
            messages.note(step)
    return int(ExitStatus.OK if done.settled else ExitStatus.TIMEOUT)
