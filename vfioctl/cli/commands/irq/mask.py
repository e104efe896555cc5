"""vfioctl irq mask"""

from __future__ import annotations

import click

from vfioctl.cli import devices
from vfioctl.cli.arguments import SUBJECT
from vfioctl.cli.containers import container_option
from vfioctl.cli.irqs import COLUMNS, DEFAULT, KIND, emit_changed
from vfioctl.cli.output import Output, output_options
from vfioctl.cli.session import Session


@click.command(
    "mask",
    epilog="""\b
Examples:
  vfioctl irq mask 0000:01:00.0 intx -c work
  vfioctl irq mask 01:00.0 intx && vfioctl irq wait 01:00.0 intx --timeout 1; vfioctl irq unmask 01:00.0 intx""",
)
@click.argument("device", metavar="DEVICE", type=SUBJECT)
@click.argument("kind", metavar="KIND", type=KIND)
@container_option
@output_options(COLUMNS, DEFAULT)
@click.pass_obj
def command(session: Session, device: str, kind: str, container: str | None, output: Output) -> None:
    """Let an interrupt wait: the device may raise it, but nobody is told until it is unmasked.

    Only INTx of a PCI device can be masked.
    """
    from vfioctl.ops.irqs import Irqs

    with devices.opened(session, device, container, stays=True) as kept:
        irqs = Irqs(kept, session.timeout)
        irq = irqs.find(kind)
        irqs.mask(irq)
        emit_changed(session, output, kept.name, irq, True)
