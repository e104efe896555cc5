"""vfioctl container close"""

from __future__ import annotations

import click

from vfioctl.cli import messages
from vfioctl.cli.containers import CONTAINER
from vfioctl.cli.output import Columns, Output, emit, output_options
from vfioctl.cli.records import document
from vfioctl.cli.session import Session
from vfioctl.errors import DeadlinePassed, UsageError

COLUMNS: Columns = {"name": lambda r: r["name"], "changed": lambda r: r["changed"]}


@click.command(
    "close",
    epilog="""\b
Examples:
  vfioctl container close work
  vfioctl container close --all""",
)
@click.argument("name", metavar="NAME", required=False, type=CONTAINER)
@click.option("--all", "everything", is_flag=True, help="Close all of the caller's containers.")
@output_options(COLUMNS, tuple(COLUMNS))
@click.pass_obj
def command(session: Session, name: str | None, everything: bool, output: Output) -> int:
    """Close a container: unmap everything, close its devices, let its groups go.

    Devices are reset by being closed. A program that has got the container's descriptors (container exec) keeps what
    it has.
    """
    from vfioctl.ops.keeper import named

    if everything == (name is not None):
        raise UsageError("which container? NAME, or --all")
    if name is not None:
        with named.connected(session.machine, name) as client:
            client.close()
    closed = [name] if name is not None else []
    late: list[DeadlinePassed] = []
    for each in named.names(session.machine) if everything else ():
        with named.or_late(late), named.connected(session.machine, each) as client:
            client.close()
            closed.append(each)
    rows = [{"name": each, "changed": True} for each in closed]
    emit(session, output, document("containers", rows), rows, COLUMNS)
    return messages.late(late)
