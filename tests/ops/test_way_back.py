"""The way back where more than the devices' own writes has a part in it: nodes that are numbered anew, udev, virtual
functions, modules, signals, a host that can start no process."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

import pytest

from tests.fakes.command import run_command
from tests.fakes.kernel import FakeKernel
from tests.fakes.machine import FakeMachine, Killed
from tests.fakes.topology import ROLES, SMALL, boot
from vfioctl.errors import DeadlinePassed
from vfioctl.host.child import Command
from vfioctl.model import Access

NIC, TWIN, NVME = ROLES["nic_a"], ROLES["nic_b"], ROLES["nvme"]
OWNED = Access(1000, 0, 0o600)


@pytest.fixture
def kernel(tmp_path: Path) -> FakeKernel:
    kernel = boot(str(tmp_path), SMALL, cdevs=True)
    for module in ("vfio-pci", "vfio_iommu_type1"):
        kernel.load_module(module)
    return kernel


def binding(kernel: FakeKernel, address: str) -> tuple[str | None, str | None]:
    device = kernel.devices[address]
    return device.driver, device.override


def cdev(kernel: FakeKernel, address: str) -> str:
    return f"/dev/vfio/devices/vfio{kernel.devices[address].vfio_number}"


def killed(kernel: FakeKernel, point: int, *arguments: str) -> None:
    with pytest.raises(Killed):
        run_command(FakeMachine(kernel).die_at(point), *arguments)


def test_cdevs_that_are_numbered_anew(kernel: FakeKernel) -> None:
    """The one that was unbound last comes back first, and gets the lowest number that is free."""
    assert run_command(FakeMachine(kernel), "bind", NIC, TWIN, "--user", 1000).status == 0
    before = cdev(kernel, NIC), cdev(kernel, TWIN)
    run_command(FakeMachine(kernel), "permit", "12", "--user", 7)
    kernel.probe_errors["e1000e", TWIN] = errno.EIO
    result = run_command(FakeMachine(kernel), "unbind", NIC, TWIN)
    assert result.status == 8, result.stderr
    assert before == (cdev(kernel, TWIN), cdev(kernel, NIC))
    assert kernel.nodes[cdev(kernel, NIC)].uid == 7
    assert kernel.nodes[cdev(kernel, TWIN)].uid == 1000


def test_udev_has_its_say_before_the_owner_is_given_back(kernel: FakeKernel) -> None:
    assert run_command(FakeMachine(kernel), "bind", NIC, "--user", 1000).status == 0
    kernel.probe_errors["e1000e", NIC] = errno.EIO
    kernel.udev_rules["/dev/vfio/12"] = Access(0, 78, 0o660)
    assert run_command(FakeMachine(kernel), "unbind", NIC).status == 8
    kernel.settle_udev()
    assert kernel.nodes["/dev/vfio/12"] == OWNED


def test_virtual_functions_that_went_with_an_unbind(kernel: FakeKernel) -> None:
    kernel.write(f"/sys/bus/pci/devices/{NVME}/sriov_numvfs", "2")
    first, second = (key.removeprefix("pci/") for key in FakeMachine(kernel).virtual_functions(f"pci/{NVME}"))
    assert run_command(FakeMachine(kernel), "unbind", "--leave-unbound", first).status == 0
    before = binding(kernel, first), binding(kernel, second)
    result = run_command(
        FakeMachine(kernel).fail_at(3, errno.EIO),  # after the journal and sriov_numvfs
        *("unbind", "--leave-unbound", NVME, "--allow", "virtual-functions"),
    )
    assert result.status == 8, result.stderr
    assert (binding(kernel, first), binding(kernel, second)) == before == ((None, None), ("nvme", None))


def test_a_module_that_takes_one_that_is_back_already(kernel: FakeKernel) -> None:
    assert run_command(FakeMachine(kernel), "unbind", "--leave-unbound", TWIN).status == 0
    machine = FakeMachine(kernel)
    killed(kernel, _last(kernel, NIC, TWIN), "bind", NIC, TWIN)
    _unload(kernel, "e1000e")
    machine = FakeMachine(kernel)
    result = run_command(machine, "recover")
    assert result.status == 0, result.stderr
    assert any(point.startswith("modprobe") for point in machine.points)
    assert (binding(kernel, NIC), binding(kernel, TWIN)) == (("e1000e", None), (None, None))


def _last(kernel: FakeKernel, *addresses: str) -> int:
    """The number of the last point of a bind, which is undone."""
    machine = FakeMachine(kernel)
    assert run_command(machine, "bind", *addresses).status == 0
    assert run_command(FakeMachine(kernel), "unbind", *addresses).status == 0
    return len(machine.points)


def _unload(kernel: FakeKernel, driver: str) -> None:
    assert all(device.driver != driver for device in kernel.devices.values())
    del kernel.drivers[driver]
    kernel.tree.remove(f"/sys/bus/pci/drivers/{driver}")


class TestRecoverGoesOn:
    @pytest.fixture
    def half_way(self, kernel: FakeKernel) -> FakeKernel:
        killed(kernel, _last(kernel, NIC, TWIN), "bind", NIC, TWIN)
        return kernel

    def test_past_one_whose_identity_cannot_be_read(
        self, half_way: FakeKernel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        machine = FakeMachine(half_way)
        identity = machine.identity

        def failing(key: str) -> str | None:
            if key.endswith(TWIN):
                raise OSError(errno.ENFILE, os.strerror(errno.ENFILE))
            return identity(key)

        monkeypatch.setattr(machine, "identity", failing)
        result = run_command(machine, "recover")
        assert result.status == 9 and f"{TWIN} cannot be read" in result.stderr
        assert binding(half_way, NIC) == ("e1000e", None)
        assert run_command(FakeMachine(half_way), "recover").status == 0
        assert binding(half_way, TWIN) == ("e1000e", None)

    def test_past_an_id_that_is_not_taken_away(
        self, kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        killed(kernel, 5, "bind", NIC, "--method", "new-id", "--allow", "new-id-match")
        assert binding(kernel, NIC)[0] != "e1000e"
        machine = FakeMachine(kernel)
        write = machine.write

        def slow(path: str, data: str) -> None:
            if path.endswith("remove_id"):
                raise DeadlinePassed("the kernel has not answered")
            write(path, data)

        monkeypatch.setattr(machine, "write", slow)
        result = run_command(machine, "recover")
        assert result.status == 9 and "may still know the id" in result.stderr
        assert binding(kernel, NIC) == ("e1000e", None)
        assert run_command(FakeMachine(kernel), "recover").status == 0


class TestARunThatWasKilled:
    @pytest.fixture
    def killed_run(self, kernel: FakeKernel) -> FakeKernel:
        machine = FakeMachine(kernel)

        def die(command: Command) -> int:
            machine.dead = True
            raise Killed

        machine.command = die
        with pytest.raises(Killed):
            run_command(machine, "run", NIC, "--user", "nobody", "--", "true")
        return kernel

    def test_a_signal_while_recover_waits_is_no_recovery(
        self, killed_run: FakeKernel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        machine = FakeMachine(killed_run, timeout=60)

        def is_held(path: str) -> bool:
            os.kill(os.getpid(), signal.SIGTERM)
            return True

        monkeypatch.setattr(machine, "is_held", is_held)
        result = run_command(machine, "recover")
        assert result.status == 9 and "nothing has been put back" in result.stderr
        assert binding(killed_run, NIC) == ("vfio-pci", "vfio-pci")


def test_a_run_that_cannot_look_does_not_say_that_it_has_given_back(kernel: FakeKernel) -> None:
    machine = FakeMachine(kernel)

    def exhaust(command: Command) -> int:
        machine.processes = 0
        return 3

    machine.command = exhaust
    result = run_command(machine, "run", NIC, "--user", "nobody", "--", "true")
    assert result.status == 9
    assert "ended with status 3" in result.stderr
    assert run_command(FakeMachine(kernel), "recover").status == 0
    assert binding(kernel, NIC) == ("e1000e", None)


def test_another_lease_that_cannot_be_understood(kernel: FakeKernel) -> None:
    """What this run has lent is given back all the same."""
    machine = FakeMachine(kernel)

    def spoil(command: Command) -> int:
        Path(kernel.tree.at("/run/vfioctl/runs/99-1.json")).write_text("{")
        return 0

    machine.command = spoil
    assert run_command(machine, "run", NIC, "--user", "nobody", "--", "true").status == 0
    assert binding(kernel, NIC) == ("e1000e", None)


def test_a_deadline_on_a_host_that_can_start_no_process(
    kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = FakeMachine(kernel)

    def hang(path: str, data: str) -> None:
        machine.processes = 0
        raise DeadlinePassed("the kernel has not answered")

    monkeypatch.setattr(machine, "write", hang)
    result = run_command(machine, "bind", NIC)
    assert result.status == 124 and f"{NIC} cannot be read" in result.stderr
