"""vfioctl irq test"""

from __future__ import annotations

import click

from vfioctl.cli import devices, messages
from vfioctl.cli.arguments import SUBJECT
from vfioctl.cli.containers import container_option
from vfioctl.cli.irqs import KIND
from vfioctl.cli.output import Columns, Output, emit, output_options
from vfioctl.cli.records import SCHEMA_VERSION
from vfioctl.cli.session import Session
from vfioctl.errors import ExitStatus

COLUMNS: Columns = {
    "device": lambda r: r["device"],
    "irq": lambda r: r["irq"],
    "vector": lambda r: r["vector"],
    "arrived": lambda r: r["arrived"],
}
DEFAULT = ("device", "irq", "vector", "arrived")
#: Seconds within which an event that the kernel signals itself is there.
PATIENCE = 2.0


@click.command(
    "test",
    epilog="""\b
Examples:
  vfioctl irq test 0000:01:00.0 msi
  vfioctl irq test 01:00.0 msix --vector 3 -c work -J

\b
Exit status:
  0 it arrived, 1 it did not.""",
)
@click.argument("device", metavar="DEVICE", type=SUBJECT)
@click.argument("kind", metavar="KIND", type=KIND)
@click.option(
    "--vector", type=click.IntRange(0, 2047), default=0, show_default=True, metavar="N", help="Which one."
)
@container_option
@output_options(COLUMNS, DEFAULT)
@click.pass_obj
def command(
    session: Session, device: str, kind: str, vector: int, container: str | None, output: Output
) -> int:
    """Prove the way of an interrupt from the kernel to its eventfd: the kernel is asked to signal it.

    The device itself takes no part in that. What was enabled stays enabled, and what was not is disabled again.
    """
    from vfioctl.ops.irqs import Irqs

    with devices.opened(session, device, container) as kept:
        irqs = Irqs(kept, session.timeout)
        irq = irqs.find(kind, vector)
        arrived = irqs.test(irq, vector, PATIENCE)
    record = {"device": kept.name, "irq": irq.name, "vector": vector, "arrived": arrived}
    emit(session, output, {"schema_version": SCHEMA_VERSION, **record}, [record], COLUMNS)
    if not arrived:
        messages.note(f"{irq.name} vector {vector} of {kept.name} was signalled, and did not arrive")
    return int(ExitStatus.OK if arrived else ExitStatus.NO)
