"""vfioctl irq unmask"""

from __future__ import annotations

import click

from vfioctl.cli import devices
from vfioctl.cli.arguments import SUBJECT
from vfioctl.cli.containers import container_option
from vfioctl.cli.irqs import COLUMNS, DEFAULT, KIND, emit_changed
from vfioctl.cli.output import Output, output_options
from vfioctl.cli.session import Session


@click.command(
    "unmask",
    epilog="""\b
Examples:
  vfioctl irq unmask 0000:01:00.0 intx -c work
  vfioctl irq wait 01:00.0 intx && vfioctl region write 01:00.0 bar0 0x64 1 && vfioctl irq unmask 01:00.0 intx""",
)
@click.argument("device", metavar="DEVICE", type=SUBJECT)
@click.argument("kind", metavar="KIND", type=KIND)
@container_option
@output_options(COLUMNS, DEFAULT)
@click.pass_obj
def command(session: Session, device: str, kind: str, container: str | None, output: Output) -> None:
    """Let an interrupt signal again that was masked, or that the kernel has masked when it fired (INTx).

    As long as the device still raises it, it fires again at once: let the device be quiet first.
    """
    from vfioctl.ops.irqs import Irqs

    with devices.opened(session, device, container, stays=True) as kept:
        irqs = Irqs(kept, session.timeout)
        irq = irqs.find(kind)
        irqs.unmask(irq)
        emit_changed(session, output, kept.name, irq, True)
