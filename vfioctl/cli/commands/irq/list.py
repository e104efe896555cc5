"""vfioctl irq list"""

from __future__ import annotations

import click

from vfioctl.cli import devices
from vfioctl.cli.arguments import SUBJECT
from vfioctl.cli.containers import container_option
from vfioctl.cli.output import Columns, Output, emit, output_options
from vfioctl.cli.records import SCHEMA_VERSION, irq
from vfioctl.cli.session import Session

COLUMNS: Columns = {
    "index": lambda r: r["index"],
    "name": lambda r: r["name"],
    "vectors": lambda r: r["vectors"],
    "flags": lambda r: r["flags"],
    "enabled": lambda r: r["enabled"],
}
DEFAULT = ("index", "name", "vectors", "flags", "enabled")


@click.command(
    "list",
    epilog="""\b
Examples:
  vfioctl irq list 0000:01:00.0
  vfioctl irq list 01:00.0 -c work -J | jq '.irqs[] | select(.enabled != []) | .name'""",
)
@click.argument("device", metavar="DEVICE", type=SUBJECT)
@click.option("-a", "--all", "everything", is_flag=True, help="Also those that the device does not have.")
@container_option
@output_options(COLUMNS, DEFAULT)
@click.pass_obj
def command(session: Session, device: str, everything: bool, container: str | None, output: Output) -> None:
    """List the interrupts of a device: how many vectors, what can be done with them, and which are enabled.

    Of a PCI device these are intx, msi, msix, err (an uncorrectable error), and req (the host wants the device back).
    Flags: eventfd, maskable, automasked (masked when it fires), noresize (vectors are enabled all at once).
    """
    from vfioctl.ops.irqs import Irqs

    with devices.opened(session, device, container) as kept:
        found = Irqs(kept, session.timeout).all
    records = [irq(each) for each in found if everything or each.vectors]
    emit(
        session,
        output,
        {"schema_version": SCHEMA_VERSION, "device": kept.name, "irqs": records},
        records,
        COLUMNS,
    )
