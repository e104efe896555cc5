"""vfioctl map"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

from vfioctl.cli import records
from vfioctl.cli.arguments import SUBJECT, group_numbers, resolve_all
from vfioctl.cli.containers import MAPPING_COLUMNS, container_option
from vfioctl.cli.mapping import Asked, opened_for_reading, plan_lines, plan_record, progress_bar
from vfioctl.cli.output import Columns, Output, emit, output_options
from vfioctl.cli.session import Session
from vfioctl.errors import ExitStatus, UsageError, visible
from vfioctl.ops.backends.choice import BACKENDS
from vfioctl.policy.iova import page_sizes, split

if TYPE_CHECKING:
    from vfioctl.ops.keeper.client import Client

COLUMNS: Columns = {
    **MAPPING_COLUMNS,
    "backend": lambda r: r["backend"],
    "groups": lambda r: r["groups"],
}
DEFAULT = ("iova", "size", "prot", "source", "backend", "groups")


@click.command(
    "map",
    epilog="""\b
Examples:
  vfioctl map 26 --size 1M
  vfioctl map 0000:01:00.0 --size 64M --chunk 4K -J
  vfioctl map -c work --size 2M --source hugepages-2M --fill image.bin
  vfioctl map -c work --file /dev/shm/ring --prot r --iova 0x100000000
  vfioctl map -c work --list layout.txt --plan

\b
Exit status:
  0 mapped (without -c: and unmapped again), or with --plan: it is possible; 1 the group is not viable or has no
  VFIO member, or with --plan: it is not possible; 2 the mapping cannot be, 3 no such group, device or container,
  4 no permission, 6 the group is in use, 7 the kernel refused, 124 the kernel did not answer in time.""",
)
@click.argument("subjects", metavar="[GROUP|DEVICE]...", nargs=-1, type=SUBJECT)
@container_option
@click.option(
    "--size",
    metavar="SIZE",
    help="Bytes to map; suffixes K, M, G, T, P.  [default: those of --file or --fill, or 1M]",
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
    "--source",
    metavar="SOURCE",
    help="Where the memory comes from: anonymous, memfd, file, hugepages-2M, hugepages-1G.  [default: anonymous]",
)
@click.option("--file", metavar="PATH", help="Map this file; what devices write ends up in it.")
@click.option("--file-offset", metavar="SIZE", help="Where in the file to begin.")
@click.option(
    "--fill", metavar="FILE|-", help="Fill the memory with the bytes of a file or of standard input."
)
@click.option("--list", "listed", metavar="FILE|-", help="Map all that a list says, or nothing.")
@click.option("--plan", is_flag=True, help="Say whether and where it is possible, and do nothing.")
@click.option(
    "--user", metavar="USER", help="With --plan: say what this user's limit of locked memory must be."
)
@click.option(
    "--backend",
    type=click.Choice(BACKENDS),
    default="auto",
    show_default=True,
    help="Without -c: the kind of address space.",
)
@output_options(COLUMNS, DEFAULT)
@click.pass_obj
def command(
    session: Session,
    /,
    subjects: tuple[str, ...],
    container: str | None,
    plan: bool,
    user: str | None,
    backend: str,
    output: Output,
    **options: Any,
) -> int:
    """Map memory for the devices of an open container (-c), where it stays mapped until unmap; or prove that groups
    really work: set up a container, set the IOMMU model, map memory, report, undo it all.

    Devices are opened for it, and so reset, with iommufd only, which has no other way. Works as an unprivileged user
    once the nodes are permitted, within the limit of locked memory (ulimit -l). A list has a line for each mapping,
    IOVA SIZE [PROT [SOURCE [OFFSET]]] with - for an IOVA that vfioctl chooses, or a JSON object with the keys iova,
    size, prot, source and file_offset.
    """
    from vfioctl.ops.keeper.kept import mapping_of

    asked = Asked(**options)
    _check(asked, subjects, container, plan, user, backend)
    wants = asked.wants()
    size = sum(want.size for want in wants)
    with asked.opened_file() as fds, _container(session, subjects, container, backend) as client:
        fields = {"wants": [list(want) for want in wants]}
        if plan:
            return _print_plan(session, output, client.call("plan", fields, fds=fds).fields, user)
        last = ["unmap"] if container is None else ["fill"] if asked.fill is not None else []
        with progress_bar(size, "populate", "map", *last) as progress:
            made = client.call("map", fields, fds=fds, progress=progress).fields["mappings"]
            if asked.fill is not None:
                _fill(client, made[0][0], size, asked.fill, progress)
            found = client.show()
            if container is None:
                client.call("unmap", {"all": True}, progress=progress)
    mappings = [mapping_of(each) for each in made]
    if container is None:
        mappings = [
            {"iova": piece.iova, "size": piece.size, "prot": each["prot"], "source": each["source"]}
            for each in mappings
            for piece in split(each["iova"], each["size"], each["chunk"])
        ]
    common = {"backend": found["backend"], "groups": found["groups"]}
    emit(
        session,
        output,
        {
            "schema_version": records.SCHEMA_VERSION,
            "container": container,
            **common,
            "mappings": mappings,
            "iova_ranges": records.ranges(found["iova_ranges"]),
            "page_sizes": list(page_sizes(found["page_sizes"])),
        },
        [{**mapping, **common} for mapping in mappings],
        COLUMNS,
    )
    return ExitStatus.OK


def _check(
    asked: Asked, subjects: tuple[str, ...], container: str | None, plan: bool, user: str | None, backend: str
) -> None:
    if (container is None) == (not subjects):
        raise UsageError(
            "which groups? either GROUP or DEVICE, for a proof, or -c NAME, for an open container"
        )
    if container is not None and backend != "auto":
        raise UsageError("--backend is decided when a container is opened")
    if container is None and asked.fill is not None:
        raise UsageError("--fill is for an open container: -c NAME")
    if user is not None and not plan:
        raise UsageError("--user is for --plan")
    if plan and asked.fill == "-":
        raise UsageError("--plan does not read standard input: give --size")


@contextlib.contextmanager
def _container(
    session: Session, subjects: tuple[str, ...], container: str | None, backend: str
) -> Iterator[Client]:
    """The open container, or one for this command only."""
    from vfioctl.ops.keeper import named, spawn

    if container is not None:
        with named.connected(session.machine, container) as client:
            yield client
        return
    snapshot = session.snapshot(subjects)
    numbers = sorted(group_numbers(snapshot, resolve_all(session, snapshot, subjects)))
    with spawn.temporary(session.machine, backend) as client:
        client.call("add", {"groups": numbers})
        yield client


def _fill(
    client: Client, iova: int, size: int, path: str, progress: Callable[[str, int, int], None] | None
) -> None:
    """Fills the new mapping; it does not stay when that fails."""
    from vfioctl.ops.keeper.operation import MOST_BYTES

    done = 0
    try:
        with opened_for_reading(path) as file:
            while data := file.read(MOST_BYTES):
                if done + len(data) > size:
                    raise UsageError(f"{path} has more than the {size} bytes that are mapped", subject=path)
                client.write(iova + done, data)
                done += len(data)
                if progress is not None:
                    progress("fill", done, size)
    except BaseException:
        client.call("unmap", {"iova": iova, "size": size})
        raise


def _print_plan(session: Session, output: Output, found: Any, user: str | None) -> int:
    if user is not None:
        from vfioctl.host.memory import pinned_by
        from vfioctl.ops.run import borrower

        account = borrower(user)
        user = account.name
        found = {**found, "locked": pinned_by(account.uid) if found["accounting"] == "user" else None}
    record = plan_record(found, user)
    if output.format in ("json", "yaml"):
        emit(session, output, {"schema_version": records.SCHEMA_VERSION, **record})
    else:
        sys.stdout.write("".join(f"{visible(line)}\n" for line in plan_lines(record)))
    return ExitStatus.OK if record["possible"] else ExitStatus.NO
