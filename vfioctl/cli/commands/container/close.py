"""vfioctl container close"""

from __future__ import annotations

import click

from vfioctl.cli.containers import CONTAINER
from vfioctl.cli.session import Session
from vfioctl.errors import UsageError


@click.command(
    "close",
    epilog="""\b
Examples:
  vfioctl container close work
  vfioctl container close --all""",
)
@click.argument("name", metavar="NAME", required=False, type=CONTAINER)
@click.option("--all", "everything", is_flag=True, help="Close all of the caller's containers.")
@click.pass_obj
def command(session: Session, name: str | None, everything: bool) -> None:
    """Close a container: unmap everything, close its devices, let its groups go.

    Devices are reset by being closed. A program that has got the container's descriptors (container exec) keeps what
    it has.
    """
    from vfioctl.ops.keeper import named

    if everything == (name is not None):
        raise UsageError("which container? NAME, or --all")
    for each in [name] if name is not None else named.names(session.machine):
        with named.connected(session.machine, each) as client:
            client.close()
