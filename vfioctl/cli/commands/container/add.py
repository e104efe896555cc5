"""vfioctl container add"""

from __future__ import annotations

import click

from vfioctl.cli.arguments import SUBJECT, group_numbers, resolve_all
from vfioctl.cli.containers import CONTAINER
from vfioctl.cli.output import Columns, Output, emit, output_options
from vfioctl.cli.records import SCHEMA_VERSION
from vfioctl.cli.session import Session

COLUMNS: Columns = {
    "name": lambda r: r["name"],
    "groups": lambda r: r["groups"],
    "changed": lambda r: r["changed"],
}


@click.command(
    "add",
    epilog="""\b
Examples:
  vfioctl container add work 27
  vfioctl container add work 0000:02:00.0 0000:03:00.0""",
)
@click.argument("name", metavar="NAME", type=CONTAINER)
@click.argument("subjects", metavar="GROUP|DEVICE...", nargs=-1, required=True, type=SUBJECT)
@output_options(COLUMNS, tuple(COLUMNS))
@click.pass_obj
def command(session: Session, name: str, subjects: tuple[str, ...], output: Output) -> None:
    """Put more groups into an open container: all of them, or none. Groups that are in it already stay.

    Their devices reach everything that is mapped. The kernel refuses a group that cannot share the address space, or
    that must not reach an IOVA where something is mapped already.
    """
    from vfioctl.ops.keeper import named

    snapshot = session.snapshot(subjects)
    numbers = group_numbers(snapshot, resolve_all(session, snapshot, subjects))
    with named.connected(session.machine, name) as client:
        groups = client.show()["groups"]
        new = sorted(numbers - set(groups))
        if new:
            groups = client.call("add", {"groups": new}).fields["groups"]
    record = {"name": name, "groups": groups, "changed": bool(new)}
    emit(session, output, {"schema_version": SCHEMA_VERSION, **record}, [record], COLUMNS)
