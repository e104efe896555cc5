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

from vfioctl.errors import DeadlinePassed, KernelRefusal, NotFound, NotRestored, Restored, VfioctlError
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
    with machine.state.lock(machine.timeout, tell), _signals_raise():
        machine.state.refuse_unfinished()
        before = _read(machine, request)
        machine.state.save_journal(Journal(request.command, before, request.dynamic_ids))
        machine.steps = 0
        try:
            _make_it_so(machine, request, tell)
            after = _read(machine, request)
            _verify(request.bindings, after.bindings)
            if request.homes is not None:
                machine.state.save_homes(request.homes(before.bindings))
        except DeadlinePassed:
            raise
        except (VfioctlError, OSError, KeyboardInterrupt) as failure:
            if machine.steps == 0 and not _moved(machine, before):
                machine.state.clear_journal()
                raise
            _put_back(machine, request, before, failure, tell)
        machine.state.clear_journal()
    return Outcome(before != after, before, after)


def recover(machine: Machine, tell: Tell = lambda text: None) -> Journal | None:
    """Puts back the state before an interrupted change; the journal that said it, or None when there was none.
    Raises NotRestored, and keeps the journal, when something could not be put back."""
    with machine.state.lock(machine.timeout, tell), _signals_raise():
        journal = machine.state.load_journal()
        if journal is None:
            return None
        with _signals_wait():
            left = restore(machine, journal.before, journal.dynamic_ids, tell)
        if left:
            raise NotRestored(
                "not everything could be put back:\n" + "\n".join(left),
                hint="clear what stands in the way, then: vfioctl recover",
            )
        machine.state.clear_journal()
        return journal


def restore(machine: Machine, before: State, dynamic_ids: tuple[DynamicId, ...], tell: Tell) -> list[str]:
    """Plans from what is to what was, device by device, going on past failures; what is left, in words."""
    for dynamic in dynamic_ids:
        with contextlib.suppress(OSError):  # ENODEV: it is not there, which is what is wanted
            _apply(machine, remove_id(dynamic), tell)
    left = []
    for key, then in reversed(list(before.bindings.items())):
        goal = BindingGoal(then.driver, then.driver_override)
        why = ""
        try:
            now = machine.binding(key)
            if now is None:
                tell(f"{key} is gone: there is nothing to put back")
                continue
            for step in plan(key, now, goal):
                _apply(machine, step, tell)
        except DeadlinePassed as error:
            why = f": {error.message}"
        except OSError as error:
            why = f": {error.strerror} ({error.filename})"
        now = machine.binding(key)
        if now is not None and not goal.reached(now):
            left.append(f"{key} has driver {now.driver}, override {now.driver_override}; "
                        f"it had driver {then.driver}, override {then.driver_override}{why}")  # fmt: skip
    for path, access in before.access.items():
        try:
            current = machine.access(path)
            if current is not None and current != access:
                _apply(machine, SetAccess(path, access), tell)
        except OSError as error:
            left.append(f"{path} could not be given back its owner and mode: {error.strerror}")
    return left


def _moved(machine: Machine, before: State) -> bool:
    """Whether anything is not as it was, although no write succeeded."""
    return any(machine.binding(key) != then for key, then in before.bindings.items())


def _explain(step: Step, error: OSError, subject: str) -> VfioctlError:
    if isinstance(step, SetAccess):
        return KernelRefusal(f"{step.path}: {error.strerror}", subject=step.path, errno=error.errno)
    return explain_write(step, error, subject)


def _make_it_so(machine: Machine, request: Request, tell: Tell) -> None:
    with _ids_added(machine, request.dynamic_ids, tell):
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
def _ids_added(machine: Machine, dynamic_ids: tuple[DynamicId, ...], tell: Tell) -> Iterator[None]:
    """The ids are known to their drivers inside, and taken away again; an id that was there already stays."""
    added = []
    try:
        for dynamic in dynamic_ids:
            try:
                _apply(machine, add_id(dynamic), tell)
                added.append(dynamic)
            except OSError as error:
                if error.errno != errno.EEXIST:
                    raise _explain(add_id(dynamic), error, dynamic.driver) from error
                tell(f"{dynamic.driver} knows the id already, and keeps it")
        yield
    finally:
        for dynamic in added:
            _apply(machine, remove_id(dynamic), tell)


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


def _put_back(machine: Machine, request: Request, before: State, failure: BaseException, tell: Tell) -> None:
    """Raises Restored or NotRestored."""
    message = getattr(failure, "message", None) or str(failure) or type(failure).__name__
    hint = getattr(failure, "hint", None)
    number = getattr(failure, "errno", None)
    subject = getattr(failure, "subject", None)
    with _signals_wait():
        left = restore(machine, before, request.dynamic_ids, tell)
    if left:
        raise NotRestored(
            f"{message}\nand this could not be put back:\n" + "\n".join(left),
            hint="clear what stands in the way, then: vfioctl recover",
            errno=number,
            subject=subject,
        ) from failure
    machine.state.clear_journal()
    raise Restored(
        f"{message}\neverything is as it was before", hint=hint, errno=number, subject=subject
    ) from failure


def _gone(key: str) -> NotFound:
    return NotFound(
        f"{key} is gone", hint="it was unplugged or removed meanwhile", subject=key, code="no-such-device"
    )


@contextlib.contextmanager
def _signals_raise() -> Iterator[None]:
    """SIGTERM and SIGHUP become exceptions, so that a change is put back before the process ends."""

    def raise_interrupted(number: int, frame: object) -> None:
        raise Interrupted(number)

    with _handlers({signal.SIGTERM: raise_interrupted, signal.SIGHUP: raise_interrupted}):
        yield


@contextlib.contextmanager
def _signals_wait() -> Iterator[None]:
    """On the way back no signal stops us: half-way is the one place not to end."""
    with _handlers(dict.fromkeys((signal.SIGTERM, signal.SIGHUP, signal.SIGINT), signal.SIG_IGN)):
        yield


@contextlib.contextmanager
def _handlers(handlers: Mapping[signal.Signals, Any]) -> Iterator[None]:
    previous = {name: signal.signal(name, handler) for name, handler in handlers.items()}
    try:
        yield
    finally:
        for name, handler in previous.items():
            signal.signal(name, handler)
