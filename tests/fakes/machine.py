"""A process's view of a :class:`FakeKernel`: what vfioctl gets in place of the running host, with faults on order."""

from __future__ import annotations

import errno
import itertools
import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from tests.fakes.kernel import FakeKernel
from vfioctl.errors import DeadlinePassed
from vfioctl.host.accounts import Account
from vfioctl.host.child import Command
from vfioctl.host.files import read
from vfioctl.host.holders import Found, Holder
from vfioctl.host.leases import Leases, Owner
from vfioctl.host.locked import Lock
from vfioctl.host.machine import Machine
from vfioctl.host.reader import read_snapshot
from vfioctl.host.state import StateDirectory
from vfioctl.model import Access, Node, Snapshot


class Killed(BaseException):
    """SIGKILL, as far as a test can have it: the machine refuses everything from then on."""


class Fault(NamedTuple):
    """What happens at a point: ``strike`` raises, or does something to the host; before or ``after`` its effect."""

    strike: Callable[[FakeMachine], None]
    after: bool = False


class FakeMachine(Machine):
    """Every write, state file and module is a *point*, numbered from 1 and named in ``points``; see ``faults``."""

    def __init__(self, kernel: FakeKernel, *, timeout: float = 0.2) -> None:
        self.root = kernel.tree.root
        super().__init__(timeout=timeout)
        self.kernel = kernel
        self.points: list[str] = []
        self.faults: dict[int, Fault] = {}
        self.fail_all_from: tuple[int, int] | None = None
        self.processes: int | None = None
        self.dead = False
        self.state = _State(self.at("/run/vfioctl"), self.point)
        self.leases: _Leases = _Leases(self.state)
        #: Stands in for the command of a run; its status.
        self.command: Callable[[Command], int] = lambda command: 0
        #: Node path to who has it open.
        self.held: dict[str, list[Holder]] = {}
        #: What happens while it waits for the kernel's events, one at a time; none is heard of what is in ``silent``.
        self.coming: list[Callable[[], object]] = []
        self.silent: list[Callable[[], object]] = []

    # --- faults ---------------------------------------------------------------------------------

    def fail_at(self, number: int, error: int, *, after: bool = False) -> FakeMachine:
        """The n-th point fails with this errno, without effect or ``after`` it."""

        def strike(machine: FakeMachine) -> None:
            raise OSError(error, os.strerror(error), machine.points[-1])

        self.faults[number] = Fault(strike, after)
        return self

    def fail_from(self, number: int, error: int) -> FakeMachine:
        """From the n-th on every write to the kernel fails with this errno (not the state files)."""
        self.fail_all_from = (number, error)
        return self

    def no_process_from(self, number: int) -> FakeMachine:
        """The host can start no process from the n-th on, and a process is what looks and what writes."""
        self.processes = number - 1
        return self

    def _start_process(self) -> None:
        if self.processes is not None:
            self.processes -= 1
            if self.processes < 0:
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    def die_at(self, number: int, *, after: bool = False) -> FakeMachine:
        """SIGKILL at the n-th point, before or after its effect."""

        def strike(machine: FakeMachine) -> None:
            machine.dead = True
            raise Killed

        self.faults[number] = Fault(strike, after)
        return self

    def hang_at(self, number: int, *, after: bool = False) -> FakeMachine:
        """The n-th write does not return within the deadline."""

        def strike(machine: FakeMachine) -> None:
            raise DeadlinePassed("the kernel has not answered")

        self.faults[number] = Fault(strike, after)
        return self

    def signal_at(self, number: int, name: signal.Signals, *, after: bool = False) -> FakeMachine:
        """This process gets a signal at the n-th point."""
        # Not kill(2): where the main thread blocks a signal, it would go to a thread that waits for a guest.
        self.faults[number] = Fault(lambda machine: signal.raise_signal(name), after)
        return self

    def unplug_at(self, number: int, address: str) -> FakeMachine:
        """The device is gone when the n-th write comes."""
        self.faults[number] = Fault(lambda machine: machine.kernel.unplug(address))
        return self

    def point(self, name: str, effect: Callable[[], None]) -> None:
        """Does ``effect``, unless a fault is due."""
        if self.dead:
            raise Killed
        self.points.append(name)
        fault = self.faults.get(len(self.points))
        if self.fail_all_from and len(self.points) >= self.fail_all_from[0] and not name.startswith("state "):
            raise OSError(self.fail_all_from[1], os.strerror(self.fail_all_from[1]), name)
        if fault and not fault.after:
            fault.strike(self)
        effect()
        if fault and fault.after:
            fault.strike(self)

    # --- Machine --------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        self._start_process()
        found = read_snapshot(self.root, ungrouped=True, named=self.named)
        groups = tuple(
            group._replace(
                node=self._owned(group.node),
                devices=tuple(device._replace(cdev=self._owned(device.cdev)) for device in group.devices),
            )
            for group in found.groups
        )
        devices = tuple(device._replace(cdev=self._owned(device.cdev)) for device in found.devices)
        return Snapshot(found.kernel, groups, devices)

    def _owned(self, node: Node | None) -> Node | None:
        """Owners are the fake's own, so that tests need no privilege."""
        return None if node is None else Node(node.path, *self.kernel.nodes[node.path][:3])

    def access(self, path: str) -> Access | None:
        return self.kernel.nodes.get(path)

    def write(self, path: str, data: str) -> None:
        self._start_process()
        self.point(f"{data.strip()} > {path}", lambda: self.kernel.write(path, data))

    def set_access(self, path: str, access: Access) -> None:
        nodes = self.kernel.nodes

        def own() -> None:
            self._must_exist(path)
            nodes[path] = nodes[path]._replace(uid=access.uid, gid=access.gid)

        def restrict() -> None:
            self._must_exist(path)
            nodes[path] = nodes[path]._replace(mode=access.mode)

        def list_names() -> None:
            self._must_exist(path)
            nodes[path] = nodes[path]._replace(acl=access.acl)

        self.point(f"chown {path}", own)
        self.point(f"chmod {path}", restrict)
        if nodes[path].acl != access.acl:
            self.point(f"setfacl {path}", list_names)

    def _must_exist(self, path: str) -> None:
        if path not in self.kernel.nodes:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), path)

    def read_locked(self, paths: Sequence[str]) -> list[str | Lock | None]:
        self._start_process()
        return [read(path) for path in paths]

    def claiming_drivers(self, key: str) -> list[str]:
        device = self.kernel.devices.get(key.rpartition("/")[2])
        made = {
            make().name for make in self.kernel.modules.values()
        }  # a driver that is built in has no module
        return [
            driver.name
            for driver in self.kernel.drivers.values()
            if device is not None
            and driver.name in made
            and driver.bus == device.bus
            and driver.knows(device)
        ]

    def load_module(self, name: str) -> None:
        self.point(f"modprobe {name}", lambda: self.kernel.load_module(name))

    def watch_nodes(self) -> Any:
        return _Watch(self.kernel)

    def uevents(self, reader: int | None = None) -> Any:
        return _Uevents(self)

    def settle(self, paths: list[str], timeout: float | None = None) -> bool:
        self.kernel.settle_udev()
        return True

    def find_holders(self, keys: Iterable[str]) -> Found:
        return Found(tuple(h for found in self.held.values() for h in found if h.key in list(keys)))

    def holders(self, path: str, key: str) -> list[Holder]:
        return self.held.get(path, [])

    def opening(self, path: str) -> int:
        return errno.EBUSY if path in self.held else 0

    def find_command(self, word: str, search: str, account: Account | None, memlock: int | None) -> str:
        return f"/usr/bin/{word}"

    def execute(self, command: Command) -> int:
        """While it runs, this machine's process is alive for others."""
        self.leases.living.add(self.leases.pid)
        statuses: list[int] = []
        try:
            self.point(f"run {command.path}", lambda: statuses.append(self.command(command)))
        finally:
            self.leases.living.discard(self.leases.pid)
        return statuses[0]


class _Watch:
    def __init__(self, kernel: FakeKernel) -> None:
        self.kernel = kernel

    def settle(self, paths: list[str], timeout: float) -> bool:
        self.kernel.settle_udev()
        return True


class _Uevents:
    failure: str | None = None

    def __init__(self, machine: FakeMachine) -> None:
        self.machine = machine

    def wait(self, seconds: float) -> bool:
        if seconds > 0 and self.machine.coming:
            self.machine.coming.pop(0)()
            return True
        time.sleep(min(seconds, 0.02))
        if seconds > 0 and self.machine.silent:
            self.machine.silent.pop(0)()
        return False


class _State(StateDirectory):
    """The real state directory, whose every change is a point."""

    def __init__(self, path: str, point: Callable[[str, Callable[[], None]], None]) -> None:
        super().__init__(path)
        self._point = point

    def _save(self, name: str, data: Mapping[str, Any]) -> None:
        self._point(f"state {name}", lambda: super(_State, self)._save(name, data))

    def clear_journal(self, name: str = "journal.json") -> None:
        if os.path.exists(os.path.join(self.path, name)):
            self._point("state clear", lambda: super(_State, self).clear_journal(name))

    def move(self, name: str, to: str) -> None:
        self._point(f"state move {name}", lambda: super(_State, self).move(name, to))


class _Leases(Leases):
    """Every machine is a process of its own, which lives until its command is over; or as long as ``living`` says."""

    living: ClassVar[set[int]] = set()
    _pids = itertools.count(1)

    def __init__(self, state: StateDirectory) -> None:
        super().__init__(state)
        self.pid = next(self._pids)

    def me(self) -> Owner:
        return Owner(self.pid, 1)

    def is_alive(self, owner: Owner) -> bool:
        return owner.pid in (self.pid, *self.living)
