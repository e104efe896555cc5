"""vfioctl container list"""

from __future__ import annotations

import click

from vfioctl.cli import messages
from vfioctl.cli.containers import container_record, warn
from vfioctl.cli.output import Columns, Output, emit, output_options
from vfioctl.cli.records import document
from vfioctl.cli.session import Session
from vfioctl.errors import DeadlinePassed
from vfioctl.policy.iova import pieces

COLUMNS: Columns = {
    "name": lambda r: r["name"],
    "backend": lambda r: r["backend"],
    "unsafe": lambda r: r["unsafe"],
    "groups": lambda r: r["groups"],
    "devices": lambda r: [device["address"] for device in r["devices"] if device["open"]],
    "mappings": lambda r: sum(pieces(mapping["size"], mapping["chunk"]) for mapping in r["mappings"]),
    "mapped": lambda r: sum(mapping["size"] for mapping in r["mappings"]),
    "locked": lambda r: r["locked"],
    "pid": lambda r: r["pid"],
}
DEFAULT = ("name", "backend", "groups", "devices", "mappings", "mapped", "pid")


@click.command(
    "list",
    epilog="""\b
Examples:
  vfioctl container list
  vfioctl container list -J | jq -r '.containers[].name'""",
)
@output_options(COLUMNS, DEFAULT)
@click.pass_obj
def command(session: Session, output: Output) -> int:
    """List the caller's open containers: backend, groups, open devices, how much is mapped."""
    from vfioctl.ops.keeper import named

    found = []
    late: list[DeadlinePassed] = []
    for name in named.names(session.machine):
        with named.or_late(late), named.connected(session.machine, name) as client:
            found.append(client.show())
    rows = [container_record(record) for record in found]
    emit(session, output, document("containers", rows), rows, COLUMNS)
    for record in found:
        warn(record)
    return messages.late(late)
