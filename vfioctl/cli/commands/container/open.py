"""vfioctl container open"""

from __future__ import annotations

from uuid import UUID

import click

from vfioctl.cli.arguments import SUBJECT, group_numbers, resolve_all
from vfioctl.cli.containers import container_record, warn
from vfioctl.cli.output import Columns, Output, emit, output_options
from vfioctl.cli.records import SCHEMA_VERSION
from vfioctl.cli.session import Session
from vfioctl.ops.backends.choice import BACKENDS

COLUMNS: Columns = {
    "name": lambda r: r["name"],
    "backend": lambda r: r["backend"],
    "unsafe": lambda r: r["unsafe"],
    "groups": lambda r: r["groups"],
    "pid": lambda r: r["pid"],
    "changed": lambda r: r["changed"],
}
DEFAULT = ("name", "backend", "groups", "pid", "changed")


@click.command(
    "open",
    epilog="""\b
Examples:
  vfioctl container open work 26
  vfioctl container open work 26 0000:01:00.0 --backend type1v2 -J
  vfioctl container open lab 26 27 --split --release-on-request
  vfioctl container open pf 0000:01:00.0 --vf-token 6f1c7a0e-1f5d-4c2b-9a57-0d7f3b2c9e41

\b
Exit status:
  0 open, also when it was open already with the same groups; 1 a group is not viable or has no VFIO member,
  3 no such group or device, 4 no permission, 6 a group is in use, or the name is taken by another container,
  7 the kernel refused.""",
)
@click.argument("name", metavar="NAME")
@click.argument("subjects", metavar="GROUP|DEVICE...", nargs=-1, required=True, type=SUBJECT)
@click.option(
    "--backend",
    type=click.Choice(BACKENDS),
    default="auto",
    show_default=True,
    help="The kind of address space; without an IOMMU only noiommu, which protects nothing.",
)
@click.option(
    "--split",
    is_flag=True,
    help="Give a group that cannot share the address space a container of its own, called NAME.GROUP.",
)
@click.option(
    "--release-on-request",
    is_flag=True,
    help="Let a group go as soon as somebody unbinds or unplugs one of its devices.",
)
@click.option(
    "--charge",
    type=click.Choice(["user", "process"]),
    help="With iommufd: whose limit of locked memory counts, all that the user has mapped or this process alone.  "
    "[default: user, as the kernel has it]",
)
@click.option(
    "--vf-token",
    metavar="UUID",
    type=click.UUID,
    help="Open a physical function and set this VF token, or a virtual function whose physical function has it.",
)
@click.option(
    "--foreground",
    is_flag=True,
    help="Stay until the container is closed, for a service of systemd (Type=notify).",
)
@output_options(COLUMNS, DEFAULT)
@click.pass_obj
def command(
    session: Session,
    name: str,
    subjects: tuple[str, ...],
    backend: str,
    split: bool,
    release_on_request: bool,
    charge: str | None,
    vf_token: UUID | None,
    foreground: bool,
    output: Output,
) -> None:
    """Open a container with groups in it, and keep it open between commands.

    A small process keeps its descriptors and the memory that is mapped, until container close, or SIGTERM; it can be
    talked to by its owner and by root only. All the groups share one address space, or with --split those that can.
    No device is opened, and so none is reset, before a command needs it; with the backend iommufd all devices of the
    groups are opened at once.
    """
    from vfioctl.ops.keeper import named
    from vfioctl.ops.keeper.kept import Settings

    snapshot = session.snapshot(subjects)
    numbers = sorted(group_numbers(snapshot, resolve_all(session, snapshot, subjects)))
    opened = named.open_container if not split else named.open_split
    settings = Settings(charge, release_on_request, vf_token)
    found = opened(session.machine, name, numbers, backend, settings)
    records = [{**container_record(record), "changed": changed} for record, changed in found]
    emit(session, output, {"schema_version": SCHEMA_VERSION, "containers": records}, records, COLUMNS)
    for record, _ in found:
        warn(record)
    if foreground:
        import sys

        sys.stdout.flush()
        named.stay(session.machine, [record["name"] for record in records])
