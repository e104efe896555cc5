"""vfioctl ioas attach"""

from __future__ import annotations

import click

from vfioctl.cli.arguments import SUBJECT, resolve_device
from vfioctl.cli.containers import changed_output, emit_changed, required_container
from vfioctl.cli.output import Output
from vfioctl.cli.session import Session


@click.command(
    "attach",
    epilog="""\b
Examples:
  vfioctl ioas attach 0000:01:00.0 5 -c work
  vfioctl ioas attach 0000:01:00.0 5 -c work --pasid 7""",
)
@click.argument("subject", metavar="DEVICE", type=SUBJECT)
@click.argument("ioas", metavar="IOAS", type=click.IntRange(min=0))
@required_container
@click.option("--pasid", metavar="N", type=click.IntRange(min=1), help="For accesses with this PASID only.")
@changed_output
@click.pass_obj
def command(
    session: Session, subject: str, ioas: int, container: str, pasid: int | None, output: Output
) -> None:
    """Let a device use another address space of its container, in the place of the one that it has.

    With --pasid it is for the accesses that the device makes with that process address space id, beside the others; the
    IOMMU and the device must be capable of it.
    """
    from vfioctl.ops.keeper import named

    device = resolve_device(session, subject)
    with named.connected(session.machine, container) as client:
        client.call("ioas-attach", {"device": device.address, "ioas": ioas, "pasid": pasid})
    emit_changed(session, output, container)
