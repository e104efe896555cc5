"""vfioctl memory list"""

from __future__ import annotations

from typing import Any

import click

from vfioctl.cli import messages
from vfioctl.cli.containers import MAPPING_COLUMNS, required_container
from vfioctl.cli.output import Columns, Output, emit, output_options
from vfioctl.cli.records import SCHEMA_VERSION
from vfioctl.cli.session import Session
from vfioctl.policy.iova import pieces
from vfioctl.policy.sizes import format_size

COLUMNS: Columns = {
    **MAPPING_COLUMNS,
    "entries": lambda r: pieces(r["size"], r["chunk"]),
}
DEFAULT = ("iova", "size", "prot", "source", "entries")


@click.command(
    "list",
    epilog="""\b
Examples:
  vfioctl memory list -c work
  vfioctl memory list -c work -J | jq .charged""",
)
@required_container
@output_options(COLUMNS, DEFAULT)
@click.pass_obj
def command(session: Session, container: str, output: Output) -> None:
    """List what is mapped in an open container, and what the kernel charges for it.

    VFIO's containers charge the process that keeps the container (VmLck); iommufd charges all processes of its user
    together, against the limit of each (VmPin). A row is what was mapped together, in one mapping or more (entries).
    """
    from vfioctl.ops.keeper import named

    with named.connected(session.machine, container) as client:
        found = client.show()
    charged = _charged(found)
    document = {
        "schema_version": SCHEMA_VERSION,
        "container": container,
        "pid": found["pid"],
        "backend": found["backend"],
        "charged": charged,
        "mappings": found["mappings"],
    }
    emit(session, output, document, found["mappings"], COLUMNS)
    if output.format not in ("json", "yaml"):
        limit = "unlimited" if charged["limit"] is None else format_size(charged["limit"])
        user = (
            ""
            if charged["user_pinned"] is None
            else f", by all of its user {format_size(charged['user_pinned'])}"
        )
        messages.note(
            f"process {found['pid']}: {format_size(charged['locked'])} locked, {format_size(charged['pinned'])} pinned"
            f"{user}; limit {limit}"
        )


def _charged(found: dict[str, Any]) -> dict[str, Any]:
    from vfioctl.host import memory

    now = memory.charged(found["pid"])
    return {
        "accounting": found["accounting"],
        "locked": now.locked,
        "pinned": now.pinned,
        "user_pinned": memory.pinned_by(now.uid) if found["accounting"] == "user" else None,
        "limit": found["memlock"],
    }
