"""vfioctl doctor"""

from __future__ import annotations

import click

from vfioctl.cli import messages, records
from vfioctl.cli.arguments import SUBJECT, resolve_all
from vfioctl.cli.output import Columns, Output, emit, output_options
from vfioctl.cli.session import Session
from vfioctl.errors import ExitStatus, UsageError

COLUMNS: Columns = {
    "severity": lambda r: r["severity"],
    "code": lambda r: r["code"],
    "subject": lambda r: r["subject"],
    "detail": lambda r: r["detail"],
    "evidence": lambda r: [f"{e['file']}: {e['value']}" for e in r["evidence"]],
    "cure": lambda r: r["cure"],
}
DEFAULT = ("severity", "code", "subject", "detail", "cure")


@click.command(
    "doctor",
    epilog="""\b
Examples:
  vfioctl doctor
  vfioctl doctor 0000:01:00.0 --user alice --memory 8G
  vfioctl doctor -q || vfioctl doctor -o code,evidence,cure
  vfioctl doctor -J | jq -r '.findings[] | select(.severity == "error") | .cure'

\b
Exit status:
  0 healthy, 1 there is an error or a warning, 3 no such group, device, user, process or unit.""",
)
@click.argument("subjects", metavar="[GROUP|DEVICE]...", nargs=-1, type=SUBJECT)
@click.option("--user", metavar="NAME", help="Whose limit of locked memory counts: a user's, after a login.")
@click.option(
    "--pid", metavar="PID", type=click.IntRange(min=1), help="The same: that of a process which runs."
)
@click.option("--unit", metavar="UNIT", help="The same: that of a service of systemd.")
@click.option(
    "--memory", metavar="SIZE", help="How much memory is to be locked, as for map --size.  [default: 64M]"
)
@click.option("-a", "--all", "everything", is_flag=True, help="A row for each check that found nothing, too.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing: the exit status is the answer.")
@output_options(COLUMNS, DEFAULT)
@click.pass_obj
def command(
    session: Session,
    subjects: tuple[str, ...],
    user: str | None,
    pid: int | None,
    unit: str | None,
    memory: str | None,
    everything: bool,
    quiet: bool,
    output: Output,
) -> int:
    """Say whether this host is ready for VFIO, or what keeps devices from being assigned; change nothing.

    Each finding has a severity, the file and value that are evidence for it, and a cure. An error keeps assignment from
    working; with a warning it works, but is unsafe or will surprise; an info is worth knowing, and does not count.
    A host on which ordinary devices have their ordinary drivers is healthy.

    With a GROUP or DEVICE of the host's findings only the errors are told, and of the device all that stands in its
    way. What the caller may not read is said to be unknown, which is neither good nor bad.
    """
    from vfioctl.cli.examination import case_of
    from vfioctl.policy.doctor import examine, findings, healthy
    from vfioctl.policy.sizes import parse_size

    if sum(option is not None for option in (user, pid, unit)) > 1:
        raise UsageError("--user, --pid, --unit: one of them")
    size = None if memory is None else parse_size(memory)
    snapshot = session.snapshot(subjects)
    asked = resolve_all(session, snapshot, subjects)
    checks = examine(case_of(session, snapshot, asked, (user, pid, unit), size))
    found = findings(checks)
    if not quiet:
        rows = [records.finding(finding) for finding in found]
        shown = [*rows, *(records.silent_check(c) for c in checks if not c.findings)] if everything else rows
        emit(session, output, records.diagnosis(healthy(checks), rows, checks), shown, COLUMNS)
        unknown = dict.fromkeys(check.name for check in checks if not check.known)
        if unknown and not everything:
            messages.note(f"could not be checked: {', '.join(unknown)} (--all says why)")
    return int(ExitStatus.OK if healthy(checks) else ExitStatus.NO)
