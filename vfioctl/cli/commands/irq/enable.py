"""vfioctl irq enable"""

from __future__ import annotations

import click

from vfioctl.cli import devices
from vfioctl.cli.arguments import SUBJECT
from vfioctl.cli.containers import container_option
from vfioctl.cli.irqs import COLUMNS, DEFAULT, KIND, emit_changed
from vfioctl.cli.output import Output, output_options
from vfioctl.cli.session import Session


@click.command(
    "enable",
    epilog="""\b
Examples:
  vfioctl irq enable 0000:01:00.0 msi -c work
  vfioctl irq enable 01:00.0 msix --vectors 4""",
)
@click.argument("device", metavar="DEVICE", type=SUBJECT)
@click.argument("kind", metavar="KIND", type=KIND)
@click.option(
    "--vectors",
    type=click.IntRange(1, 240),
    default=1,
    show_default=True,
    metavar="N",
    help="How many vectors, from the first on.",
)
@container_option
@output_options(COLUMNS, DEFAULT)
@click.pass_obj
def command(
    session: Session, device: str, kind: str, vectors: int, container: str | None, output: Output
) -> None:
    """Let an interrupt of a device signal: each vector an eventfd, which the open container keeps.

    What comes from then on is counted, and irq wait sees it. KIND is a name or number as irq list shows it. Of intx,
    msi and msix a device uses one at a time.
    """
    from vfioctl.ops.irqs import Irqs

    with devices.opened(session, device, container, stays=True) as kept:
        irqs = Irqs(kept, session.timeout)
        irq = irqs.find(kind, vectors - 1)
        changed = len(irq.enabled) != vectors
        if changed:
            irqs.enable(irq, vectors)
        emit_changed(session, output, kept.name, irqs.find(kind), changed)
