"""vfioctl permit"""

from __future__ import annotations

import click

from vfioctl.cli import permissions
from vfioctl.cli.access_options import access_options, wish
from vfioctl.cli.arguments import SUBJECT
from vfioctl.cli.changing import wait_option
from vfioctl.cli.output import Output, output_options
from vfioctl.cli.session import Session
from vfioctl.errors import UsageError


@click.command(
    "permit",
    epilog="""\b
Examples:
  vfioctl permit 26 --user alice
  vfioctl permit 0000:01:00.0 --group-owner kvm --mode 660
  vfioctl permit 26 27 --user 1000 -J
  vfioctl permit 26 --acl user:alice:rw --acl group:kvm:r

\b
Exit status:
  0 permitted (also when nothing had to change), 1 a group has no node, 3 no such group, device or user, 4 not root,
  5 refused by a guard, 6 another vfioctl is changing devices, 7 the kernel refused, 8 failed and put back,
  9 failed and not all put back, 124 udev did not settle in time: its rules may still change owner and mode.""",
)
@click.argument("subjects", metavar="GROUP|DEVICE...", nargs=-1, required=True, type=SUBJECT)
@access_options
@wait_option
@output_options(permissions.COLUMNS, permissions.DEFAULT)
@click.pass_obj
def command(
    session: Session,
    subjects: tuple[str, ...],
    user: str | None,
    group_owner: str | None,
    mode: str | None,
    acl: tuple[str, ...],
    wait: float | None,
    output: Output,
) -> int:
    """Let a user or a user group open the nodes: the group node, and the devices' cdevs where there are any.

    udev is waited for first, so that its rules cannot undo it; owner, mode and list are read back. With --acl alone
    owner and mode stay; an access control list from before never does. It holds until the node goes away (unbind,
    reboot). The whole IOMMU group is what is given: its devices are not isolated from each other.
    """
    asked = wish(user, group_owner, mode, acl)
    if asked is None:
        raise UsageError(
            "who may? --user NAME, --group-owner NAME, --acl user:NAME:rw", hint="vfioctl permit --help"
        )
    return permissions.change_access(session, subjects, asked, "permit", wait, output)
