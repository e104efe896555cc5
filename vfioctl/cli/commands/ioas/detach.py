"""vfioctl ioas detach"""

from __future__ import annotations

import click

from vfioctl.cli.arguments import SUBJECT, resolve_device
from vfioctl.cli.containers import changed_output, emit_changed, required_container
from vfioctl.cli.output import Output
from vfioctl.cli.session import Session


@click.command(
    "detach",
    epilog="""\b
Examples:
  vfioctl ioas detach 0000:01:00.0 -c work
  vfioctl ioas detach 0000:01:00.0 -c work --pasid 7""",
)
@click.argument("subject", metavar="DEVICE", type=SUBJECT)
@required_container
@click.option("--pasid", metavar="N", type=click.IntRange(min=1), help="For accesses with this PASID only.")
@changed_output
@click.pass_obj
def command(session: Session, subject: str, container: str, pasid: int | None, output: Output) -> None:
    """Take a device out of its address space: all its DMA is blocked until it is attached again.

    With --pasid only the accesses that it makes with that process address space id.
    """
    from vfioctl.ops.keeper import named

    device = resolve_device(session, subject)
    with named.connected(session.machine, container) as client:
        client.call("ioas-detach", {"device": device.address, "pasid": pasid})
    emit_changed(session, output, container)
