"""Making it so, or not at all.

The state before is on the disk before the first write; the way back is the same planner with that state as its
goal; what counts at the end is what is read back, in both directions. A journal of inverse writes would not do:
it says what was written, not what came of it.
"""

from __future__ import annotations

import contextlib
import errno
import signal
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from vfioctl.errors import Busy, DeadlinePassed, KernelRefusal, NotFound, NotRestored, Restored, VfioctlError
from vfioctl.host.machine import Machine
from vfioctl.host.state import Home, Journal
from vfioctl.model import Access, Binding, BindingGoal, DynamicId, SetAccess, State, Step
from vfioctl.policy.planning import add_id, as_shell, plan, remove_id
from vfioctl.policy.refusals.writes import explain_write

Tell = Callable[[str], None]


class Interrupted(Restored):
    """A signal asked the process to end while it was changing devices."""

    code = "interrupted"

    def __init__(self, number: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}")


class Request(NamedTuple):
    """What a change is to bring about.

    ``bindings``: the goal of each device, in the order in which they are to move. ``nodes``: node paths whose
    owner and mode belong to the state before. ``access``: asked after the devices have moved, for their nodes may
    only exist then; it settles udev and says what each node is to be. ``homes``: the record of home drivers as it
    is to be when the change is done (None: as it is).
    """

    command: str
    bindings: Mapping[str, BindingGoal]
    nodes: tuple[str, ...] = ()
    access: Callable[[], Mapping[str, Access]] | None = None
    dynamic_ids: tuple[DynamicId, ...] = ()
    homes: Callable[[Mapping[str, Binding]], Mapping[str, Home]] | None = None


class Outcome(NamedTuple):
    """What is there now, read back, and what was there before."""

    changed: bool
    before: State
    after: State


def change(machine: Machine, request: Request, tell: Tell = lambda text: None) -> Outcome:
    """Brings the request about or puts everything back.

    Raises what the first step raised when nothing had been changed yet; Restored when it failed and the state
    before was put back and read back; NotRestored (with what is left) when that failed too; DeadlinePassed when
    the kernel does not answer, and then nothing more is tried and the journal stays.
    """
    with machine.state.lock(machine.timeout, tell), _Signals() as signals:
        machine.state.refuse_unfinished()
        before = _read(machine, request)
        journal = Journal(request.command, before, request.dynamic_ids, machine.state.homes())
        machine.steps = 0
        try:
            try:
                machine.state.save_journal(journal)
                _make_it_so(machine, request, journal, tell)
                after = _read(machine, request)
                _verify(request.bindings, after.bindings)
                if request.homes is not None:
                    machine.state.save_homes(request.homes(before.bindings))
            finally:
                signals.armed = (
                    False  # from here on it ends in one way or the other: no signal stops us half-way
                )
        except DeadlinePassed:
            raise
        except (VfioctlError, OSError, KeyboardInterrupt) as failure:
            journal = machine.state.load_journal() or journal
            if _untouched(machine, journal, tell):
                _close(machine, "nothing was changed")
                raise
            _put_back(machine, journal, failure, tell)
        _close(machine, "the change is made")
    return Outcome(before != after, before, after)


def recover(machine: Machine, tell: Tell = lambda text: None) -> Journal | None:
    """Puts back the state before an interrupted change; the journal that said it, or None when there was none.
    Raises NotRestored, and keeps the journal, when something could not be put back."""
    with machine.state.lock(machine.timeout, tell), _Signals() as signals:
        journal = machine.state.load_journal()
        if journal is None:
            return None
        signals.armed = False
        left = restore(machine, journal, tell)
        if left:
            raise NotRestored(
                "not everything could be put back:\n" + "\n".join(left),
                hint="clear what stands in the way, then: vfioctl recover",
            )
        _close(machine, "everything is put back")
        return journal


def restore(machine: Machine, journal: Journal, tell: Tell) -> list[str]:
    """Plans from what is to what was, device by device, going on past failures; what is left, in words."""
    left = _without_ids(machine, journal.dynamic_ids, tell)
    for key, then in reversed(list(journal.before.bindings.items())):
        left += _bring_back(machine, key, then, tell)
    for path, access in journal.before.access.items():
        why = ""
        try:
            current = machine.access(path)
            if current is not None and current != access:
                _apply(machine, SetAccess(path, access), tell)
        except OSError as error:
            why = f": {error.strerror}"
        current = machine.access(path)
        if current is not None and current != access:
            left.append(f"{path} could not be given back its owner and mode{why}")
    try:
        if machine.state.homes() != journal.homes:
            machine.state.save_homes(journal.homes)
    except OSError as error:
        left.append(f"the record of home drivers: {error.strerror} ({error.filename})")
    return left


def _bring_back(machine: Machine, key: str, then: Binding, tell: Tell) -> list[str]:
    """Brings one device back to ``then``; what is left, in words."""
    goal = BindingGoal(then.driver, then.driver_override)
    had = f"it had driver {then.driver}, override {then.driver_override}"
    why = ""
    try:
        try:
            now = machine.binding(key)
            if now is None:
                tell(f"{key} is gone: there is nothing to put back")
                return []
            for step in plan(key, now, goal):
                _apply(machine, step, tell)
        except OSError as error:
            why = f": {error.strerror} ({error.filename})"
        except DeadlinePassed as error:
            why = f": {error.message}"
        now = machine.binding(key)
    except Busy as error:  # the kernel waits for its user: nothing may be read or written now
        return [f"{error.message}; {had}"]
    if now is None or goal.reached(now):
        return []
    return [f"{key} has driver {now.driver}, override {now.driver_override}; {had}{why}"]


def _without_ids(machine: Machine, dynamic_ids: tuple[DynamicId, ...], tell: Tell) -> list[str]:
    """Takes ids away that may have been added; what is left, in words."""
    left = []
    for dynamic in dynamic_ids:
        try:
            _apply(machine, remove_id(dynamic), tell)
        except OSError as error:
            # ENODEV: the id is not there, ENOENT: its driver is not, which is what is wanted.
            if error.errno not in (errno.ENODEV, errno.ENOENT):
                left.append(f"{dynamic.driver} may still know the id {dynamic.fields}: {error.strerror}")
    return left


def _untouched(machine: Machine, journal: Journal, tell: Tell) -> bool:
    """Whether all is as it was: no write succeeded, and none that failed has had an effect all the same."""
    if machine.steps != 0:
        return False
    _without_ids(machine, journal.dynamic_ids, tell)
    before = journal.before
    return all(machine.binding(key) == then for key, then in before.bindings.items()) and all(
        machine.access(path) == then for path, then in before.access.items()
    )


def _close(machine: Machine, what: str) -> None:
    """Removes the journal. Raises NotRestored when it cannot be: it would stop the next change."""
    try:
        machine.state.clear_journal()
    except OSError as error:
        raise NotRestored(
            f"{what}, but the record of the state before could not be removed: {error.strerror}",
            hint="vfioctl recover puts the state before back",
            errno=error.errno,
            subject=error.filename,
        ) from error


def _explain(step: Step, error: OSError, subject: str) -> VfioctlError:
    if isinstance(step, SetAccess):
        return KernelRefusal(f"{step.path}: {error.strerror}", subject=step.path, errno=error.errno)
    return explain_write(step, error, subject)


def _make_it_so(machine: Machine, request: Request, journal: Journal, tell: Tell) -> None:
    with _ids_added(machine, journal, tell):
        for key, goal in request.bindings.items():
            now = machine.binding(key)
            if now is None:
                raise _gone(key)
            for step in plan(key, now, goal):
                try:
                    _apply(machine, step, tell)
                except OSError as error:
                    raise _explain(step, error, key) from error
    if request.access is not None:
        wanted = request.access()
        for path, access in wanted.items():
            if machine.access(path) != access:
                try:
                    _apply(machine, SetAccess(path, access), tell)
                except OSError as error:
                    raise _explain(SetAccess(path, access), error, path) from error
        for path, access in wanted.items():
            found = machine.access(path)
            if found != access:
                raise KernelRefusal(
                    f"{path} is {found} after it was set to {access}",
                    hint="a udev rule or another program sets it too",
                    subject=path,
                    code="access-not-kept",
                )


@contextlib.contextmanager
def _ids_added(machine: Machine, journal: Journal, tell: Tell) -> Iterator[None]:
    """The ids are known to their drivers inside, and taken away again; an id that was there already stays, and so
    is taken off the journal."""
    added = []
    try:
        for dynamic in journal.dynamic_ids:
            try:
                _apply(machine, add_id(dynamic), tell)
                added.append(dynamic)
            except OSError as error:
                if error.errno != errno.EEXIST:
                    raise _explain(add_id(dynamic), error, dynamic.driver) from error
                tell(f"{dynamic.driver} knows the id already, and keeps it")
                others = tuple(other for other in journal.dynamic_ids if other != dynamic)
                journal = journal._replace(dynamic_ids=others)
                machine.state.save_journal(journal)
        yield
    except BaseException:
        _without_ids(machine, tuple(added), tell)
        raise
    for dynamic in added:
        try:
            _apply(machine, remove_id(dynamic), tell)
        except OSError as error:
            raise _explain(remove_id(dynamic), error, dynamic.driver) from error


def _apply(machine: Machine, step: Step, tell: Tell) -> None:
    for line in as_shell([step]):
        tell(f"+ {line}")
    machine.apply(step)


def _read(machine: Machine, request: Request) -> State:
    bindings = {}
    for key in request.bindings:
        now = machine.binding(key)
        if now is None:
            raise _gone(key)
        bindings[key] = now
    nodes = {path: machine.access(path) for path in request.nodes}
    return State(bindings, {path: access for path, access in nodes.items() if access is not None})


def _verify(goals: Mapping[str, BindingGoal], found: Mapping[str, Binding]) -> None:
    wrong = [
        f"{key} has driver {found[key].driver}, override {found[key].driver_override}"
        for key, goal in goals.items()
        if not goal.reached(found[key])
    ]
    if wrong:
        raise KernelRefusal(
            "the kernel took every write, and yet " + "; ".join(wrong),
            hint="the driver refused the device silently: the kernel log says why (dmesg)",
            code="not-bound",
        )


def _put_back(machine: Machine, journal: Journal, failure: BaseException, tell: Tell) -> None:
    """Raises Restored or NotRestored."""
    message = getattr(failure, "message", None) or str(failure) or type(failure).__name__
    hint = getattr(failure, "hint", None)
    number = getattr(failure, "errno", None)
    subject = getattr(failure, "subject", None)
    left = restore(machine, journal, tell)
    if left:
        raise NotRestored(
            f"{message}\nand this could not be put back:\n" + "\n".join(left),
            hint="clear what stands in the way, then: vfioctl recover",
            errno=number,
            subject=subject,
        ) from failure
    _close(machine, f"{message}\neverything is as it was before")
    raise Restored(
        f"{message}\neverything is as it was before", hint=hint, errno=number, subject=subject
    ) from failure


def _gone(key: str) -> NotFound:
    return NotFound(
        f"{key} is gone", hint="it was unplugged or removed meanwhile", subject=key, code="no-such-device"
    )


class _Signals:
    """While ``armed``, SIGTERM, SIGHUP and SIGINT become exceptions, the first of them only, so that a change is put
    back before the process ends; afterwards they are ignored, for half-way is the one place not to end."""

    def __init__(self) -> None:
        self.armed = True
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> _Signals:
        for name in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            self._previous[name] = signal.signal(name, self._handle)
        return self

    def __exit__(self, *error: object) -> None:
        for name, handler in self._previous.items():
            signal.signal(name, handler)

    def _handle(self, number: int, frame: object) -> None:
        if self.armed:
            self.armed = False
            raise KeyboardInterrupt if number == signal.SIGINT else Interrupted(number)
