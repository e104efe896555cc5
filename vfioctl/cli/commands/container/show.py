"""vfioctl container show"""

from __future__ import annotations

import sys
from typing import Any

import click

from vfioctl.cli.containers import CONTAINER, container_record, detail_lines, warn
from vfioctl.cli.output import Output, emit, output_options, text
from vfioctl.cli.records import SCHEMA_VERSION
from vfioctl.cli.session import Session
from vfioctl.errors import visible
from vfioctl.policy.sizes import format_iova


@click.command(
    "show",
    epilog="""\b
Examples:
  vfioctl container show work
  vfioctl container show work -J | jq '.mappings'""",
)
@click.argument("name", metavar="NAME", type=CONTAINER)
@output_options()
@click.pass_obj
def command(session: Session, name: str, output: Output) -> None:
    """Show everything known of an open container: groups, devices, mappings, IOVA ranges, what is charged."""
    from vfioctl.ops.keeper import named

    with named.connected(session.machine, name) as client:
        found = client.show()
    record = container_record(found)
    if output.format in ("json", "yaml"):
        emit(session, output, {"schema_version": SCHEMA_VERSION, **record})
    else:
        sys.stdout.write("".join(f"{visible(line)}\n" for line in _lines(record)))
    warn(found)


def _lines(record: dict[str, Any]) -> list[str]:
    keys = (
        "name",
        "pid",
        "backend",
        "unsafe",
        "groups",
        "page_sizes",
        "dma_avail",
        "accounting",
        "locked",
        "memlock",
        "release_on_request",
    )
    lines = [f"{key}={text(record[key])}" for key in keys]
    lines += [f"iova_range={r['start']:#x}-{r['end']:#x}" for r in record["iova_ranges"] or []]
    for device in record["devices"]:
        words = [word for word in ("open", "gone", "wanted_back") if device[word]]
        lines.append(f"device={device['address']} group={device['group']} {' '.join(words)}".rstrip())
    lines += [
        f"mapping={format_iova(m['iova'])} size={m['size']} prot={m['prot']} source={m['source']}"
        + (f" chunk={m['chunk']}" if m["chunk"] else "")
        for m in record["mappings"]
    ]
    return [*lines, *detail_lines(record["details"])]
