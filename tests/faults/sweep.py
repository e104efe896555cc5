"""One scenario, run again and again on one imitated host, each time with another fault."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import pytest

from tests.conftest import CASES
from tests.fakes import sriov
from tests.fakes.command import Result, run_command
from tests.fakes.machine import FakeMachine, Killed
from tests.fakes.topology import ROLES, SMALL, boot
from tests.kernel.testbed.places import inside_guest
from vfioctl.model import Access

Arm = Callable[[FakeMachine], object]


class Picture(NamedTuple):
    """All that a change may change."""

    bindings: Mapping[str, tuple[str | None, str | None]]
    nodes: Mapping[str, Access]
    ids: tuple[str, ...]
    homes: Mapping[str, Any]
    numvfs: Mapping[str, int]

    def without(self, address: str) -> Picture:
        """For a device that has been pulled out, with its virtual functions."""
        virtual = f"{address.rpartition(':')[0]}:1"
        bindings = {
            key: value
            for key, value in self.bindings.items()
            if key != address and not key.startswith(virtual)
        }
        homes = {key: value for key, value in self.homes.items() if not key.endswith(address)}
        return Picture(bindings, {}, self.ids, homes, {})


class Scenario(NamedTuple):
    """``command`` after the commands of ``setup``, on a host with ``numvfs`` virtual functions."""

    name: str
    command: tuple[str, ...]
    setup: tuple[tuple[str, ...], ...] = ()
    cdevs: bool = False
    numvfs: int = 0
    returns: bool = False  # the state after is the one before


class Host:
    """A host in the state before the scenario's command, as often as it is asked for."""

    def __init__(self, root: str, scenario: Scenario) -> None:
        self.scenario = scenario
        self.kernel = boot(root, SMALL, cdevs=scenario.cdevs)
        self._set_numvfs(scenario.numvfs)
        for arguments in scenario.setup:
            assert self.run(*arguments).status == 0
        for module in ("vfio-pci", "vfio_iommu_type1", "pci-stub"):  # stay loaded whatever happens
            self.kernel.load_module(module)
        self.before = self.picture()
        self.state = self.kernel.tree.at("/run/vfioctl")
        if os.path.isdir(self.state):
            shutil.copytree(self.state, f"{self.state}.before")
        machine = self.machine()
        assert run_command(machine, *scenario.command).status == 0
        self.points = machine.points
        self.after = self.picture()
        assert (self.before == self.after) == scenario.returns
        self.reset()

    def machine(self) -> FakeMachine:
        return FakeMachine(self.kernel)

    def run(self, *arguments: str) -> Result:
        return run_command(self.machine(), *arguments)

    def picture(self) -> Picture:
        kernel = self.kernel
        return Picture(
            {address: (device.driver, device.override) for address, device in kernel.devices.items()},
            {path: access for path, access in kernel.nodes.items() if path != "/dev/vfio/vfio"},
            tuple(f"{driver.name} {entry}" for driver in kernel.drivers.values() for entry in driver.dynamic),
            self._homes(),
            {address: device.numvfs for address, device in kernel.devices.items() if device.totalvfs},
        )

    def _set_numvfs(self, number: int) -> None:
        """Past all rules."""
        device = self.kernel.devices[ROLES["nvme"]]
        if device.numvfs != number:
            sriov.disable(self.kernel, device)
            device.numvfs = 0
            sriov.enable(self.kernel, device, number)
            sriov.publish(self.kernel, device)

    def _homes(self) -> Mapping[str, Any]:
        path = self.kernel.tree.at("/run/vfioctl/homes.json")
        if not os.path.exists(path):
            return {}
        with open(path, encoding="utf-8") as file:
            found: Mapping[str, Any] = json.load(file)["homes"]
        return found

    def has_journal(self) -> bool:
        """Or a lease."""
        runs = os.path.join(self.state, "runs")
        return os.path.exists(os.path.join(self.state, "journal.json")) or (
            os.path.isdir(runs) and any(name.endswith(".json") for name in os.listdir(runs))
        )

    def reset(self) -> None:
        """Back to the state before, past all rules."""
        kernel = self.kernel
        for driver in kernel.drivers.values():
            driver.dynamic.clear()
        self._set_numvfs(self.before.numvfs[ROLES["nvme"]])
        for address, (name, override) in self.before.bindings.items():
            device = kernel.devices[address]
            if device.driver != name:
                kernel._detach(device)
                if name is not None:
                    kernel._probe(kernel.drivers[name], device)
            kernel._override(device, f"{override or ''}\n")
        kernel.nodes.update(self.before.nodes)
        shutil.rmtree(self.state, ignore_errors=True)
        if os.path.isdir(f"{self.state}.before"):
            shutil.copytree(f"{self.state}.before", self.state)
        assert self.picture() == self.before

    def recover(self, arm: Arm = lambda machine: None) -> tuple[int, FakeMachine]:
        """``vfioctl recover`` in a new process: its status, -9 when it was killed."""
        machine = self.machine()
        arm(machine)
        return attempt(machine, "recover"), machine


def attempt(machine: FakeMachine, *arguments: str) -> int:
    """The status of a command, -9 when it was killed."""
    try:
        return run_command(machine, *arguments).status
    except Killed:
        return -9


def strike(host: Host, arm: Arm, what: str) -> int:
    """Runs the scenario's command with a fault; checks that its status is true, and returns it."""
    machine = host.machine()
    arm(machine)
    said = ""
    try:
        result = run_command(machine, *host.scenario.command)
        status, said = result.status, result.stderr
    except Killed:
        status = -9
    now = host.picture()
    shown = f"{host.scenario.name}: {what}: status {status}"
    if status == 0 or "done, but" in said:
        assert now == host.after, f"{shown}, but the goal is not reached"
        assert not host.has_journal(), f"{shown}, and a journal"
    elif status == 9 or (status == 124 and now != host.before):
        assert host.has_journal(), f"{shown} without a journal"
    elif status not in (-9, 124):
        assert now == host.before, f"{shown}, but the state before is not back"
        assert not host.has_journal(), f"{shown}, and a journal"
    return status


def settle(host: Host, what: str) -> None:
    """``vfioctl recover`` must leave the state before or the state after, and nothing to recover."""
    interrupted = host.has_journal()
    status, _ = host.recover()
    now = host.picture()
    assert status == 0, f"{host.scenario.name}: {what}: recover ended with {status}"
    assert not host.has_journal(), what
    wanted = (host.before,) if interrupted else (host.before, host.after)
    assert now in wanted, f"{host.scenario.name}: {what}: a third state"


class Resettable(Protocol):
    """A host, imitated or real, that can be brought back to the state before."""

    def reset(self) -> None: ...


class Count:
    """How many cases there were, and what went wrong in them: all of it, not only the first."""

    def __init__(self) -> None:
        self.cases = 0
        self.wrong: list[str] = []

    @contextmanager
    def case(self, host: Resettable) -> Iterator[None]:
        self.cases += 1
        try:
            yield
        except AssertionError as error:
            self.wrong.append(str(error).partition("\n")[0])
        host.reset()

    def judge(self, least: int, record: Callable[[str, object], None]) -> None:
        record(CASES, (inside_guest() or "on the fake", self.cases))
        if self.wrong:
            pytest.fail(
                f"{len(self.wrong)} of {self.cases} cases:\n" + "\n".join(self.wrong[:40]), pytrace=False
            )
        assert self.cases >= least
