"""From what is to what is wanted, as kernel writes. The one planner: for bind, unbind, rollback and recovery.

driver_override is set before the device is unbound, so that nothing else (udev, another new driver) can take the
device in between, and it is pointed at the wanted driver on the way back to the host as well: with it, the
driver's own ``bind`` file accepts the device whatever its ids, and answers with the errno of a refusal, which
``drivers_probe`` hides (reference: Documentation/ABI/testing/sysfs-bus-pci, drivers/base/bus.c).
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from vfioctl.model import KERNELS_CHOICE, Binding, BindingGoal, DynamicId, SetAccess, Step, Write


def plan(key: str, now: Binding, goal: BindingGoal) -> list[Write]:
    """The writes that take the device ``key`` (bus/address) from ``now`` to ``goal``; none when it is there."""
    undecided = goal.driver is KERNELS_CHOICE and now.driver is None  # ask the kernel again
    if goal.reached(now) and not undecided:
        return []
    bus, _, address = key.partition("/")
    top = f"/sys/bus/{bus}"
    writes: list[Write] = []
    override = now.driver_override

    def set_override(value: str | None) -> None:
        nonlocal override
        if value != override:
            writes.append(Write(f"{top}/devices/{address}/driver_override", f"{value or ''}\n"))
            override = value

    def unbind() -> None:
        if now.driver is not None:
            writes.append(Write(f"{top}/drivers/{now.driver}/unbind", address))

    def set_numvfs(number: int) -> None:
        writes.append(Write(f"{top}/devices/{address}/sriov_numvfs", str(number)))

    stays = now.driver != goal.leaving if goal.driver is KERNELS_CHOICE else now.driver == goal.driver
    # Only the driver that made virtual functions can take them away, and VFIO takes no device that has any.
    if now.numvfs and not (stays and goal.numvfs in (None, now.numvfs)):
        set_numvfs(0)
        now = now._replace(numvfs=0)
    if goal.driver is None:
        if goal.driver_override is not None:  # an override that keeps drivers away must be there first
            set_override(goal.driver_override)
        unbind()
    elif goal.driver is KERNELS_CHOICE:
        set_override(goal.driver_override)
        if now.driver is None or now.driver == goal.leaving:
            unbind()
            writes.append(Write(f"{top}/drivers_probe", address))
    elif now.driver != goal.driver:
        set_override(goal.driver if goal.steer else None)
        unbind()
        writes.append(Write(f"{top}/drivers/{goal.driver}/bind", address))
    set_override(goal.driver_override)
    if goal.numvfs and goal.numvfs != now.numvfs:
        set_numvfs(goal.numvfs)
    return writes


def add_id(dynamic: DynamicId) -> Write:
    """The write that makes a PCI driver match ``dynamic``; it binds every matching device that has no driver."""
    return Write(f"/sys/bus/pci/drivers/{dynamic.driver}/new_id", dynamic.fields)


def remove_id(dynamic: DynamicId) -> Write:
    """The write that takes ``dynamic`` away again; it unbinds nothing."""
    return Write(f"/sys/bus/pci/drivers/{dynamic.driver}/remove_id", dynamic.fields)


def as_shell(steps: Iterable[Step]) -> list[str]:
    """The steps as lines for a POSIX shell."""
    lines = []
    for step in steps:
        if isinstance(step, SetAccess):
            lines.append(f"chown {step.access.uid}:{step.access.gid} {shlex.quote(step.path)}")
            lines.append(f"chmod {step.access.mode:04o} {shlex.quote(step.path)}")
            if step.access.acl is not None:
                lines.append(f"setfacl --set {shlex.quote(step.access.acl)} {shlex.quote(step.path)}")
        else:
            text = step.data.rstrip("\n")
            lines.append(
                f"echo {shlex.quote(text)}".rstrip("' ") if not text else f"echo {shlex.quote(text)}"
            )
            lines[-1] += f" > {shlex.quote(step.path)}"
    return lines
