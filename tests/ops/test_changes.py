"""What may come between a plan and its end, on the imitated kernel: other changes, other devices, other drivers."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.fakes.command import run_command
from tests.fakes.drivers import FakeDevice, FakeDriver, PciId
from tests.fakes.kernel import FakeKernel
from tests.fakes.machine import FakeMachine, Killed
from tests.fakes.topology import E1000, ROLES, SMALL, boot
from vfioctl.host.journal import Home, Journal
from vfioctl.host.state import StateDirectory
from vfioctl.model import Access, Binding, State
from vfioctl.ops.assign import carry_out
from vfioctl.ops.unbind import plan_unbind

EDU, NIC, TWIN, NVME = ROLES["edu"], ROLES["nic_a"], ROLES["nic_b"], ROLES["nvme"]
NEW_ID = ("--method", "new-id", "--allow", "new-id-match")


@pytest.fixture
def kernel(tmp_path: Path) -> FakeKernel:
    kernel = boot(str(tmp_path), SMALL)
    for module in ("vfio-pci", "vfio_iommu_type1"):
        kernel.load_module(module)
    return kernel


def homes(kernel: FakeKernel) -> dict[str, Home]:
    return StateDirectory(kernel.tree.at("/run/vfioctl")).homes()


def binding(kernel: FakeKernel, address: str) -> tuple[str | None, str | None]:
    device = kernel.devices[address]
    return device.driver, device.override


def test_a_plan_keeps_what_others_have_recorded_since(kernel: FakeKernel) -> None:
    assert run_command(FakeMachine(kernel), "bind", TWIN).status == 0
    machine = FakeMachine(kernel)
    snapshot = machine.snapshot()
    (device,) = [device for device in snapshot.devices if device.address == TWIN]
    planned = plan_unbind(machine, snapshot, [device], None, False)
    assert run_command(FakeMachine(kernel), "bind", NIC).status == 0
    carry_out(machine, lambda: planned, None, lambda text: None)
    assert set(homes(kernel)) == {f"pci/{NIC}"}
    assert homes(kernel)[f"pci/{NIC}"].binding == Binding("e1000e", None)


def test_virtual_functions_go_only_when_that_is_allowed_and_come_back(kernel: FakeKernel) -> None:
    kernel.write(f"/sys/bus/pci/devices/{NVME}/sriov_numvfs", "2")
    kernel.writes.clear()
    result = run_command(FakeMachine(kernel), "bind", NVME, "-J")
    assert (result.status, result.json_error["code"]) == (5, "virtual-functions")
    assert kernel.writes == [] and result.stdout == ""
    assert run_command(FakeMachine(kernel), "bind", NVME, "--allow", "virtual-functions").status == 0
    assert kernel.devices[NVME].numvfs == 0
    assert set(homes(kernel)) == {f"pci/{NVME}"}
    assert run_command(FakeMachine(kernel), "unbind", NVME).status == 0
    assert (kernel.devices[NVME].numvfs, binding(kernel, NVME)) == (2, ("nvme", None))


def test_recover_leaves_another_device_at_the_address_alone(kernel: FakeKernel) -> None:
    machine = FakeMachine(kernel).die_at(4)  # the override is set, the device unbound
    with pytest.raises(Killed):
        run_command(machine, "bind", NIC)
    assert binding(kernel, NIC) == (None, "vfio-pci")
    kernel.unplug(NIC)
    kernel.plug(FakeDevice(NIC, E1000, 12, ROLES["port_a"]))
    assert binding(kernel, NIC) == ("e1000", None)
    kernel.writes.clear()
    result = run_command(FakeMachine(kernel), "recover")
    assert result.status == 0, result.stderr
    assert f"at {NIC} there is another device now" in result.stderr
    assert kernel.writes == []
    assert binding(kernel, NIC) == ("e1000", None)
    assert run_command(FakeMachine(kernel), "bind", NIC).status == 0  # the journal is gone


class TestNewId:
    @pytest.fixture
    def unbound_twin(self, kernel: FakeKernel) -> FakeKernel:
        assert run_command(FakeMachine(kernel), "unbind", "--leave-unbound", TWIN).status == 0
        kernel.writes.clear()
        return kernel

    def test_the_twin_is_taken_along_but_given_to_nobody(self, unbound_twin: FakeKernel) -> None:
        kernel = unbound_twin
        result = run_command(FakeMachine(kernel), "bind", NIC, *NEW_ID, "--user", 1000, "-J")
        assert result.status == 0, result.stderr
        assert binding(kernel, TWIN) == ("vfio-pci", None)
        assert {d["address"]: d["changed"] for d in result.json["devices"]} == {NIC: True, TWIN: True}
        assert kernel.nodes[f"/dev/vfio/{kernel.devices[NIC].group}"] == Access(1000, 0, 0o600)
        assert kernel.nodes[f"/dev/vfio/{kernel.devices[TWIN].group}"] == Access(0, 0, 0o600)
        assert homes(kernel)[f"pci/{TWIN}"].binding == Binding(None, None)
        assert run_command(FakeMachine(kernel), "unbind", NIC, TWIN).status == 0
        assert binding(kernel, TWIN) == (None, None)

    def test_the_twin_is_put_back(self, unbound_twin: FakeKernel) -> None:
        kernel = unbound_twin
        kernel.probe_errors["vfio-pci", NIC] = 22
        result = run_command(FakeMachine(kernel), "bind", NIC, *NEW_ID, "-J")
        assert (result.status, result.json_error["errno"]) == (8, "EINVAL")
        assert ("/sys/bus/pci/drivers/vfio-pci/unbind", TWIN) in kernel.writes
        assert (binding(kernel, NIC), binding(kernel, TWIN)) == (("e1000e", None), (None, None))

    def test_the_twin_is_left_alone_when_the_id_is_known_already(self, kernel: FakeKernel) -> None:
        machine = FakeMachine(kernel)
        (device,) = [device for device in machine.snapshot().devices if device.address == NIC]
        assert device.pci is not None
        pci = device.pci
        fields = (pci.vendor, pci.device, pci.subsystem_vendor, pci.subsystem_device, pci.class_, "ffffff")
        kernel.write("/sys/bus/pci/drivers/vfio-pci/new_id", " ".join(fields))
        assert run_command(FakeMachine(kernel), "unbind", "--leave-unbound", TWIN).status == 0
        kernel.writes.clear()
        result = run_command(FakeMachine(kernel), "bind", NIC, *NEW_ID, "-J")
        assert result.status == 0, result.stderr
        assert [d["address"] for d in result.json["devices"]] == [NIC]
        assert binding(kernel, TWIN) == (None, None)
        assert f"pci/{TWIN}" not in homes(kernel)
        assert not [write for write in kernel.writes if write[1] == TWIN or write[0].endswith("remove_id")]

    def test_the_dry_run_for_a_device_without_a_driver(self, kernel: FakeKernel) -> None:
        result = run_command(FakeMachine(kernel), "bind", EDU, *NEW_ID, "--dry-run")
        assert result.status == 0, result.stderr
        targets = [line.rpartition("/")[2] for line in result.stdout.splitlines() if line.startswith("echo")]
        assert targets == ["new_id", "remove_id"]


class TestIdsOfTheModule:
    """vfio-pci ids= takes the requested device as soon as the module is loaded."""

    @pytest.fixture
    def kernel(self, tmp_path: Path) -> FakeKernel:
        kernel = boot(str(tmp_path), SMALL)
        make = kernel.modules["vfio_pci"]

        def with_ids() -> FakeDriver:
            driver = make()
            driver.dynamic.append(PciId(0x1234, 0x11E8))
            return driver

        kernel.modules["vfio_pci"] = with_ids
        return kernel

    def test_what_was_before_is_what_was_before_the_module(self, kernel: FakeKernel) -> None:
        result = run_command(FakeMachine(kernel), "bind", EDU, "-J")
        assert result.status == 0, result.stderr
        (device,) = result.json["devices"]
        assert (device["driver_before"], device["driver"], device["changed"]) == (None, "vfio-pci", True)
        assert homes(kernel)[f"pci/{EDU}"].binding == Binding(None, None)
        assert run_command(FakeMachine(kernel), "unbind", EDU).status == 0
        assert binding(kernel, EDU) == (None, None)

    def test_the_kernels_choice_is_the_same_driver_again(self, kernel: FakeKernel) -> None:
        kernel.load_module("vfio_pci")
        assert binding(kernel, EDU) == ("vfio-pci", None)
        result = run_command(FakeMachine(kernel), "unbind", EDU, "-J")
        assert (result.status, result.stdout) == (8, "")
        assert "claims its id" in result.json_error["message"]
        assert "--leave-unbound" in result.json_error["hint"]
        assert binding(kernel, EDU) == ("vfio-pci", None)
        assert run_command(FakeMachine(kernel), "unbind", EDU, "--leave-unbound").status == 0


def test_a_device_that_the_host_has_is_left_alone_whatever_is_on_record(kernel: FakeKernel) -> None:
    assert run_command(FakeMachine(kernel), "bind", NIC).status == 0
    kernel.write(f"/sys/bus/pci/devices/{NIC}/driver_override", "e1000\n")
    kernel.write("/sys/bus/pci/drivers/vfio-pci/unbind", NIC)
    kernel.write("/sys/bus/pci/drivers/e1000/bind", NIC)
    kernel.writes.clear()
    result = run_command(FakeMachine(kernel), "unbind", NIC, "-J")
    assert result.status == 0, result.stderr
    assert result.json["changed"] is False and kernel.writes == []
    assert binding(kernel, NIC) == ("e1000", "e1000")


@pytest.mark.parametrize(("iommufd", "status"), [(False, 7), (True, 0)])
def test_a_kernel_without_type1(tmp_path: Path, iommufd: bool, status: int) -> None:
    """CONFIG_IOMMUFD_VFIO_CONTAINER: iommufd, of which vfio makes use, is what containers work with."""
    kernel = boot(str(tmp_path), SMALL)
    kernel.has_type1 = False
    if iommufd:
        kernel.tree.directory("/sys/module/iommufd")
    assert run_command(FakeMachine(kernel), "bind", EDU).status == status


def test_access_to_what_is_bound_already(kernel: FakeKernel) -> None:
    group = kernel.devices[EDU].group
    assert run_command(FakeMachine(kernel), "bind", group).status == 0
    kernel.writes.clear()
    result = run_command(FakeMachine(kernel), "bind", group, "--user", 1000, "-J")
    assert result.status == 0, result.stderr
    (device,) = result.json["devices"]
    assert (device["address"], device["changed"], device["node"]["uid"]) == (EDU, False, 1000)
    assert result.json["changed"] is True and kernel.writes == []
    assert kernel.nodes[f"/dev/vfio/{group}"] == Access(1000, 0, 0o600)


@pytest.mark.parametrize(
    ("header", "mute"),
    [(b"\xff" * 64, True), (b"\xff" * 4 + bytes(60), False), (b"", False)],
    ids=["mute", "virtual function", "gone"],
)
def test_a_device_that_answers_with_ones_only(kernel: FakeKernel, header: bytes, mute: bool) -> None:
    """It is bound all the same; a virtual function has ones for its vendor and device."""
    nic = ROLES["nic_a"]
    kernel.tree.put(f"{kernel.tree.homes['pci', nic]}/config", header)
    result = run_command(FakeMachine(kernel), "bind", nic)
    assert result.status == 0
    assert ("answers with ones only" in result.stderr) is mute


def test_a_journal_of_a_running_change_is_waited_for(kernel: FakeKernel) -> None:
    state = StateDirectory(kernel.tree.at("/run/vfioctl"))
    ready, told = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with state.lock(1, lambda text: None):
                state.save_journal(Journal("bind", State({}, {})))
                os.write(told, b"x")
                time.sleep(0.5)
                state.clear_journal()
        finally:
            os._exit(0)
    os.close(told)
    try:
        assert os.read(ready, 1) == b"x"
        result = run_command(FakeMachine(kernel, timeout=20), "bind", NIC)
    finally:
        os.close(ready)
        os.waitpid(child, 0)
    assert result.status == 0, result.stderr
    assert f"waiting for another vfioctl (process {child}: " in result.stderr


@pytest.mark.parametrize(("part", "status"), [(b'"before"', 7), (b'"homes"', 8)])
def test_a_disk_that_takes_a_part_and_is_full(
    kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch, part: bytes, status: int
) -> None:
    """The journal first: nothing is changed; the record of homes last: everything is put back."""
    assert run_command(FakeMachine(kernel), "bind", TWIN).status == 0
    directory = Path(kernel.tree.at("/run/vfioctl"))
    before = (directory / "homes.json").read_bytes()
    real = os.write
    full: list[int] = []

    def write(fd: int, data: bytes) -> int:
        if fd in full:
            raise OSError(28, "No space left on device")
        if part in data and (b'"before"' in data) == (part == b'"before"'):
            full.append(fd)
            return real(fd, data[:10])
        return real(fd, data)

    monkeypatch.setattr(os, "write", write)
    result = run_command(FakeMachine(kernel), "bind", NIC, "-J")
    monkeypatch.undo()
    assert (result.status, result.json_error["errno"]) == (status, "ENOSPC")
    assert full
    assert (directory / "homes.json").read_bytes() == before
    assert sorted(entry.name for entry in directory.iterdir()) == ["homes.json", "lock"]
    assert binding(kernel, NIC) == ("e1000e", None)
