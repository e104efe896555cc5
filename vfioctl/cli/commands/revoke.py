"""vfioctl revoke"""

from __future__ import annotations

import click

from vfioctl.cli import permissions
from vfioctl.cli.arguments import SUBJECT
from vfioctl.cli.changing import wait_option
from vfioctl.cli.output import Output, output_options
from vfioctl.cli.session import Session


@click.command(
    "revoke",
    epilog="""\b
Examples:
  vfioctl revoke 26
  vfioctl revoke 0000:01:00.0 -J

\b
Exit status:
  0 revoked (also when nothing had to change), 1 a group has no node, 3 no such group, or device, 4 not root,
  5 refused by a guard, 6 another vfioctl is changing devices, 7 the kernel refused, 8 failed and put back,
  9 failed and not all put back, 124 udev did not settle in time: its rules may still change owner and mode.""",
)
@click.argument("subjects", metavar="GROUP|DEVICE...", nargs=-1, required=True, type=SUBJECT)
@wait_option
@output_options(permissions.COLUMNS, permissions.DEFAULT)
@click.pass_obj
def command(
    session: Session,
    subjects: tuple[str, ...],
    wait: float | None,
    output: Output,
) -> int:
    """Make the nodes root's alone again: root:root, mode 0600, no access control list, as the kernel makes them.

    Who has a node open already keeps it open; vfioctl holders names them.
    """
    from vfioctl.policy.access import KERNELS_OWN

    return permissions.change_access(session, subjects, KERNELS_OWN, "revoke", wait, output)
