"""What bind and unbind share: a plan that can be shown or carried out, and read back."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from vfioctl.errors import VfioctlError
from vfioctl.host.machine import Machine
from vfioctl.model import Access, Snapshot, Step, shown
from vfioctl.ops.access import groups_of, node_paths, wanted
from vfioctl.ops.change import Outcome, Request, change
from vfioctl.ops.steps import Tell
from vfioctl.policy.access import AccessWish
from vfioctl.policy.guards import refuse_in_use
from vfioctl.policy.impact import Impact
from vfioctl.policy.planning import add_id, plan, remove_id


class Plan(NamedTuple):
    """A change that can be made (``request``) or shown (``steps_of``), the ``snapshot`` from which it was planned, and
    what the host loses by it (``impacts``), of which the guards in ``allow`` may be passed."""

    request: Request
    snapshot: Snapshot
    impacts: tuple[Impact, ...] = ()
    allow: frozenset[str] = frozenset()

    @property
    def devices(self) -> tuple[str, ...]:
        """All devices (keys) that it may move."""
        return (*self.request.bindings, *self.request.witnesses)

    def refuse_in_use(self) -> None:
        """Raises GuardRefusal when the host uses one of the devices in a way that is not allowed."""
        refuse_in_use({shown(impact.device.key): impact.uses for impact in self.impacts}, self.allow)


class Done(NamedTuple):
    """What was planned, its outcome, a snapshot read after it, and whether udev had done with the nodes by then."""

    plan: Plan
    outcome: Outcome
    snapshot: Snapshot
    settled: bool


def steps_of(machine: Machine, request: Request) -> list[Step]:
    """The writes of a change as they would be made now."""
    steps: list[Step] = [add_id(dynamic) for dynamic in request.dynamic_ids]
    for key, goal in request.bindings.items():
        now = machine.binding(key)
        if now is None:
            continue
        if request.dynamic_ids and not goal.steer and now.driver is None and isinstance(goal.driver, str):
            now = now._replace(driver=goal.driver)  # new_id binds what has no driver
        steps += plan(key, now, goal)
    steps += [remove_id(dynamic) for dynamic in request.dynamic_ids]
    return steps


def virtual_functions(machine: Machine, keys: Collection[str]) -> tuple[str, ...]:
    """The virtual functions (keys) of devices that move: they go with their physical functions, if those lose them,
    and come back with them, but not to their drivers."""
    return tuple(vf for key in keys for vf in machine.virtual_functions(key) if vf not in keys)


def carry_out(
    machine: Machine,
    make: Callable[[], Plan],
    access: AccessWish | None,
    tell: Tell,
    wait: float | None = None,
) -> Done:
    """Makes the change that ``make`` plans (called under the lock), waits for udev, and reads everything back. Raises
    what ``change`` does, and GuardRefusal when the host uses one of the devices."""
    work: list[Plan] = []
    settled = True

    def request() -> Request:
        watch = machine.watch_nodes()
        plan = make()
        plan.refuse_in_use()
        work.append(plan)
        existing = set(node_paths(plan.snapshot, groups_of(plan.snapshot, plan.devices)))

        def settled_access() -> Mapping[str, Access]:
            nonlocal settled
            now = machine.snapshot()
            fresh = [p for p in node_paths(now, groups_of(now, plan.devices)) if p not in existing]
            settled = watch.settle(fresh, machine.timeout)
            if not settled:
                tell(
                    f"udev has not handled {', '.join(fresh)} within {machine.timeout:g} s: "
                    "its rules may still change owner and mode"
                )
            # Only what was asked for is given to anybody, not what a dynamic id has taken along.
            asked = node_paths(now, groups_of(now, plan.request.bindings))
            return {} if access is None else wanted(machine, access, asked)

        return plan.request._replace(access=settled_access)

    outcome = change(machine, request, tell, wait)
    try:
        after = machine.snapshot()
    except OSError as error:
        raise VfioctlError(
            f"done, but what is there now could not be read: {error.strerror}",
            hint="vfioctl show tells, when that can be read again",
            errno=error.errno,
            code="output",
        ) from error
    return Done(work[-1], outcome, after, settled)
