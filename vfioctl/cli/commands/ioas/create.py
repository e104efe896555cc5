"""vfioctl ioas create"""

from __future__ import annotations

import click

from vfioctl.cli.containers import required_container
from vfioctl.cli.output import Columns, Output, emit, output_options
from vfioctl.cli.records import document
from vfioctl.cli.session import Session

COLUMNS: Columns = {"ioas": lambda r: r["ioas"]}


@click.command(
    "create",
    epilog="""\b
Examples:
  vfioctl ioas create -c work
  vfioctl ioas create -c work -n""",
)
@required_container
@output_options(COLUMNS, ("ioas",))
@click.pass_obj
def command(session: Session, container: str, output: Output) -> None:
    """Make another address space (IOAS) in a container of the backend iommufd, and print its number.

    It is empty: vfioctl ioas copy puts into it what is mapped in the first one, and vfioctl ioas attach lets a device
    use it. So devices of one container can be given different views of the memory.
    """
    from vfioctl.ops.keeper import named

    with named.connected(session.machine, container) as client:
        number = client.call("ioas-create").fields["ioas"]
    emit(session, output, document("ioas", number), [{"ioas": number}], COLUMNS)
