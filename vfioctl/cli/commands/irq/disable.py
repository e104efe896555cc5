"""vfioctl irq disable"""

from __future__ import annotations

import click

from vfioctl.cli import devices
from vfioctl.cli.arguments import SUBJECT
from vfioctl.cli.containers import container_option
from vfioctl.cli.irqs import COLUMNS, DEFAULT, KIND, emit_changed
from vfioctl.cli.output import Output, output_options
from vfioctl.cli.session import Session


@click.command(
    "disable",
    epilog="""\b
Examples:
  vfioctl irq disable 0000:01:00.0 msi -c work
  vfioctl irq disable 01:00.0 intx && vfioctl irq enable 01:00.0 msix""",
)
@click.argument("device", metavar="DEVICE", type=SUBJECT)
@click.argument("kind", metavar="KIND", type=KIND)
@container_option
@output_options(COLUMNS, DEFAULT)
@click.pass_obj
def command(session: Session, device: str, kind: str, container: str | None, output: Output) -> None:
    """Take all vectors of an interrupt down: the device signals nobody any more."""
    from vfioctl.ops.irqs import Irqs

    with devices.opened(session, device, container, stays=True) as kept:
        irqs = Irqs(kept, session.timeout)
        irq = irqs.find(kind)
        if irq.enabled:
            irqs.disable(irq)
        emit_changed(session, output, kept.name, irqs.find(kind), bool(irq.enabled))
