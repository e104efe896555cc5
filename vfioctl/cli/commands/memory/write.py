"""vfioctl memory write"""

from __future__ import annotations

import click

from vfioctl.cli.containers import required_container
from vfioctl.cli.mapping import opened_for_reading
from vfioctl.cli.session import Session
from vfioctl.policy.sizes import parse_iova


@click.command(
    "write",
    epilog="""\b
Examples:
  vfioctl memory write -c work --iova 0x100000 < block.bin
  vfioctl memory write -c work --iova 0x200000 --input firmware.bin

\b
Exit status:
  0 written, 3 not all of it is mapped or there is no such container, 7 the memory does not take it.""",
)
@required_container
@click.option("--iova", metavar="ADDR", required=True, help="Where to begin, hexadecimal.")
@click.option("--input", "source", metavar="FILE", default="-", help="The bytes; default: standard input.")
@click.pass_obj
def command(session: Session, container: str, iova: str, source: str) -> None:
    """Write bytes into mapped memory, all that standard input or a file has.

    When they do not fit into what is mapped, those that do are written, and the others refused.
    """
    from vfioctl.ops.keeper import named
    from vfioctl.ops.keeper.operation import MOST_BYTES

    start = parse_iova(iova)
    with named.connected(session.machine, container) as client, opened_for_reading(source) as file:
        while data := file.read(MOST_BYTES):
            client.write(start, data)
            start += len(data)
