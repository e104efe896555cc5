"""vfioctl selftest"""

from __future__ import annotations

import click

from vfioctl.cli import messages
from vfioctl.cli.arguments import SUBJECT, group_numbers, resolve
from vfioctl.cli.containers import container_option
from vfioctl.cli.output import Columns, Output, emit, output_options
from vfioctl.cli.records import SCHEMA_VERSION, subject
from vfioctl.cli.session import Session
from vfioctl.errors import ExitStatus
from vfioctl.model import Device

COLUMNS: Columns = {
    "verdict": lambda r: r["verdict"],
    "step": lambda r: r["step"],
    "subject": lambda r: r["subject"],
    "detail": lambda r: r["detail"],
    "cure": lambda r: r["cure"],
}
DEFAULT = ("verdict", "step", "subject", "detail")


@click.command(
    "selftest",
    epilog="""\b
Examples:
  vfioctl selftest 26
  vfioctl selftest 0000:01:00.0 -J | jq '.checks[] | select(.verdict != "ok")'
  vfioctl selftest 26 > report || vfioctl check-viable 26

\b
Exit status:
  0 nothing failed, 1 something did.""",
)
@click.argument("name", metavar="GROUP|DEVICE", type=SUBJECT)
@container_option
@output_options(COLUMNS, DEFAULT)
@click.pass_obj
def command(session: Session, name: str, container: str | None, output: Output) -> int:
    """Try the whole way from a group's node to a device that answers, a verdict for each step.

    Node, permission, viability, container and IOMMU, IOVA ranges, a page mapped and unmapped, and of each device on a
    VFIO driver: opened, regions, configuration space, interrupts by a loopback, reset; and that all is given back. What
    cannot be tested is said to be not-tested, and why. Devices are reset by it, but for those in an open container.
    """
    from vfioctl.ops.selftest import Selftest, testable
    from vfioctl.policy.checks import passed
    from vfioctl.policy.subjects import find_group
    from vfioctl.policy.viability import judge

    snapshot = session.snapshot((name,))
    found = resolve(session, snapshot, name)
    (number,) = group_numbers(snapshot, [found])
    group = find_group(snapshot, number)
    devices = [found] if isinstance(found, Device) else testable(group.devices)
    run = Selftest(session.machine, judge(group, snapshot.kernel), snapshot.kernel, devices)
    checks = run.run(container)
    records = [
        {
            "step": check.step,
            "subject": check.subject,
            "verdict": check.verdict.value,
            "detail": check.detail,
            "cure": check.cure,
        }
        for check in checks
    ]
    document = {
        "schema_version": SCHEMA_VERSION,
        "subject": subject(found),
        "group": number,
        "passed": passed(checks),
        "checks": records,
    }
    emit(session, output, document, records, COLUMNS)
    for check in checks:
        if check.cure is not None:
            messages.note(f"{check.step}: {check.detail}; cure: {check.cure}")
    return int(ExitStatus.OK if passed(checks) else ExitStatus.NO)
