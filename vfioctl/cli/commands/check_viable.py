"""vfioctl check-viable"""

from __future__ import annotations

import os
from typing import Any

import click

from vfioctl.cli import messages, records
from vfioctl.cli.arguments import SUBJECT, group_of, resolve_all
from vfioctl.cli.output import Columns, Output, emit, output_options
from vfioctl.cli.session import Session
from vfioctl.errors import ExitStatus, VfioctlError, worst
from vfioctl.model import Device, IommuGroup, Snapshot
from vfioctl.policy.viability import judge

COLUMNS: Columns = {
    "subject": lambda r: r["subject"],
    "group": lambda r: r["group"],
    "viable": lambda r: r["viable"],
    "usable": lambda r: r["usable"],
    "address": lambda r: r["address"],
    "driver": lambda r: r["driver"],
    "verdict": lambda r: r["verdict"],
    "reason": lambda r: r["reason"],
    "detail": lambda r: r["detail"],
    "cure": lambda r: r["cure"],
    "live": lambda r: r["live"] and r["live"]["viable"],
}
DEFAULT = ("group", "viable", "address", "driver", "verdict", "reason")


@click.command(
    "check-viable",
    epilog="""\b
Examples:
  vfioctl check-viable 26
  vfioctl check-viable -q 0000:01:00.0 && echo "ready for VFIO"
  vfioctl check-viable -q --usable 26 || vfioctl bind --group 26
  vfioctl check-viable 26 -J | jq -r '.results[].members[] | select(.verdict == "blocking") | .cure'

\b
Exit status:
  0 all viable (with --usable: and usable), 1 one is not, 3 no such group or device; with --live also
  4 no permission, 6 somebody holds the group.""",
)
@click.argument("subjects", metavar="GROUP|DEVICE...", nargs=-1, required=True, type=SUBJECT)
@click.option("-q", "--quiet", is_flag=True, help="Print nothing: the exit status is the answer.")
@click.option("--usable", is_flag=True, help="Ask for usable, not only viable.")
@click.option(
    "--live",
    is_flag=True,
    help="Ask the kernel as well: open the group node and get its status. While it is open "
    "(an instant) nobody else can open it.",
)
@output_options(COLUMNS, DEFAULT)
@click.pass_obj
def command(
    session: Session,
    subjects: tuple[str, ...],
    quiet: bool,
    usable: bool,
    live: bool,
    output: Output,
) -> int:
    """Say whether groups are viable, member by member, each with a reason and the command that would help.

    Viable is the kernel's word: no member has a host driver that owns its DMA. Usable says that a user could open
    the group now: a member is bound to a VFIO driver, firmware wants no 1:1 mapping, and interrupts are isolated.
    """
    snapshot = session.snapshot(subjects)
    failures: list[ExitStatus] = []
    results = [
        _result(session, snapshot, subject, live, failures)
        for subject in resolve_all(session, snapshot, subjects)
    ]
    if not quiet:
        rows = [{**result, **member} for result in results for member in result["members"] or [_NOBODY]]
        emit(
            session,
            output,
            records.document("results", results),
            rows,
            COLUMNS,
        )
        for result in results:
            _explain(result)
    good = all(result["usable" if usable else "viable"] for result in results)
    return int(worst(ExitStatus.OK if good else ExitStatus.NO, *failures))


def _explain(result: dict[str, Any]) -> None:
    """What stands in the way, and the cure, for people."""
    for member in result["members"]:
        if member["verdict"] == "blocking":
            messages.note(f"{member['address']}: {member['detail']}; cure: {member['cure']}")
    for problem in result["problems"]:
        cure = f"; cure: {problem['cure']}" if problem["cure"] else ""
        messages.note(f"{result['subject']}: {problem['code']}: {problem['detail']}{cure}")


_NOBODY = dict.fromkeys(("address", "driver", "verdict", "reason", "detail", "cure"))


def _result(
    session: Session,
    snapshot: Snapshot,
    subject: IommuGroup | Device,
    live: bool,
    failures: list[ExitStatus],
) -> dict[str, Any]:
    """The record of one subject. What the kernel refuses to tell is one of its problems, and goes to ``failures``."""
    group = group_of(snapshot, subject)
    if group is None:
        assert isinstance(subject, Device)
        from vfioctl.policy.diagnosis import why_no_group

        cause, cure = why_no_group(subject, snapshot.kernel)
        return {
            "subject": subject.address,
            "group": None,
            "viable": False,
            "usable": False,
            "members": [],
            "problems": [
                {
                    "code": "no-iommu-group",
                    "detail": f"the device is in no IOMMU group: {cause}",
                    "cure": cure,
                }
            ],
            "live": None,
        }
    verdict = judge(group, snapshot.kernel)
    problems = [records.problem(problem) for problem in verdict.problems]
    status = None
    if live and group.node is not None:
        from vfioctl.ops.status import group_status
        from vfioctl.policy.refusals.facts import state_of

        state = state_of(verdict, snapshot.kernel, str(os.geteuid()))
        try:
            status = group_status(group.id, state, session.machine.dev, session.timeout)
        except VfioctlError as error:
            problems.append({"code": error.code, "detail": error.message, "cure": error.hint})
            failures.append(error.status)
    return {
        "subject": str(subject.id) if isinstance(subject, IommuGroup) else subject.address,
        "group": group.id,
        "viable": verdict.viable if status is None else status.viable,
        "usable": verdict.usable and (status is None or status.viable),
        "members": [records.member(member) for member in verdict.members],
        "problems": problems,
        "live": status and {"viable": status.viable, "container_set": status.container_set},
    }
