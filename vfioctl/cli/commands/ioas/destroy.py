"""vfioctl ioas destroy"""

from __future__ import annotations

import click

from vfioctl.cli.containers import changed_output, emit_changed, required_container
from vfioctl.cli.output import Output
from vfioctl.cli.session import Session


@click.command(
    "destroy",
    epilog="""\b
Examples:
  vfioctl ioas destroy 5 -c work
  vfioctl ioas destroy 6 --container work""",
)
@click.argument("ioas", metavar="IOAS", type=click.IntRange(min=0))
@required_container
@changed_output
@click.pass_obj
def command(session: Session, ioas: int, container: str, output: Output) -> None:
    """Destroy an address space that vfioctl ioas create has made, with what was copied into it.

    No device may be attached to it.
    """
    from vfioctl.ops.keeper import named

    with named.connected(session.machine, container) as client:
        client.call("ioas-destroy", {"ioas": ioas})
    emit_changed(session, output, container)
