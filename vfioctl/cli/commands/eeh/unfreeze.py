"""vfioctl eeh unfreeze"""

from __future__ import annotations

import click

from vfioctl.cli.containers import changed_output, emit_changed, required_container
from vfioctl.cli.eeh import operate
from vfioctl.cli.output import Output
from vfioctl.cli.session import Session


@click.command(
    "unfreeze",
    epilog="""\b
Examples:
  vfioctl eeh unfreeze -c work
  vfioctl eeh unfreeze -c work --io""",
)
@required_container
@click.option("--io", is_flag=True, help="Access to its registers (MMIO) only.")
@click.option("--dma", is_flag=True, help="Its DMA only.")
@changed_output
@click.pass_obj
def command(session: Session, container: str, io: bool, dma: bool, output: Output) -> None:
    """Let a frozen group work again, without a reset: its registers, its DMA, or both."""
    if not (io or dma):
        io = dma = True
    operate(session, container, *(["unfreeze-io"] if io else []), *(["unfreeze-dma"] if dma else []))
    emit_changed(session, output, container)
