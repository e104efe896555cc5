"""vfioctl eeh reset"""

from __future__ import annotations

import click

from vfioctl.cli.containers import changed_output, emit_changed, required_container
from vfioctl.cli.eeh import operate
from vfioctl.cli.output import Output
from vfioctl.cli.session import Session


@click.command(
    "reset",
    epilog="""\b
Examples:
  vfioctl eeh reset -c work
  vfioctl eeh reset -c work --fundamental
  vfioctl eeh reset -c work --hold && vfioctl eeh reset -c work --deactivate""",
)
@required_container
@click.option("--hot/--fundamental", "hot", default=True, help="Which kind of reset.  [default: hot]")
@click.option("--hold", is_flag=True, help="Leave the devices in reset.")
@click.option("--deactivate", is_flag=True, help="Only end a reset that was left.")
@changed_output
@click.pass_obj
def command(
    session: Session, container: str, hot: bool, hold: bool, deactivate: bool, output: Output
) -> None:
    """Reset the devices of a container through their partitionable endpoint, and end the reset.

    vfioctl eeh configure sets up what the reset has lost. All the groups of the container are reset, one after the
    other; it takes seconds.
    """
    operations = ["deactivate"] if deactivate else ["hot" if hot else "fundamental"]
    if not (hold or deactivate):
        operations.append("deactivate")
    operate(session, container, *operations)
    emit_changed(session, output, container)
