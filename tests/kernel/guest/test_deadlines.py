"""Nothing hangs: a kernel that does not answer, a device whose lock it holds, a modprobe that never ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.kernel.guest.conftest import Vfioctl
from tests.kernel.guest.sysfs import (
    PCI,
    driver_of,
    give,
    group_of,
    modprobe,
    on_host_driver,
    override_of,
    remove_modules,
    take_back,
    unbind,
)
from tests.kernel.guest.watched import watch
from vfioctl.host import vfio
from vfioctl.host.machine import Machine
from vfioctl.uapi import vfio as uapi

JOURNAL = Path("/run/vfioctl/journal.json")


@contextlib.contextmanager
def device_user(address: str) -> Iterator[int]:
    """A process that has the device open, through group and container; its pid."""
    ready, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        container = os.open(vfio.container_path(), os.O_RDWR)
        group = os.open(vfio.group_path(group_of(address)), os.O_RDWR)
        vfio.group_set_container(group, container)
        vfio.set_iommu(container, uapi.VFIO_TYPE1v2_IOMMU)
        vfio.group_get_device_fd(group, address)
        os.write(told, b"x")
        while True:
            signal.pause()
    os.close(told)
    try:
        assert os.read(ready, 1) == b"x", "the device could not be opened"
        yield pid
    finally:
        os.close(ready)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def wait_until(what: str, condition: object, seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < until, what
        time.sleep(0.05)


def test_an_unbind_that_waits_for_a_user_who_came_in_between(
    vfioctl: Vfioctl, roles: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check before the unbind is made blind, as if the user had come right after it."""
    modprobe("e1000e")
    address = roles["nic_a"]
    assert vfioctl("bind", address).status == 0
    with device_user(address) as user:
        monkeypatch.setattr(Machine, "is_held", lambda self, path: False)
        result = vfioctl("--timeout", "4", "unbind", address, "-J")
        monkeypatch.undo()
        assert (result.status, result.stdout) == (124, ""), result.stderr
        error = result.json_error
        assert error["code"] == "timeout"
        assert f"process {user}" in error["message"], error
        assert "/unbind within 4 s" in error["message"]
        assert "vfioctl recover" in error["hint"]
        kernel = error["kernel"]
        assert kernel["state"] in ("S", "D")
        assert any("vfio" in frame for frame in kernel["stack"]), kernel
        assert any(address in line for line in error["left"]), error["left"]
        assert JOURNAL.exists()
        # The writer was left to the kernel, once, and is nobody's zombie.
        assert Path(f"/proc/{kernel['pid']}/stat").read_text().rpartition(")")[2].split()[1] == "1"
        recovering = vfioctl("--timeout", "4", "recover", "-J")
        assert recovering.status == 9, recovering.stderr
        assert f"process {user}" in recovering.json_error["message"]
        assert vfioctl("bind", roles["edu"], "-J").json_error["code"] == "unfinished-change"
    wait_until("the writer has not ended", lambda: not os.path.exists(f"/proc/{kernel['pid']}/root"))
    done = vfioctl("recover", "-J")
    assert done.status == 0 and done.json["changed"] is True, done.stderr
    assert (driver_of(address), override_of(address)) == ("vfio-pci", "vfio-pci")
    assert not JOURNAL.exists()
    assert vfioctl("unbind", address).status == 0
    assert driver_of(address) == "e1000e"


def test_a_modprobe_that_never_ends(vfioctl: Vfioctl, roles: Mapping[str, str], tmp_path: Path) -> None:
    address = roles["edu"]
    assert vfioctl("unbind", address).status == 0
    remove_modules("vfio-pci", "vfio_iommu_type1")
    script = tmp_path / "modprobe"
    script.write_text("#!/bin/sh\nexec sleep 1000\n")
    script.chmod(0o755)
    program = os.path.realpath("/sbin/modprobe")
    subprocess.run(["mount", "--bind", str(script), program], check=True)
    try:
        result = vfioctl("--timeout", "3", "bind", address, "-J")
    finally:
        subprocess.run(["umount", program], check=True)
    assert (result.status, result.stdout) == (124, ""), result.stderr
    error = result.json_error
    assert error["code"] == "timeout" and "modprobe" in error["message"]
    os.kill(error["kernel"]["pid"], signal.SIGKILL)
    assert (driver_of(address), override_of(address)) == (None, None)
    assert vfioctl("recover").status == 0
    assert vfioctl("bind", address).status == 0
    assert vfioctl("unbind", address).status == 0


@pytest.fixture
def nvme(vfioctl: Vfioctl, roles: Mapping[str, str]) -> Iterator[str]:
    """A physical function on its host driver, without virtual functions."""
    modprobe("vfio-pci", "vfio_iommu_type1")
    address = roles["nvme"]
    on_host_driver(address, "nvme")
    # nvme gives up on a virtual one after a while
    (PCI / address / "sriov_drivers_autoprobe").write_text("0")
    yield address
    if (PCI / address / "sriov_numvfs").read_text().strip() != "0":
        (PCI / address / "sriov_numvfs").write_text("0")
    unbind(address)


def virtual_functions(address: str) -> list[str]:
    links = sorted((PCI / address).glob("virtfn*"))
    return [os.readlink(link).rpartition("/")[2] for link in links]


def test_a_device_whose_lock_the_kernel_holds(vfioctl: Vfioctl, roles: Mapping[str, str], nvme: str) -> None:
    """sriov_numvfs waits, with the lock of the physical function, for the user of a virtual one."""
    (PCI / nvme / "sriov_numvfs").write_text("1")
    (vf,) = virtual_functions(nvme)
    assert vfioctl("bind", vf).status == 0
    with device_user(vf):
        writer = os.fork()
        if writer == 0:
            (PCI / nvme / "sriov_numvfs").write_text("0")
            os._exit(0)
        wait_until("the virtual function keeps its driver", lambda: driver_of(vf) is None)
        listed = vfioctl("list-devices", nvme, "-J")
        assert listed.status == 0, listed.stderr
        assert listed.json["devices"][0]["driver"] == "nvme"
        for arguments in (("show", nvme), ("check-viable", nvme), ("list-groups",), ("impact", nvme)):
            assert vfioctl(*arguments, "-J").status in (0, 1), arguments
        refused = vfioctl("bind", nvme, "-J")
        assert refused.status == 6, refused.stderr
        assert refused.json_error["code"] == "being-changed"
        edu = roles["edu"]
        with watch(vfioctl, edu, "--interval", 60) as seen:
            give(edu, "vfio-pci")
            seen.find("bound", address=edu)
            take_back(edu)
            seen.find("unbound", address=edu)
        assert vfioctl("wait", nvme, "--gone", "--timeout", 1, deadline=30).status == 124
        assert os.waitpid(writer, os.WNOHANG) == (0, 0)
    assert os.waitpid(writer, 0)[1] == 0
    assert virtual_functions(nvme) == []


def test_virtual_functions_make_way_when_that_is_allowed(vfioctl: Vfioctl, nvme: str) -> None:
    numvfs = PCI / nvme / "sriov_numvfs"
    numvfs.write_text("2")
    assert len(virtual_functions(nvme)) == 2
    refused = vfioctl("bind", nvme, "-J")
    assert (refused.status, refused.json_error["code"]) == (5, "virtual-functions")
    assert len(virtual_functions(nvme)) == 2 and driver_of(nvme) == "nvme"
    shown = vfioctl("bind", nvme, "--dry-run", "--allow", "virtual-functions")
    assert shown.status == 0 and f"echo 0 > /sys/bus/pci/devices/{nvme}/sriov_numvfs" in shown.stdout
    done = vfioctl("bind", nvme, "--allow", "virtual-functions", "-J")
    assert done.status == 0, done.stderr
    assert driver_of(nvme) == "vfio-pci" and virtual_functions(nvme) == []
    back = vfioctl("unbind", nvme, "-J")
    assert back.status == 0, back.stderr
    assert driver_of(nvme) == "nvme"
    assert numvfs.read_text().strip() == "2" and len(virtual_functions(nvme)) == 2


def test_virtual_functions_that_are_assigned_stay(vfioctl: Vfioctl, nvme: str) -> None:
    (PCI / nvme / "sriov_numvfs").write_text("1")
    (vf,) = virtual_functions(nvme)
    assert vfioctl("bind", vf).status == 0
    refused = vfioctl("bind", nvme, "--allow", "virtual-functions", "-J")
    assert (refused.status, refused.json_error["code"]) == (5, "virtual-functions-assigned")
    assert (driver_of(nvme), driver_of(vf)) == ("nvme", "vfio-pci")
    assert vfioctl("unbind", vf).status == 0


def test_virtual_functions_come_back_after_a_kill(
    vfioctl: Vfioctl, nvme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed when they are gone and the device has lost its driver; a virtual one had been steered."""
    (PCI / nvme / "sriov_numvfs").write_text("2")
    first, second = virtual_functions(nvme)
    (PCI / second / "driver_override").write_text("nothing")
    real = Machine.write

    def write(machine: Machine, path: str, data: str) -> None:
        if path.endswith("/bind"):
            os.kill(os.getpid(), signal.SIGKILL)
        real(machine, path, data)

    with monkeypatch.context() as patched:
        patched.setattr(Machine, "write", write)
        assert vfioctl("bind", nvme, "--allow", "virtual-functions").status == -signal.SIGKILL
    assert driver_of(nvme) is None and virtual_functions(nvme) == []
    result = vfioctl("recover", "-J")
    assert result.status == 0, result.stderr
    assert driver_of(nvme) == "nvme"
    assert virtual_functions(nvme) == [first, second]
    assert (override_of(first), override_of(second)) == (None, "nothing")
