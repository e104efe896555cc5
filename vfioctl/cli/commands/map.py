"""vfioctl map"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from vfioctl.cli import records
from vfioctl.cli.arguments import SUBJECT, group_numbers, resolve_all
from vfioctl.cli.containers import container_option
from vfioctl.cli.output import Columns, Output, emit, output_options
from vfioctl.cli.session import Session
from vfioctl.errors import UsageError
from vfioctl.policy.iova import page_sizes
from vfioctl.policy.sizes import format_iova, parse_iova, parse_size

COLUMNS: Columns = {
    "iova": lambda r: format_iova(r["iova"]),
    "size": lambda r: r["size"],
    "prot": lambda r: r["prot"],
    "source": lambda r: r["source"],
    "backend": lambda r: r["backend"],
    "groups": lambda r: r["groups"],
}
DEFAULT = ("iova", "size", "prot", "source", "backend", "groups")
#: Below this many bytes a mapping takes no time that a person would notice.
LONG = 256 << 20


@click.command(
    "map",
    epilog="""\b
Examples:
  vfioctl map 26 --size 1M
  vfioctl map 26 27 --size 2G --iova 0x100000000
  vfioctl map 0000:01:00.0 --size 64M --chunk 4K -J
  vfioctl map --container work --size 64M

\b
Exit status:
  0 mapped and unmapped again, 1 the group is not viable or has no VFIO member, 2 the mapping cannot be,
  4 no permission, 6 the group is in use, 7 the kernel refused.""",
)
@click.argument("subjects", metavar="[GROUP|DEVICE]...", nargs=-1, type=SUBJECT)
@click.option(
    "--size", default="1M", show_default=True, metavar="SIZE", help="Bytes to map; suffixes K, M, G, T, P."
)
@click.option(
    "--iova", metavar="ADDR", help="I/O virtual address, hexadecimal; default: the first that fits."
)
@click.option(
    "--prot",
    type=click.Choice(["rw", "r", "w"]),
    default="rw",
    show_default=True,
    help="What devices may do.",
)
@click.option("--chunk", metavar="SIZE", help="Make several mappings of this size instead of one.")
@click.option(
    "--backend",
    type=click.Choice(["auto", "type1v2", "type1"]),
    default="auto",
    show_default=True,
    help="The container's IOMMU model.",
)
@container_option
@output_options(COLUMNS, DEFAULT)
@click.pass_obj
def command(
    session: Session,
    subjects: tuple[str, ...],
    container: str | None,
    size: str,
    iova: str | None,
    prot: str,
    chunk: str | None,
    backend: str,
    output: Output,
) -> None:
    """Prove that groups really work: set up a container, set the IOMMU model, map memory, report, undo it all; or map
    memory in a container that is open, where it stays mapped.

    Anonymous memory is mapped for all the groups of one container; no device is opened, so none is reset. Works as
    an unprivileged user once the nodes are permitted, within the limit of locked memory (ulimit -l).
    """
    from vfioctl.ops.keeper import named
    from vfioctl.ops.keeper.spawn import temporary

    if (container is None) == (not subjects):
        raise UsageError("for which groups? GROUP or DEVICE, or --container NAME")
    fields = {
        "size": parse_size(size),
        "iova": None if iova is None else parse_iova(iova),
        "chunk": None if chunk is None else parse_size(chunk),
        "prot": prot,
    }
    with _progress(parse_size(size)) as progress:
        if container is not None:
            with named.connected(session.machine, container) as client:
                made = client.call("map", fields, progress=progress).fields["mappings"]
                found = client.show()
        else:
            snapshot = session.snapshot(subjects)
            numbers = sorted(group_numbers(snapshot, resolve_all(session, snapshot, subjects)))
            with temporary(session.machine, backend) as client:
                client.call("add", {"groups": numbers})
                made = client.call("map", fields, progress=progress).fields["mappings"]
                found = client.show()
                client.call("unmap", {"all": True}, progress=progress)
    mappings = [dict(zip(("iova", "size", "prot", "source"), each, strict=True)) for each in made]
    emit(
        session,
        output,
        {
            "schema_version": records.SCHEMA_VERSION,
            "backend": found["backend"],
            "groups": found["groups"],
            "mappings": mappings,
            "iova_ranges": records.ranges(found["iova_ranges"]),
            "page_sizes": list(page_sizes(found["page_sizes"])),
        },
        [{**mapping, "backend": found["backend"], "groups": found["groups"]} for mapping in mappings],
        COLUMNS,
    )


@contextmanager
def _progress(size: int) -> Iterator[Callable[[str, int, int], None] | None]:
    """A bar on stderr while a long mapping is made and a person watches."""
    if size < LONG or not sys.stderr.isatty():
        yield None
        return
    from vfioctl.cli import terminal

    with terminal.progress(("populate", "map", "unmap"), size) as update:
        yield lambda stage, done, total: update(stage, done)
