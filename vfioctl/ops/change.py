"""Making it so, or not at all.

The state before is on the disk before the first write; the way back is the same planner with that state as its
goal; what counts at the end is what is read back, in both directions. A journal of inverse writes would not do:
it says what was written, not what came of it.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from vfioctl.errors import (
    DeadlinePassed,
    KernelRefusal,
    NotFound,
    NotRestored,
    PermissionDenied,
    Restored,
    VfioctlError,
)
from vfioctl.host.journal import Home, Journal
from vfioctl.host.machine import Machine
from vfioctl.model import KERNELS_CHOICE, Access, Binding, BindingGoal, DynamicId, SetAccess, State, shown
from vfioctl.ops.lease import refuse_lent, refuse_unfinished
from vfioctl.ops.modules import load_modules
from vfioctl.ops.restore import close, restore, without_ids
from vfioctl.ops.signals import Signals
from vfioctl.ops.steps import Tell, apply, explain
from vfioctl.ops.stuck import explain_deadline
from vfioctl.policy.planning import add_id, plan, remove_id


class Request(NamedTuple):
    """What a change is to bring about.

    ``bindings``: the goal of each device, in the order in which they are to move. ``witnesses``: devices that may be
    moved by it too (by a dynamic id), and are recorded and put back, but not moved. ``modules``: what is loaded first,
    for a driver that arrives may take devices at once. ``nodes``: node paths whose
    owner and mode belong to the state before. ``access``: asked after the devices have moved, for their nodes may
    only exist then; it settles udev and says what each node is to be. ``homes``: the record of home drivers as it
    is to be when the change is done (None: as it is). ``lend``: called last, makes the journal a lease.
    """

    command: str
    bindings: Mapping[str, BindingGoal]
    nodes: tuple[str, ...] = ()
    access: Callable[[], Mapping[str, Access]] | None = None
    dynamic_ids: tuple[DynamicId, ...] = ()
    homes: Callable[[Mapping[str, Binding]], Mapping[str, Home]] | None = None
    witnesses: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    lend: Callable[[], None] | None = None


class Outcome(NamedTuple):
    """What is there now, read back, and what was there before."""

    changed: bool
    before: State
    after: State


def change(
    machine: Machine,
    make: Callable[[], Request],
    tell: Tell = lambda text: None,
    wait: float | None = None,
) -> Outcome:
    """Brings about the request that ``make`` plans under the lock, so that nobody changes what it was planned from,
    or puts everything back. ``wait``: seconds that another vfioctl may take (default: the machine's timeout).

    Raises what ``make`` raised, or what the first step raised when nothing had been changed yet; Restored when it
    failed and the state before was put back and read back; NotRestored (with what is left) when that failed too;
    DeadlinePassed when the kernel does not answer, and then nothing more is tried and the journal stays.
    """
    try:
        machine.state.ensure()
    except PermissionDenied:
        make()  # what is wrong with the request itself is said first
        raise
    with machine.state.lock(machine.timeout if wait is None else wait, tell), Signals() as signals:
        refuse_unfinished(machine)
        request = make()
        refuse_lent(machine, (*request.bindings, *request.witnesses), request.nodes)
        before = _read(machine, request)
        identities = {key: machine.identity(key) for key in before.bindings}
        of_nodes = machine.node_members() if before.access else {}
        members = {path: keys for path, keys in of_nodes.items() if path in before.access}
        journal = Journal(
            request.command, before, request.dynamic_ids, machine.state.homes(), identities, members
        )
        ours = list(request.dynamic_ids)
        machine.steps = 0
        try:
            try:
                machine.state.save_journal(journal)
                _make_it_so(machine, request, journal, ours, tell)
                after = _read(machine, request)
                _verify(machine, request.bindings, after.bindings)
                if request.homes is not None:
                    machine.state.save_homes(request.homes(before.bindings))
                if request.lend is not None:
                    request.lend()
            finally:
                # From here on it ends in one way or the other: no signal stops us half-way.
                signals.armed = False
        except DeadlinePassed as error:
            raise explain_deadline(machine, journal, error) from error
        except Exception as failure:  # a bug, too, must not leave a device half-way
            journal = journal._replace(dynamic_ids=tuple(ours))
            if _untouched(machine, journal, tell):
                close(machine, "nothing was changed")
                raise
            _put_back(machine, journal, failure, tell)
        close(machine, "the change is made")
    return Outcome(before != after, before, after)


def _untouched(machine: Machine, journal: Journal, tell: Tell) -> bool:
    """Whether all is as it was: no write succeeded, and none that failed has had an effect all the same."""
    if machine.steps != 0:
        return False
    if without_ids(machine, journal.dynamic_ids, tell):
        return False
    before = journal.before
    try:
        return all(machine.binding(key) == then for key, then in before.bindings.items()) and all(
            machine.access(path) == then for path, then in before.access.items()
        )
    except (OSError, VfioctlError):  # nobody knows: the way back says what it finds
        return False


def _make_it_so(
    machine: Machine, request: Request, journal: Journal, ours: list[DynamicId], tell: Tell
) -> None:
    load_modules(machine, request.modules, frozenset(journal.before.bindings), tell)
    with _ids_added(machine, journal, ours, tell):
        for key, goal in request.bindings.items():
            now = machine.binding(key)
            if now is None:
                raise _gone(key)
            for step in plan(key, now, goal):
                try:
                    apply(machine, step, tell)
                except OSError as error:
                    raise explain(machine, step, error, key) from error
    if request.access is not None:
        wanted = request.access()
        for path, access in wanted.items():
            if machine.access(path) != access:
                try:
                    apply(machine, SetAccess(path, access), tell)
                except OSError as error:
                    raise explain(machine, SetAccess(path, access), error, path) from error
        for path, access in wanted.items():
            found = machine.access(path)
            if found != access:
                raise KernelRefusal(
                    f"{path} has {found or 'vanished'} after it was given {access}",
                    hint="a udev rule or another program sets it too",
                    subject=path,
                    code="access-not-kept",
                )


@contextlib.contextmanager
def _ids_added(machine: Machine, journal: Journal, ours: list[DynamicId], tell: Tell) -> Iterator[None]:
    """The ids are known to their drivers inside, and taken away again; an id that was there already stays, and so
    is taken off ``ours`` and off the journal."""
    added = []
    try:
        for dynamic in tuple(ours):
            try:
                apply(machine, add_id(dynamic), tell)
                added.append(dynamic)
            except OSError as error:
                if error.errno != errno.EEXIST:
                    raise explain(machine, add_id(dynamic), error, dynamic.driver) from error
                tell(f"{dynamic.driver} knows the id already, and keeps it")
                # Not ours to take away: neither here, nor by the way back, nor by recover.
                ours.remove(dynamic)
                machine.state.save_journal(journal._replace(dynamic_ids=tuple(ours)))
        yield
    except BaseException:
        without_ids(machine, tuple(added), tell)
        raise
    for dynamic in added:
        try:
            apply(machine, remove_id(dynamic), tell)
        except OSError as error:
            raise explain(machine, remove_id(dynamic), error, dynamic.driver) from error


def _read(machine: Machine, request: Request) -> State:
    bindings = {}
    for key in (*request.bindings, *request.witnesses):
        now = machine.binding(key)
        if now is not None:
            bindings[key] = now
        elif key in request.bindings:
            raise _gone(key)
    nodes = {path: machine.access(path) for path in request.nodes}
    return State(bindings, {path: access for path, access in nodes.items() if access is not None})


def _verify(machine: Machine, goals: Mapping[str, BindingGoal], found: Mapping[str, Binding]) -> None:
    taken = [key for key, goal in goals.items() if goal.leaving and found[key].driver == goal.leaving]
    if taken:
        raise KernelRefusal(
            "; ".join(f"{found[key].driver} took {shown(key)} again, for it claims its id" for key in taken),
            hint="it was given the id by ids= (in /etc/modprobe.d or on the kernel command line) or by new_id; "
            "name the driver that is to have it: --to DRIVER, or --leave-unbound",
            subject=shown(taken[0]),
            code="claimed-by-id",
        )
    wrong = [f"{shown(key)} has {found[key]}" for key, goal in goals.items() if not goal.reached(found[key])]
    for key, goal in goals.items():
        if goal.driver is KERNELS_CHOICE and found[key].driver is None and not wrong:
            # drivers_probe succeeds whether or not the driver took the device.
            claiming = machine.claiming_drivers(key)
            wrong += [f"{driver}, which claims {shown(key)}, did not take it" for driver in claiming]
    if wrong:
        raise KernelRefusal(
            "the kernel took every write, and yet " + "; ".join(wrong),
            hint="the driver refused the device silently: the kernel log says why (dmesg)",
            code="not-bound",
        )


def _put_back(machine: Machine, journal: Journal, failure: BaseException, tell: Tell) -> None:
    """Raises Restored or NotRestored."""
    message = getattr(failure, "message", None) or getattr(failure, "strerror", None) or repr(failure)
    if isinstance(failure, OSError) and failure.filename:
        message = f"{failure.filename}: {message}"
    hint = getattr(failure, "hint", None)
    number = getattr(failure, "errno", None)
    subject = getattr(failure, "subject", None)
    cause, more = getattr(failure, "code", "system"), getattr(failure, "details", {})
    left = restore(machine, journal, tell)
    if left:
        raise NotRestored(
            f"{message}\nand this could not be put back:\n" + "\n".join(left),
            hint="clear what stands in the way, then: vfioctl recover",
            errno=number,
            subject=subject,
            details={"cause": cause, **more, "left": left},
        ) from failure
    close(machine, f"{message}\neverything is as it was before")
    raise Restored(
        f"{message}\neverything is as it was before",
        hint=hint,
        errno=number,
        subject=subject,
        details={"cause": cause, **more},
    ) from failure


def _gone(key: str) -> NotFound:
    return NotFound(
        f"{shown(key)} is gone",
        hint="it was unplugged or removed meanwhile: vfioctl list-devices",
        subject=shown(key),
        code="no-such-device",
    )
