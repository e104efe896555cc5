"""vfioctl holders"""

from __future__ import annotations

from collections.abc import Collection

import click

from vfioctl.cli import messages, records
from vfioctl.cli.arguments import SUBJECT, resolve_all
from vfioctl.cli.output import Columns, Output, emit, output_options
from vfioctl.cli.session import Session
from vfioctl.errors import ExitStatus, UsageError
from vfioctl.host.holders.holder import Found
from vfioctl.model import Device, IommuGroup, Snapshot, shown

COLUMNS: Columns = {
    "device": lambda r: shown(f"{r['bus']}/{r['address']}"),
    "group": lambda r: r["group"],
    "pid": lambda r: r["pid"],
    "command": lambda r: r["command"],
    "user": lambda r: r["user"] or r["uid"],
    "uid": lambda r: r["uid"],
    "unit": lambda r: r["unit"],
    "container": lambda r: r["container"],
    "node": lambda r: r["node"],
    "kind": lambda r: r["kind"],
    "certain": lambda r: r["certain"],
    "what": lambda r: r["what"],
}
DEFAULT = ("device", "pid", "command", "user", "unit", "container", "node", "certain", "what")


@click.command(
    "holders",
    epilog="""\b
Examples:
  vfioctl holders
  vfioctl holders 26 nvme0n1
  vfioctl holders -q 0000:01:00.0 || vfioctl unbind 0000:01:00.0
  vfioctl holders 0000:01:00.0 -J | jq -r '.holders[] | select(.certain) | .pid' | sort -u

\b
Exit status:
  0 answered, whether or not anybody holds anything; with --quiet: 0 somebody does, 1 nobody who could be
  seen does; 3 no such group or device.""",
)
@click.argument("subjects", metavar="[GROUP|DEVICE]...", nargs=-1, type=SUBJECT)
@click.option("-q", "--quiet", is_flag=True, help="Print nothing: the exit status is the answer.")
@output_options(COLUMNS, DEFAULT)
@click.pass_obj
def command(session: Session, subjects: tuple[str, ...], quiet: bool, output: Output) -> int:
    """Show which processes hold devices: pid, command, user, systemd unit, container or virtual machine, and the node.

    Without arguments all devices that are in an IOMMU group; a GROUP stands for its members. Looked for are open files
    and mappings of the group's node, of the device's own nodes (VFIO, graphics, disks, input, sound, USB, ...), and of
    what is built on its disks. A network interface that is up and has an address holds its device without a process.
    A bridge that is named is held by all that holds what is behind it.

    A holder that is not certain holds some VFIO device, perhaps this one: the kernel does not always say which. What
    other users' processes hold only root can see; how many processes could not be looked into is said on stderr.
    """
    snapshot = session.snapshot()
    devices = {device.key: device for device in _devices(session, snapshot, subjects)}
    found, unseen = _found(session, devices)
    if not quiet:
        rows = [records.holder(holder, devices[holder.key].group) for holder in found]
        emit(session, output, {**records.document("holders", rows), "unseen": unseen}, rows, COLUMNS)
    if unseen is None:
        messages.note("processes of other users are hidden here (hidepid): root sees all of them")
    elif unseen:
        messages.note(f"{unseen} processes could not be looked into, for example those of other users")
    return int(ExitStatus.NO if quiet and not found else ExitStatus.OK)


def _found(session: Session, keys: Collection[str]) -> Found:
    """The processes and the interfaces. Raises UsageError for a tree of files that has no record of processes."""
    if not session.replay:
        found, unseen = session.machine.find_holders(keys)
        return Found((*found, *session.machine.interfaces_up(list(keys))), unseen)
    from vfioctl.host.holders.interfaces import interfaces_up
    from vfioctl.host.recorded import holders_of, recorded

    record = recorded(session.root)
    if record is None:
        raise UsageError(
            "files do not tell which processes hold devices, unless a snapshot has recorded it",
            hint="take one on the host in question: vfioctl snapshot",
            code="no-record",
        )
    found, unseen = holders_of(record, keys)
    return Found((*found, *interfaces_up(session.root, list(keys))), unseen)


def _devices(session: Session, snapshot: Snapshot, subjects: tuple[str, ...]) -> list[Device]:
    """The devices in question: of a group's members not the bridges, whose nodes are those of the devices behind."""
    found: list[Device] = []
    for subject in resolve_all(session, snapshot, subjects) if subjects else snapshot.groups:
        members = subject.devices if isinstance(subject, IommuGroup) else ()
        found += [device for device in members if not device.is_bridge]
        if isinstance(subject, Device):
            found.append(subject)
    return found
