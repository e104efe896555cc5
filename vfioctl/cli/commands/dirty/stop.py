"""vfioctl dirty stop"""

from __future__ import annotations

import click

from vfioctl.cli.containers import changed_output, emit_changed, required_container
from vfioctl.cli.output import Output
from vfioctl.cli.session import Session


@click.command(
    "stop",
    epilog="""\b
Examples:
  vfioctl dirty stop -c work
  vfioctl dirty read -c work && vfioctl dirty stop -c work""",
)
@required_container
@changed_output
@click.pass_obj
def command(session: Session, container: str, output: Output) -> None:
    """End noting what devices write."""
    from vfioctl.ops.keeper import named

    with named.connected(session.machine, container) as client:
        client.call("dirty-stop")
    emit_changed(session, output, container)
