"""What permit and revoke share: resolve the groups, set, read back, report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vfioctl.cli import messages, records
from vfioctl.cli.arguments import group_numbers, resolve_all
from vfioctl.cli.output import Columns, Output, emit
from vfioctl.cli.session import Session
from vfioctl.errors import ExitStatus
from vfioctl.policy.subjects import find_group, named_on_bus

if TYPE_CHECKING:
    from vfioctl.host.machine import Machine
    from vfioctl.policy.access import AccessWish

COLUMNS: Columns = {
    "path": lambda r: r["path"],
    "uid": lambda r: r["uid"],
    "gid": lambda r: r["gid"],
    "mode": lambda r: r["mode"],
    "acl": lambda r: r["acl"],
    "changed": lambda r: r["changed"],
}
DEFAULT = ("path", "uid", "gid", "mode", "changed")


def change_access(
    session: Session,
    subjects: tuple[str, ...],
    wish: AccessWish,
    name: str,
    wait: float | None,
    output: Output,
) -> int:
    """Gives the nodes of the groups what ``wish`` says and prints what they have then."""
    from vfioctl.ops.access import plan_access, set_access

    machine = session.machine
    machine.named = named_on_bus(subjects)

    def paths() -> tuple[str, ...]:
        snapshot = machine.snapshot()
        numbers = group_numbers(snapshot, resolve_all(session, snapshot, subjects))
        return plan_access(snapshot, [find_group(snapshot, number) for number in sorted(numbers)])

    outcome, settled = set_access(machine, paths, wish, name, session.tell, wait)
    found = []
    for path, now in outcome.after.access.items():
        before = outcome.before.access.get(path)
        found.append(
            {
                "path": path,
                "uid": now.uid,
                "gid": now.gid,
                "mode": f"{now.mode:04o}",
                "acl": now.acl,
                "changed": now != before,
            }
        )
    document = {"schema_version": records.SCHEMA_VERSION, "changed": outcome.changed, "nodes": found}
    emit(session, output, document, found, COLUMNS)
    if name == "permit":
        warn_container(machine)
    return int(ExitStatus.OK if settled else ExitStatus.TIMEOUT)


def warn_container(machine: Machine) -> None:
    """Says when a user could open a group's node and yet no container."""
    container = machine.access("/dev/vfio/vfio")
    if container is not None and container.mode & 0o006 != 0o006:
        messages.warn(
            f"/dev/vfio/vfio has mode {container.mode:04o}, so a user may not open a container; the kernel makes it "
            "0666 and that is safe (it gives access to no device); cure: chmod 0666 /dev/vfio/vfio"
        )
