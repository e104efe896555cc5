"""vfioctl dirty read"""

from __future__ import annotations

import click

from vfioctl.cli.containers import required_container
from vfioctl.cli.output import Columns, Output, emit, output_options
from vfioctl.cli.records import SCHEMA_VERSION
from vfioctl.cli.session import Session
from vfioctl.policy.sizes import format_iova

COLUMNS: Columns = {"iova": lambda r: format_iova(r["iova"]), "size": lambda r: r["size"]}


@click.command(
    "read",
    epilog="""\b
Examples:
  vfioctl dirty read -c work
  vfioctl dirty read -c work -J | jq '[.dirty[].size] | add'""",
)
@required_container
@output_options(COLUMNS, ("iova", "size"))
@click.pass_obj
def command(session: Session, container: str, output: Output) -> None:
    """Show what devices have written since it was asked for last, in whole pages."""
    from vfioctl.ops.keeper import named

    with named.connected(session.machine, container) as client:
        found = client.call("dirty-read").fields
    rows = [{"iova": iova, "size": size} for iova, size in found["dirty"]]
    document = {"schema_version": SCHEMA_VERSION, "page_size": found["page_size"], "dirty": rows}
    emit(session, output, document, rows, COLUMNS)
