"""vfioctl list-groups"""

from __future__ import annotations

import click

from vfioctl.cli import messages, records
from vfioctl.cli.arguments import SUBJECT, group_numbers, resolve_all
from vfioctl.cli.output import Columns, Output, emit, output_options
from vfioctl.cli.session import Session
from vfioctl.policy.viability import judge

COLUMNS: Columns = {
    "group": lambda r: r["id"],
    "name": lambda r: r["name"],
    "type": lambda r: r["type"],
    "viable": lambda r: r["viable"],
    "usable": lambda r: r["usable"],
    "members": lambda r: len(r["devices"]),
    "addresses": lambda r: [d["address"] for d in r["devices"]],
    "drivers": lambda r: records.drivers(r["devices"]),
    "node": lambda r: r["node"] and r["node"]["path"],
    "owner": lambda r: r["node"] and f"{r['node']['uid']}:{r['node']['gid']}",
    "mode": lambda r: r["node"] and r["node"]["mode"],
    # With --devices a row is a member of a group:
    "address": lambda r: r.get("address"),
    "class": lambda r: r.get("class"),
    "ids": lambda r: r.get("vendor") and f"{r['vendor']}:{r['device']}",
    "driver": lambda r: r.get("driver"),
    "override": lambda r: r.get("driver_override"),
}
DEFAULT = ("group", "type", "viable", "members", "drivers", "node", "owner", "mode")
DEFAULT_DEVICES = ("group", "address", "class", "ids", "driver", "viable", "node")


@click.command(
    "list-groups",
    epilog="""\b
Examples:
  vfioctl list-groups
  vfioctl list-groups --devices 0000:01:00.0
  vfioctl list-groups -n -o group,viable | while read group viable; do ...; done
  vfioctl list-groups -J | jq '.groups[] | select(.viable) | .id'""",
)
@click.argument("subjects", metavar="[GROUP|DEVICE]...", nargs=-1, type=SUBJECT)
@click.option("--devices", is_flag=True, help=f"A row for each member: {', '.join(DEFAULT_DEVICES)}.")
@output_options(COLUMNS, DEFAULT)
@click.pass_obj
def command(
    session: Session,
    subjects: tuple[str, ...],
    devices: bool,
    output: Output,
) -> None:
    """List IOMMU groups: type, viability, members, drivers, and the node with its owner and mode.

    All groups, or those named, or those of the devices named. Viability is judged from sysfs by the kernel's own
    rule; check-viable explains it member by member.
    """
    snapshot = session.snapshot(subjects, ungrouped=bool(subjects))
    groups = snapshot.groups
    if subjects:
        wanted = group_numbers(snapshot, resolve_all(session, snapshot, subjects))
        groups = tuple(group for group in groups if group.id in wanted)
    found = [records.group(group, judge(group, snapshot.kernel)) for group in groups]
    rows = [{**r, **d} for r in found for d in r["devices"]] if devices else found
    if devices and not output.chosen:
        output = output._replace(columns=DEFAULT_DEVICES)
    emit(
        session,
        output,
        records.document("groups", found),
        rows,
        COLUMNS,
    )
    if not snapshot.groups:
        _say_why_empty(session)


def _say_why_empty(session: Session) -> None:
    from vfioctl.host.reader import read_platform
    from vfioctl.policy.diagnosis import why_no_groups

    cause, cure = why_no_groups(read_platform(session.root))
    messages.note(f"no IOMMU groups: {cause}")
    messages.note(f"  cure: {cure}")
