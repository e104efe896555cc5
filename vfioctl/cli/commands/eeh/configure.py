"""vfioctl eeh configure"""

from __future__ import annotations

import click

from vfioctl.cli.containers import changed_output, emit_changed, required_container
from vfioctl.cli.eeh import operate
from vfioctl.cli.output import Output
from vfioctl.cli.session import Session


@click.command(
    "configure",
    epilog="""\b
Examples:
  vfioctl eeh configure -c work
  vfioctl eeh configure --container work""",
)
@required_container
@changed_output
@click.pass_obj
def command(session: Session, container: str, output: Output) -> None:
    """Set up the bridges of a group again after a reset, so that its devices answer."""
    operate(session, container, "configure")
    emit_changed(session, output, container)
