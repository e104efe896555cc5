"""vfioctl recover"""

from __future__ import annotations

import click

from vfioctl.cli import messages, records
from vfioctl.cli.changing import wait_option
from vfioctl.cli.output import Output, emit, output_options
from vfioctl.cli.session import Session
from vfioctl.model import shown


@click.command(
    "recover",
    epilog="""\b
Examples:
  vfioctl recover
  vfioctl -v recover -J

\b
Exit status:
  0 put back, or nothing to put back; 9 something could not be put back: it says what, and can be run again.""",
)
@wait_option
@output_options()
@click.pass_obj
def command(session: Session, wait: float | None, output: Output) -> None:
    """Put back the drivers, overrides, owners and modes from before a change that was interrupted.

    vfioctl records them in /run/vfioctl before its first write. While such a record is left over, changing commands
    refuse to run.
    """
    from vfioctl.ops.restore import recover

    journal = recover(session.machine, session.tell, wait)
    if output.format in ("json", "yaml"):
        document = {
            **records.document("changed", journal is not None),
            "command": journal and journal.command,
            "devices": sorted(journal.before.bindings) if journal else [],
        }
        emit(session, output, document)
    elif journal is None:
        messages.note("nothing to recover: no change was interrupted")
    else:
        what = ", ".join(shown(key) for key in journal.before.bindings) or "the nodes"
        messages.note(f"the state before the interrupted {journal.command} is back: {what}")
