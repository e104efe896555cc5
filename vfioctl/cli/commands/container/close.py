"""vfioctl container close"""

from __future__ import annotations

from contextlib import nullcontext

import click

from vfioctl.cli.containers import CONTAINER
from vfioctl.cli.output import Columns, Output, emit, output_options
from vfioctl.cli.records import document
from vfioctl.cli.session import Session
from vfioctl.errors import UsageError

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
def command(session: Session, name: str | None, everything: bool, output: Output) -> None:
    """Close a container: unmap everything, close its devices, let its groups go.

    Devices are reset by being closed. A program that has got the container's descriptors (container exec) keeps what
    it has.
    """
    from vfioctl.ops.keeper import named

    if everything == (name is not None):
        raise UsageError("which container? NAME, or --all")
    closed = [name] if name is not None else named.names(session.machine)
    for each in closed:
        with (
            named.closed_meanwhile() if everything else nullcontext(),
            named.connected(session.machine, each) as client,
        ):
            client.close()
    rows = [{"name": each, "changed": True} for each in closed]
    emit(session, output, document("containers", rows), rows, COLUMNS)
