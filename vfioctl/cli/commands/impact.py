"""vfioctl impact"""

from __future__ import annotations

import click

from vfioctl.cli import records
from vfioctl.cli.arguments import SUBJECT, group_of, resolve_all
from vfioctl.cli.output import Columns, Output, emit, output_options
from vfioctl.cli.session import Session
from vfioctl.errors import ExitStatus
from vfioctl.model import Device, IommuGroup, Snapshot
from vfioctl.policy.impact import impacts
from vfioctl.policy.selection import members_to_bind
from vfioctl.policy.viability import is_vfio_bound, judge

COLUMNS: Columns = {
    "subject": lambda r: r["subject"],
    "address": lambda r: r["address"],
    "bus": lambda r: r["bus"],
    "group": lambda r: r["group"],
    "driver": lambda r: r["driver"],
    "guard": lambda r: r["guard"],
    "level": lambda r: r["level"],
    "evidence": lambda r: r["evidence"],
    "allowable": lambda r: r["allowable"],
}
DEFAULT = ("address", "group", "driver", "guard", "level", "evidence")
_NOTHING = dict.fromkeys(("guard", "level", "evidence", "allowable"))


@click.command(
    "impact",
    epilog="""\b
Examples:
  vfioctl impact 0000:01:00.0 --group
  vfioctl impact -q 26 && vfioctl bind 26
  vfioctl impact 26 eth0 -J | jq -r '.results[].impacts[] | select(.level == "refuse") | .guard'

\b
Exit status:
  0 the host loses nothing that a guard protects, 1 something is in use, 3 no such group or device.""",
)
@click.argument("subjects", metavar="GROUP|DEVICE...", nargs=-1, required=True, type=SUBJECT)
@click.option(
    "--group", "whole", is_flag=True, help="A DEVICE stands for its whole group, as for bind --group."
)
@click.option("-q", "--quiet", is_flag=True, help="Print nothing: the exit status is the answer.")
@output_options(COLUMNS, DEFAULT)
@click.pass_obj
def command(session: Session, subjects: tuple[str, ...], whole: bool, quiet: bool, output: Output) -> int:
    """Show what the host would lose if devices went to a VFIO driver, finding by finding, and change nothing.

    All devices are judged as if they went together; a GROUP stands for the members that a bind of it moves. The guards
    of level refuse stop a bind that does not allow them by name; those of level warn stop nothing. Who is not root
    sees less, and is told what.
    """
    from vfioctl.host.usage import uses_of

    snapshot = session.snapshot()
    asked: dict[str, str] = {}
    goals: dict[str, str | None] = {}
    for subject in resolve_all(session, snapshot, subjects):
        moved = _moved(snapshot, subject)
        if whole and isinstance(subject, Device) and (group := group_of(snapshot, subject)) is not None:
            moved += _moved(snapshot, group)
        for device, goal in moved:
            asked.setdefault(device.key, records.subject(subject))
            goals.setdefault(device.key, goal)
    found = impacts(snapshot, goals, uses_of(session.root, list(goals)))
    if not quiet:
        results = [records.impact(asked[impact.device.key], impact) for impact in found]
        rows = [{**result, **use} for result in results for use in result["impacts"] or [_NOTHING]]
        emit(session, output, records.document("results", results), rows, COLUMNS)
    return int(
        ExitStatus.NO if any(use.refuses for impact in found for use in impact.uses) else ExitStatus.OK
    )


def _moved(snapshot: Snapshot, subject: IommuGroup | Device) -> list[tuple[Device, str | None]]:
    """The devices that a bind of ``subject`` moves, and the driver that each goes to: one on a VFIO driver stays."""
    endpoints, bridges = (
        members_to_bind(judge(subject, snapshot.kernel))
        if isinstance(subject, IommuGroup)
        else ([subject], [])
    )
    goals = [(device, device.driver if is_vfio_bound(device) else "vfio-pci") for device in endpoints]
    return goals + [(bridge, None) for bridge in bridges]
