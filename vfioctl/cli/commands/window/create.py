"""vfioctl window create"""

from __future__ import annotations

import click

from vfioctl.cli.containers import required_container
from vfioctl.cli.output import Columns, Output, emit, output_options
from vfioctl.cli.records import document
from vfioctl.cli.session import Session
from vfioctl.policy.sizes import format_iova, parse_size

COLUMNS: Columns = {
    "start": lambda r: format_iova(r["start"]),
    "end": lambda r: format_iova(r["end"]),
    "page_size": lambda r: r["page_size"],
    "levels": lambda r: r["levels"],
}
DEFAULT = ("start", "end", "page_size", "levels")


@click.command(
    "create",
    epilog="""\b
Examples:
  vfioctl window create -c work --page-size 64K --size 4G
  vfioctl window create -c work --page-size 64K --size 1T --levels 2 -n -o start""",
)
@required_container
@click.option("--page-size", metavar="SIZE", required=True, help="The pages that it maps; suffixes K, M, G.")
@click.option("--size", metavar="SIZE", required=True, help="How many bytes it maps, a power of two.")
@click.option(
    "--levels",
    metavar="N",
    type=click.IntRange(1, 99),
    default=1,
    show_default=True,
    help="How many levels its table has.",
)
@output_options(COLUMNS, DEFAULT)
@click.pass_obj
def command(session: Session, container: str, page_size: str, size: str, levels: int, output: Output) -> None:
    """Make a window of addresses in a container of sPAPR v2 (POWER); the kernel chooses where it starts.

    Devices reach memory through windows only. There is a default one, below 4G and of 4K pages; with larger pages a
    window maps more by a smaller table, and memory for it has to be aligned to them. Which page sizes there are, how
    many windows and how many levels, vfioctl container show says. The table is charged as locked memory.
    """
    from vfioctl.ops.keeper import named

    fields = {"page_size": parse_size(page_size), "size": parse_size(size), "levels": levels}
    with named.connected(session.machine, container) as client:
        window = client.call("window-create", fields).fields["window"]
    emit(session, output, document("window", window), [window], COLUMNS)
