"""vfioctl irq wait"""

from __future__ import annotations

import click

from vfioctl.cli import devices
from vfioctl.cli.arguments import PATIENCE, SUBJECT
from vfioctl.cli.containers import container_option
from vfioctl.cli.irqs import KIND
from vfioctl.cli.output import Columns, Output, emit, output_options
from vfioctl.cli.records import SCHEMA_VERSION
from vfioctl.cli.session import Session
from vfioctl.errors import DeadlinePassed, ExitStatus, UsageError

COLUMNS: Columns = {
    "irq": lambda r: r["irq"],
    "vector": lambda r: r["vector"],
    "count": lambda r: r["count"],
}
DEFAULT = ("irq", "vector", "count")


@click.command(
    "wait",
    epilog="""\b
Examples:
  vfioctl irq wait 0000:01:00.0 msi -c work --timeout 5
  vfioctl irq wait 01:00.0 intx --unmask --count 3
  vfioctl irq wait 01:00.0 req --timeout 3600 && vfioctl container close work

\b
Exit status:
  0 it came, 124 it did not within --timeout (what came of several is printed).""",
)
@click.argument("device", metavar="DEVICE", type=SUBJECT)
@click.argument("kind", metavar="KIND", type=KIND)
@click.option(
    "--vector", type=click.IntRange(0, 2047), metavar="N", help="Only this one.  [default: all enabled]"
)
@click.option(
    "--timeout",
    "patience",
    type=PATIENCE,
    metavar="SECONDS",
    help="How long to wait; 0 looks only.  [default: vfioctl's own --timeout]",
)
@click.option(
    "--count",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="How many to wait for, of all vectors.",
)
@click.option("--unmask", is_flag=True, help="Unmask what the kernel masks when it fires (INTx), each time.")
@container_option
@output_options(COLUMNS, DEFAULT)
@click.pass_obj
def command(
    session: Session,
    device: str,
    kind: str,
    vector: int | None,
    patience: float | None,
    count: int,
    unmask: bool,
    container: str | None,
    output: Output,
) -> int:
    """Wait for an interrupt of a device, and say how often which vector has come since it was last asked.

    Enables it when it is not (one vector, or those up to --vector). INTx stays masked once it has come, until irq
    unmask or with --unmask. The host's request for the device (req) is only looked at: it stays there for others.
    """
    from vfioctl.ops.irqs import Irqs

    with devices.opened(session, device, container) as kept:
        irqs = Irqs(kept, session.timeout)
        irq = irqs.find(kind, vector)
        if unmask and not irq.automasked:
            raise UsageError(f"{irq.name} is not masked when it fires: --unmask is for INTx")
        if count > 1 and irq.automasked and not unmask:
            raise UsageError(
                f"{irq.name} is masked when it has come once: --count {count} goes with --unmask"
            )
        if not irq.enabled:
            irqs.enable(irq, (vector or 0) + 1)
        seconds = session.timeout if patience is None else patience
        seen = irqs.wait(irq, () if vector is None else (vector,), count, seconds, unmask)
    if not seen:
        raise DeadlinePassed(
            f"no {irq.name} of {kept.name} came within {seconds:g} s",
            hint="look at what the device is told (vfioctl region read), and whether it may be a bus master"
            if irq.name in ("msi", "msix")
            else None,
            subject=kept.name,
            code="no-interrupt",
        )
    records = [{"irq": irq.name, "vector": number, "count": fired} for number, fired in seen.items()]
    total = sum(seen.values())
    document = {"schema_version": SCHEMA_VERSION, "device": kept.name, "irq": irq.name, "count": total}
    vectors = [{"vector": number, "count": fired} for number, fired in seen.items()]
    emit(session, output, {**document, "vectors": vectors}, records, COLUMNS)
    return int(ExitStatus.OK if total >= count else ExitStatus.TIMEOUT)
