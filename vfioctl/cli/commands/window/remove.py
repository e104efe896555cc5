"""vfioctl window remove"""

from __future__ import annotations

import click

from vfioctl.cli.containers import changed_output, emit_changed, required_container
from vfioctl.cli.output import Output
from vfioctl.cli.session import Session
from vfioctl.policy.sizes import parse_iova


@click.command(
    "remove",
    epilog="""\b
Examples:
  vfioctl window remove 0x800000000000000 -c work
  vfioctl window remove 0 --container work""",
)
@click.argument("start", metavar="START")
@required_container
@changed_output
@click.pass_obj
def command(session: Session, start: str, container: str, output: Output) -> None:
    """Remove the window that starts at an address, where nothing is mapped any more; the default one starts at 0.

    A window that is made then takes its place among those that the platform can have.
    """
    from vfioctl.ops.keeper import named

    with named.connected(session.machine, container) as client:
        client.call("window-remove", {"start": parse_iova(start)})
    emit_changed(session, output, container)
