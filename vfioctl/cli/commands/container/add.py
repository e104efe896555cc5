"""vfioctl container add"""

from __future__ import annotations

import click

from vfioctl.cli.arguments import SUBJECT, group_numbers, resolve_all
from vfioctl.cli.containers import CONTAINER
from vfioctl.cli.session import Session


@click.command(
    "add",
    epilog="""\b
Examples:
  vfioctl container add work 27
  vfioctl container add work 0000:02:00.0 0000:03:00.0""",
)
@click.argument("name", metavar="NAME", type=CONTAINER)
@click.argument("subjects", metavar="GROUP|DEVICE...", nargs=-1, required=True, type=SUBJECT)
@click.pass_obj
def command(session: Session, name: str, subjects: tuple[str, ...]) -> None:
    """Put more groups into an open container: all of them, or none. Groups that are in it already stay.

    Their devices reach everything that is mapped. The kernel refuses a group that cannot share the address space, or
    that must not reach an IOVA where something is mapped already.
    """
    from vfioctl.ops.keeper import named

    snapshot = session.snapshot(subjects)
    numbers = group_numbers(snapshot, resolve_all(session, snapshot, subjects))
    with named.connected(session.machine, name) as client:
        new = sorted(numbers - set(client.show()["groups"]))
        if new:
            client.call("add", {"groups": new})
