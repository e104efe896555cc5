"""vfioctl eeh state"""

from __future__ import annotations

import click

from vfioctl.cli.containers import required_container
from vfioctl.cli.eeh import operate
from vfioctl.cli.output import Columns, Output, emit, output_options
from vfioctl.cli.records import SCHEMA_VERSION
from vfioctl.cli.session import Session

COLUMNS: Columns = {"container": lambda r: r["container"], "state": lambda r: r["state"]}


@click.command(
    "state",
    epilog="""\b
Examples:
  vfioctl eeh state -c work
  vfioctl eeh state -c work -n""",
)
@required_container
@output_options(COLUMNS, ("container", "state"))
@click.pass_obj
def command(session: Session, container: str, output: Output) -> None:
    """Show the state of a container's group as EEH sees it.

    normal; reset: it is being reset; stopped: both registers and DMA are frozen; stopped_dma: only DMA is; unavail: the
    platform is at work on it, or has given it up. It means something with one group in the container only.
    """
    record = {"container": container, "state": operate(session, container, "state")}
    emit(session, output, {"schema_version": SCHEMA_VERSION, **record}, [record], COLUMNS)
