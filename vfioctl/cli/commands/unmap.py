"""vfioctl unmap"""

from __future__ import annotations

import click

from vfioctl.cli.containers import required_container
from vfioctl.cli.mapping import progress_bar
from vfioctl.cli.output import Columns, Output, emit, output_options
from vfioctl.cli.records import SCHEMA_VERSION
from vfioctl.cli.session import Session
from vfioctl.errors import UsageError
from vfioctl.policy.sizes import parse_iova, parse_size

COLUMNS: Columns = {
    "container": lambda r: r["container"],
    "unmapped": lambda r: r["unmapped"],
    "changed": lambda r: r["changed"],
}
DEFAULT = ("container", "unmapped", "changed")


@click.command(
    "unmap",
    epilog="""\b
Examples:
  vfioctl unmap -c work --iova 0x100000
  vfioctl unmap -c work --iova 0x100000 --size 2M
  vfioctl unmap -c work --all

\b
Exit status:
  0 unmapped (with --all also when nothing was mapped), 2 the range would cut a mapping, 3 nothing is mapped there or
  there is no such container, 7 the kernel refused, 124 the kernel did not answer in time.""",
)
@required_container
@click.option("--iova", metavar="ADDR", help="Where the mapping begins, hexadecimal.")
@click.option("--size", metavar="SIZE", help="Bytes to unmap; default: those of the mapping there.")
@click.option("--all", "everything", is_flag=True, help="Unmap everything.")
@output_options(COLUMNS, DEFAULT)
@click.pass_obj
def command(
    session: Session,
    container: str,
    iova: str | None,
    size: str | None,
    everything: bool,
    output: Output,
) -> None:
    """Unmap memory of an open container: devices reach it no more, its pages are unpinned, and its bytes are gone, but
    for those of a file.

    Mappings are unmapped whole, as they were made, whatever the kernel's own rule for the kind of address space is; a
    range may cover several of them.
    """
    from vfioctl.ops.keeper import named

    if everything == (iova is not None) or (size is not None and everything):
        raise UsageError("what? --iova ADDR, with --size SIZE or without, or --all")
    fields = {
        "iova": None if iova is None else parse_iova(iova),
        "size": None if size is None else parse_size(size),
        "all": everything,
    }
    with named.connected(session.machine, container) as client:
        mapped = sum(mapping["size"] for mapping in client.show()["mappings"])
        with progress_bar(min(mapped, fields["size"] or mapped), "unmap") as progress:
            unmapped = client.call("unmap", fields, progress=progress).fields["unmapped"]
    record = {"container": container, "unmapped": unmapped, "changed": unmapped > 0}
    emit(session, output, {"schema_version": SCHEMA_VERSION, **record}, [record], COLUMNS)
