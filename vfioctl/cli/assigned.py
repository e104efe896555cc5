"""How bind and unbind report: the devices as they are now, read back."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vfioctl.cli import messages, records
from vfioctl.cli.output import Columns, Output, emit
from vfioctl.cli.session import Session
from vfioctl.errors import visible
from vfioctl.model import Use, shown
from vfioctl.policy.planning import as_shell
from vfioctl.policy.viability import judge

if TYPE_CHECKING:
    from vfioctl.host.machine import Machine
    from vfioctl.ops.assign import Done, Plan
    from vfioctl.policy.access import AccessWish

COLUMNS: Columns = {
    "address": lambda r: r["address"],
    "group": lambda r: r["group"],
    "driver": lambda r: r["driver"],
    "before": lambda r: r["driver_before"],
    "override": lambda r: r["driver_override"],
    "changed": lambda r: r["changed"],
    "node": lambda r: r["node"] and r["node"]["path"],
    "owner": lambda r: r["node"] and f"{r['node']['uid']}:{r['node']['gid']}",
    "mode": lambda r: r["node"] and r["node"]["mode"],
    "cdev": lambda r: r["cdev"] and r["cdev"]["path"],
}
DEFAULT = ("address", "group", "driver", "before", "changed", "node", "owner", "mode")


def report(session: Session, output: Output, done: Done) -> None:
    """Prints each device of the change as it is now."""
    nodes = {group.id: group.node for group in done.snapshot.groups}
    found: list[dict[str, Any]] = []
    for device in done.snapshot.devices:
        if device.key in done.plan.devices:
            before = done.outcome.before.bindings[device.key]
            after = done.outcome.after.bindings[device.key]
            if device.key in done.plan.request.witnesses and before == after:
                continue
            found.append(
                {
                    "address": device.address,
                    "bus": device.bus,
                    "group": device.group,
                    "driver": device.driver,
                    "driver_before": before.driver,
                    "driver_override": device.driver_override,
                    "changed": before != after,
                    "node": records.node(nodes[device.group]) if device.group in nodes else None,
                    "cdev": records.node(device.cdev),
                }
            )
    document = {"schema_version": records.SCHEMA_VERSION, "changed": done.outcome.changed, "devices": found}
    emit(session, output, document, found, COLUMNS)


def print_dry_run(
    session: Session,
    output: Output,
    planned: Plan,
    access: AccessWish | None = None,
    choices: Sequence[str] = (),
) -> None:
    """Prints what would be done, as lines that a root shell could run, and as comments what the host would lose and
    ``choices``. Raises GuardRefusal, after that, when it would be refused."""
    from vfioctl.ops.assign import steps_of
    from vfioctl.ops.lease import refuse_lent, refuse_unfinished

    lines = [f"modprobe {shlex.quote(module)}" for module in planned.request.modules]
    lines += as_shell(steps_of(session.machine, planned.request))
    if access is not None:
        uid, gid = ("" if number is None else number for number in (access.uid, access.gid))
        parts = [f"chown {uid}:{gid}"] if access.uid is not None or access.gid is not None else []
        parts += [f"chmod {access.mode:04o}"] if access.mode is not None else []
        parts += [f"setfacl -m {e.kind}:{e.id}:{e.bits}" for e in access.named]
        lines.append("# then, on the nodes of the groups:")
        lines.append(f"#   {'; '.join(parts)}")
    if output.format in ("json", "yaml"):
        impacts = [records.impact(shown(impact.device.key), impact) for impact in planned.impacts]
        document = {**records.document("dry_run", True), "commands": lines, "impacts": impacts}
        emit(session, output, document)
    else:
        remarks = [
            f"{shown(impact.device.key)}: {use.guard} ({_level(use, planned)}): {use.evidence}"
            for impact in planned.impacts
            for use in impact.uses
        ]
        lines = [f"# {remark}" for remark in (*remarks, *choices)] + (lines or ["# nothing to do"])
        sys.stdout.write("".join(f"{visible(line)}\n" for line in lines))
    sys.stdout.flush()
    planned.refuse_in_use()
    with contextlib.suppress(PermissionError):  # only root can see what is under way
        refuse_unfinished(session.machine)
        refuse_lent(session.machine, planned.devices, planned.request.nodes)


def _level(use: Use, planned: Plan) -> str:
    if not use.refuses:
        return "warn"
    return "allowed" if use.guard in planned.allow else "refuse"


def warn_unusable(machine: Machine, done: Done) -> None:
    """Says what the host should know of the devices that it has lost, and what still keeps them and their groups from
    being used."""
    for impact in done.plan.impacts:
        for use in impact.uses:
            if not use.refuses and use.guard != "siblings":  # those are said below, as they are now
                messages.warn(f"{shown(impact.device.key)}: {use.evidence}")
    for key, binding in done.outcome.after.bindings.items():
        if binding.driver is not None and machine.is_mute(key):
            messages.warn(
                f"{shown(key)} answers with ones only: it is powered off (D3cold), has dropped off its bus, or has not "
                f"survived a reset; cure: vfioctl show {shown(key)} tells its power_state; echo 0 > "
                f"/sys/bus/pci/devices/{shown(key)}/d3cold_allowed keeps it awake, else only a power cycle helps"
            )
    snapshot = done.snapshot
    groups = {d.group for d in snapshot.devices if d.key in done.plan.request.bindings}
    for group in snapshot.groups:
        if group.id not in groups:
            continue
        verdict = judge(group, snapshot.kernel)
        if not verdict.viable:
            members = ", ".join(
                f"{m.device.address} ({m.device.driver})" for m in verdict.members if m.blocking
            )
            messages.warn(
                f"group {group.id} is not viable yet: {members}; cure: vfioctl bind --group {group.id}"
            )
        for problem in verdict.problems:
            messages.warn(
                f"group {group.id}: {problem.detail}" + (f"; cure: {problem.cure}" if problem.cure else "")
            )
