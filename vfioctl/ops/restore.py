"""The way back: the same planner, with the recorded state as its goal."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Mapping

from vfioctl.errors import Busy, DeadlinePassed, KernelRefusal, NotRestored, VfioctlError
from vfioctl.host.journal import Home, Journal
from vfioctl.host.leases import Lease
from vfioctl.host.machine import Machine
from vfioctl.model import VFIO_DRIVERS, Binding, BindingGoal, DynamicId, SetAccess, shown
from vfioctl.ops.lease import wait_for_users
from vfioctl.ops.signals import Interrupted, Signals
from vfioctl.ops.steps import Tell, apply
from vfioctl.ops.stuck import not_as_before
from vfioctl.policy.access import same_node
from vfioctl.policy.planning import plan, remove_id


def recover(machine: Machine, tell: Tell = lambda text: None, wait: float | None = None) -> list[Journal]:
    """Puts back the states before an interrupted change, and before each ``run`` whose process is gone; the journals
    that said them. Raises NotRestored, and keeps those journals, when something could not be put back."""
    with machine.state.lock(machine.timeout if wait is None else wait, tell), Signals() as signals:
        journal = machine.state.load_journal()
        dead = []
        for lease in machine.leases.all():
            if machine.leases.is_alive(lease.owner):
                lent = ", ".join(map(shown, lease.journal.before.bindings))
                tell(
                    f"{lent}: lent to the command of process {lease.owner.pid}, which still runs; left alone"
                )
            else:
                dead.append(lease)
        try:
            held = {
                lease.name: wait_for_users(machine, lease.journal.before.bindings, tell) for lease in dead
            }
        except Interrupted as interrupted:
            raise NotRestored(
                f"{interrupted.message}: nothing has been put back yet", hint="vfioctl recover"
            ) from interrupted
        signals.armed = False
        left = []
        if journal is not None:
            left += restore(machine, journal, tell)
            if not left:
                close(machine, "everything is put back")
        for lease in dead:
            if held[lease.name]:
                left += [*held[lease.name], *not_as_before(machine, lease.journal)]
                continue
            missing = restore(machine, lease.journal, tell)
            if not missing:
                close(machine, "everything is put back", lease)
            left += missing
        if left:
            raise NotRestored(
                "not everything could be put back:\n" + "\n".join(left),
                hint="clear what stands in the way, then: vfioctl recover",
                details={"left": left},
            )
        return [*([journal] if journal is not None else []), *(lease.journal for lease in dead)]


def give_back(
    machine: Machine, lease: Lease, tell: Tell, pause: Callable[[float], object] = time.sleep
) -> None:
    """Puts back the state before a ``run``, as soon as nobody holds its devices. Raises NotRestored, and keeps the
    lease, when that cannot be."""
    try:
        left = wait_for_users(machine, lease.journal.before.bindings, tell, pause)
        if left:
            left += not_as_before(machine, lease.journal)
        else:
            with machine.state.lock(machine.timeout, tell):
                left = restore(machine, lease.journal, tell)
                if not left:
                    close(machine, "everything is given back", lease)
                    return
    except Busy as busy:
        left = [busy.message]
    except OSError as error:  # it cannot even be looked at
        left = [f"{error.filename or 'the system'}: {error.strerror}"]
    raise NotRestored(
        "not everything could be given back:\n" + "\n".join(left),
        hint="clear what stands in the way, then: vfioctl recover",
        details={"left": left},
    )


def restore(machine: Machine, journal: Journal, tell: Tell) -> list[str]:
    """Plans from what is to what was, device by device, going on past failures; what is left, in words."""
    left = without_ids(machine, journal.dynamic_ids, tell)
    backwards = reversed(list(journal.before.bindings.items()))
    back = []
    # What had virtual functions first: they are among the others.
    for key, then in sorted(backwards, key=lambda entry: not entry[1].numvfs):
        try:
            identity = machine.identity(key)
        except OSError as error:
            left.append(f"{shown(key)} cannot be read: {error.strerror}; it had {then}")
            continue
        if key in journal.identities and identity not in (None, journal.identities[key]):
            tell(f"at {shown(key)} there is another device now: it is left alone")
        elif missing := _bring_back(machine, key, then, tell):
            left += missing
        else:
            back.append(key)
    for key in back:  # a driver whose module came back with another one may have taken it since
        if not _is_back(machine, key, journal.before.bindings[key]):
            left += _bring_back(machine, key, journal.before.bindings[key], tell)
    left += _nodes_back(machine, journal, tell)
    try:
        found = _homes_or_none(machine)
        wanted = journal.homes if found is None else _homes_back(journal, found)
        if found != wanted:
            machine.state.save_homes(wanted)
    except OSError as error:
        left.append(f"the record of home drivers: {error.strerror} ({error.filename})")
    return left


def _nodes_back(machine: Machine, journal: Journal, tell: Tell) -> list[str]:
    left = []
    try:
        members = machine.node_members() if journal.before.access else {}
    except OSError as error:
        return [
            f"whose nodes these are now cannot be read, {', '.join(journal.before.access)}: {error.strerror}"
        ]
    nodes = {}
    for path, access in journal.before.access.items():
        node = same_node(path, journal.members[path], members) if path in journal.members else path
        if node is not None:
            nodes[node] = access
        elif path in members:
            tell(f"{path} belongs to other devices now: it is left alone")
    if nodes and not machine.settle(list(nodes)):  # udev may not have seen yet what has come back
        tell(f"udev has not settled within {machine.timeout:g} s: its rules may still change owner and mode")
    for path, access in nodes.items():
        why = ""
        try:
            try:
                if machine.access(path) not in (None, access):
                    apply(machine, SetAccess(path, access), tell)
            except OSError as error:
                why = f": {error.strerror}"
            if machine.access(path) not in (None, access):
                left.append(f"{path} could not be given back its owner and mode{why}")
        except OSError as error:
            left.append(f"{path} cannot be read: {error.strerror}; it had {access}{why}")
    return left


def _homes_back(journal: Journal, found: Mapping[str, Home]) -> Mapping[str, Home]:
    """The record as it is now, but for the devices of the journal: others may have been bound since a lease began."""
    ours = journal.before.bindings
    others = {key: home for key, home in found.items() if key not in ours}
    return others | {key: home for key, home in journal.homes.items() if key in ours}


def _homes_or_none(machine: Machine) -> Mapping[str, Home] | None:
    """The record of home drivers; None when it cannot be understood, and is to be replaced."""
    try:
        return machine.state.homes()
    except VfioctlError:
        return None


def _bring_back(machine: Machine, key: str, then: Binding, tell: Tell) -> list[str]:
    """Brings one device back to ``then``; what is left, in words."""
    goal = BindingGoal.back_to(then)._replace(steer=machine.has_override(key))
    had = f"it had {then}"
    why = ""
    try:
        try:
            now = machine.binding(key)
            if now is None:
                tell(f"{shown(key)} is gone: there is nothing to put back")
                return []
            if not goal.reached(now):
                _need_driver(machine, key, then.driver, tell)
            for step in plan(key, now, goal):
                apply(machine, step, tell)
        except OSError as error:
            why = f": {error.strerror} ({error.filename})"
        except (DeadlinePassed, KernelRefusal) as error:
            why = f": {error.message}"
        now = machine.binding(key)
    except Busy as error:  # the kernel waits for its user: nothing may be read or written now
        return [f"{error.message}; {had}"]
    except OSError as error:  # no process can be started, even to look
        return [f"{shown(key)} cannot be read: {error.strerror}; {had}{why}"]
    if now is None or goal.reached(now):
        return []
    return [f"{shown(key)} has {now}; {had}{why}"]


def _is_back(machine: Machine, key: str, then: Binding) -> bool:
    try:
        now = machine.binding(key)
    except (Busy, OSError):
        return False
    return now is None or BindingGoal.back_to(then).reached(now)


def _need_driver(machine: Machine, key: str, driver: str | None, tell: Tell) -> None:
    """Loads the module of a driver that has gone meanwhile. Raises KernelRefusal or DeadlinePassed."""
    if driver is None or machine.has_driver(key.partition("/")[0], driver):
        return
    # By what the device is, for a driver's name need not be its module's.
    module = driver if driver in VFIO_DRIVERS else machine.identity(key) or driver
    tell(f"+ modprobe {module}")
    machine.load_module(module)


def without_ids(machine: Machine, dynamic_ids: tuple[DynamicId, ...], tell: Tell) -> list[str]:
    """Takes ids away that may have been added; what is left, in words."""
    left = []
    for dynamic in dynamic_ids:
        try:
            apply(machine, remove_id(dynamic), tell)
        except OSError as error:
            # ENODEV: the id is not there, ENOENT: its driver is not, which is what is wanted.
            if error.errno not in (errno.ENODEV, errno.ENOENT):
                left.append(f"{dynamic.driver} may still know the id {dynamic.fields}: {error.strerror}")
        except DeadlinePassed as error:
            left.append(f"{dynamic.driver} may still know the id {dynamic.fields}: {error.message}")
    return left


def close(machine: Machine, what: str, lease: Lease | None = None) -> None:
    """Removes the journal, or a lease. Raises NotRestored when it cannot be: it would stop the next change."""
    try:
        if lease is None:
            machine.state.clear_journal()
        else:
            machine.leases.end(lease)
    except OSError as error:
        raise NotRestored(
            f"{what}, but the record of the state before could not be removed: {error.strerror}",
            hint="vfioctl recover puts the state before back",
            errno=error.errno,
            subject=error.filename,
        ) from error
