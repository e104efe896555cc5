"""vfioctl eeh enable"""

from __future__ import annotations

import click

from vfioctl.cli.containers import changed_output, emit_changed, required_container
from vfioctl.cli.eeh import operate
from vfioctl.cli.output import Output
from vfioctl.cli.session import Session


@click.command(
    "enable",
    epilog="""\b
Examples:
  vfioctl eeh enable -c work
  vfioctl eeh enable --container work""",
)
@required_container
@changed_output
@click.pass_obj
def command(session: Session, container: str, output: Output) -> None:
    """Let EEH watch the devices of a container: it freezes a device that makes an error, so that nothing of it spreads.

    POWER machines watch all devices from the start, as a rule; a virtual machine's firmware asks for it in this way.
    """
    operate(session, container, "enable")
    emit_changed(session, output, container)
