"""vfioctl eeh disable"""

from __future__ import annotations

import click

from vfioctl.cli.containers import changed_output, emit_changed, required_container
from vfioctl.cli.eeh import operate
from vfioctl.cli.output import Output
from vfioctl.cli.session import Session


@click.command(
    "disable",
    epilog="""\b
Examples:
  vfioctl eeh disable -c work
  vfioctl eeh disable --container work""",
)
@required_container
@changed_output
@click.pass_obj
def command(session: Session, container: str, output: Output) -> None:
    """End what vfioctl eeh enable began. The kernel takes it, and keeps watching where the platform always does."""
    operate(session, container, "disable")
    emit_changed(session, output, container)
