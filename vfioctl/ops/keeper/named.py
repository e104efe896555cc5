"""Containers that stay open between commands, by their names."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterator, Sequence
from typing import Any

from vfioctl.errors import Busy, DeadlinePassed, NotFound, PermissionDenied, UsageError, VfioctlError
from vfioctl.host import channel, lock
from vfioctl.host.machine import Machine
from vfioctl.host.notify import notify
from vfioctl.ops.backends.type1 import CANNOT_SHARE
from vfioctl.ops.keeper import spawn
from vfioctl.ops.keeper.client import Client
from vfioctl.ops.keeper.kept import DEFAULTS, Settings
from vfioctl.ops.signals import Interrupted, Signals

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", re.ASCII)


def check_name(name: str) -> str:
    """Raises UsageError for what can be no container's name."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} is no name for a container",
            hint="letters, digits, and after the first of them also . _ - ; at most 64 in all",
            subject=name,
        )
    return name


def directory(machine: Machine) -> str:
    """Where the sockets of the caller's containers are. Raises UsageError when a user has no such place."""
    if os.geteuid() == 0:
        return machine.at("/run/vfioctl/containers")
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if not os.path.isabs(runtime):
        raise UsageError(
            "XDG_RUNTIME_DIR does not say where the sockets of containers may be",
            hint="a login session sets it; or make a directory that only you can enter: "
            "export XDG_RUNTIME_DIR=$(mktemp -d)",
        )
    return os.path.join(runtime, "vfioctl", "containers")


def names(machine: Machine) -> list[str]:
    """The names of the containers that somebody keeps open."""
    found = []
    try:
        top = directory(machine)
        candidates = os.listdir(top)
    except (FileNotFoundError, PermissionError, UsageError):  # PermissionError: su keeps XDG_RUNTIME_DIR
        return []
    for name in sorted(filter(_NAME.fullmatch, candidates)):
        with contextlib.suppress(OSError):
            with contextlib.suppress(BlockingIOError):  # it is there, and does not come to take who connects
                channel.connect(os.path.join(top, name)).close()
            found.append(name)
    return found


@contextlib.contextmanager
def connected(machine: Machine, name: str) -> Iterator[Client]:
    """The container of that name. Raises NotFound and DeadlinePassed."""
    path = os.path.join(directory(machine), check_name(name))
    try:
        found = channel.connect(path, machine.timeout)
    except BlockingIOError as error:
        raise DeadlinePassed(
            f"the container {name!r} has not taken a connection within {machine.timeout:g} s",
            hint="the kernel keeps its process waiting, or somebody has stopped it",
            subject=name,
        ) from error
    except (FileNotFoundError, ConnectionRefusedError) as error:
        known = ", ".join(names(machine))
        raise NotFound(
            f"there is no container {name!r}" + (f": there is {known}" if known else ""),
            hint=f"vfioctl container open {name} GROUP",
            subject=name,
            code="no-such-container",
        ) from error
    with Client(found, found.peer.pid, machine.timeout) as client:
        if found.peer.uid not in (0, os.geteuid()):
            raise PermissionDenied(
                f"the container {name!r} is another user's (uid {found.peer.uid})",
                hint=f"only you should be able to write to {os.path.dirname(path)}",
                subject=name,
            )
        yield client


@contextlib.contextmanager
def or_late(late: list[DeadlinePassed]) -> Iterator[None]:
    """Around what goes through the containers there are: one that has gone since is passed over, and so is one that
    does not answer, which is added to ``late``."""
    try:
        yield
    except DeadlinePassed as error:
        late.append(error)
    except VfioctlError as error:
        if error.code not in ("no-such-container", "keeper-gone"):
            raise


def open_container(
    machine: Machine, name: str, groups: Sequence[int], backend: str, settings: Settings = DEFAULTS
) -> list[tuple[dict[str, Any], bool]]:
    """Opens a container with these groups and leaves it to its keeper: its record, and whether it was not there before.
    Raises Busy when the name is taken by another one."""
    path = os.path.join(_ensured(directory(machine)), check_name(name))
    with lock.held(f"{os.path.dirname(path)}/.lock", machine.timeout, lambda text: None):
        if name in names(machine):
            return [(_the_same(machine, name, groups, backend, settings), False)]
        client = spawn.start(machine, backend, settings)
        try:
            with client:
                client.call("add", {"groups": list(groups)})
                client.call("publish", {"path": path, "name": name})
                return [(client.show(), True)]
        except BaseException:
            spawn.end(client.pid)
            raise


def open_split(
    machine: Machine, name: str, groups: Sequence[int], backend: str, settings: Settings = DEFAULTS
) -> list[tuple[dict[str, Any], bool]]:
    """The same, but a group that cannot share the address space of those before it gets a container of its own, called
    NAME.GROUP. Raises what keeps a group out of any container; all that was opened is closed again then."""
    made: list[str] = []
    found: dict[str, bool] = {}
    try:
        for number in groups:
            here = next((each for each in found if _joins(machine, each, number)), None)
            if here is None:
                called = name if not found else f"{name}.{number}"
                ((_, is_new),) = open_container(machine, called, [number], backend, settings)
                found[called] = is_new
                if is_new:
                    made.append(called)
    except BaseException:
        for each in made:
            with connected(machine, each) as client:
                client.close()
        raise
    records = []
    for each, is_new in found.items():
        with connected(machine, each) as client:
            records.append((client.show(), is_new))
    return records


def _joins(machine: Machine, name: str, group: int) -> bool:
    """Whether a group is in a container, or can be put into it."""
    with connected(machine, name) as client:
        if group in client.show()["groups"]:
            return True
        try:
            client.call("add", {"groups": [group]})
        except VfioctlError as error:
            if error.code != CANNOT_SHARE:
                raise
            return False
    return True


def stay(machine: Machine, opened: Sequence[str]) -> None:
    """Waits until containers are closed; a signal that asks this process to end closes them. Tells systemd that they
    are there."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connected(machine, name)) for name in opened]
        try:
            with Signals():
                notify("READY=1")
                for client in clients:
                    client.wait_for_end()
        except Interrupted:
            for client in clients:
                with contextlib.suppress(VfioctlError):
                    client.close()


def _the_same(
    machine: Machine, name: str, groups: Sequence[int], backend: str, settings: Settings
) -> dict[str, Any]:
    with connected(machine, name) as client:
        found = client.show()
    differs = {
        "groups": found["groups"] != sorted(groups),
        "backend": backend not in ("auto", found["backend"]),
        "charge": settings.charge not in (None, found["accounting"]),
        "release on request": settings.release_on_request and not found["release_on_request"],
    }
    if any(differs.values()):
        what = ", ".join(name for name, other in differs.items() if other)
        raise Busy(
            f"the container {name!r} is open already, with other {what} (process {found['pid']})",
            hint=f"choose another name, or: vfioctl container close {name}",
            subject=name,
            code="container-exists",
        )
    return found


def holding(machine: Machine, group: int) -> str | None:
    """The name of the caller's container that has this group."""
    for name in names(machine):
        with contextlib.suppress(VfioctlError), connected(machine, name) as client:
            if group in client.show()["groups"]:
                return name
    return None


def _ensured(path: str) -> str:
    """Makes the directory and the one above it, and refuses both when anybody else could write there."""
    for each in (os.path.dirname(path), path):
        with contextlib.suppress(FileExistsError):
            os.mkdir(each, 0o700)
        status = os.lstat(each)
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
            raise PermissionDenied(
                f"{each} is not a directory that only its owner (uid {os.geteuid()}) can enter",
                hint=f"find out who made it; then: chmod 0700 {each}, or remove it",
                subject=each,
                code="state-directory",
            )
    return path
