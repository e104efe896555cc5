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
  0 put back, or nothing to put back; 4 not root; 6 another vfioctl is changing devices; 9 something could not be put
  back: it says what, and can be run again.""",
)
@wait_option
@output_options()
@click.pass_obj
def command(session: Session, wait: float | None, output: Output) -> None:
    """Put back what was there before an interrupted change, or before a run that was killed.

    That is drivers, overrides, virtual functions, and owners, modes and access control lists of nodes, as vfioctl
    recorded them in /run/vfioctl before its first write; a driver that has gone is loaded again. While such a record is
    left over, changing commands refuse to run. Devices that a living run has lent to its command are left alone; those
    that somebody still holds are waited for, as long as --timeout allows.
    """
    from vfioctl.ops.restore import recover

    journals = recover(session.machine, session.tell, wait)
    if output.format in ("json", "yaml"):
        document = {
            **records.document("changed", bool(journals)),
            "command": journals[0].command if journals else None,
            "devices": sorted({key for journal in journals for key in journal.before.bindings}),
        }
        emit(session, output, document)
    elif not journals:
        messages.note("nothing to recover: no change was interrupted")
    else:
        for journal in journals:
            what = ", ".join(shown(key) for key in journal.before.bindings) or "the nodes"
            messages.note(f"the state before the interrupted {journal.command} is back: {what}")
