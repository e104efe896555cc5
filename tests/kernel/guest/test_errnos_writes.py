"""What the kernel refuses of writes to sysfs: with which errno, and that vfioctl says which of its causes it is, with
the file that proves it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kernel.guest.sysfs import (
    PCI,
    driver_of,
    give,
    group_of,
    need_driver,
    on_host_driver,
    remove_modules,
    take_back,
    unbind,
    without_driver,
)
from tests.kernel.guest.test_errnos import open_device
from vfioctl.errors import VfioctlError
from vfioctl.host.machine import Machine
from vfioctl.model import Access, SetAccess, Step, Write
from vfioctl.ops.modules import load_modules
from vfioctl.ops.steps import explain

Roles = Mapping[str, str]
DRIVERS = "/sys/bus/pci/drivers"
NOBODY = 65534


def refused(step: Step, subject: str, name: str, code: str, hint: str, /, **evidence: str) -> VfioctlError:
    """Do ``step``: it has to be refused with errno ``name``, and explained with ``code``, a cure that has ``hint``, and
    evidence: the values by the last word of the file."""
    machine = Machine()
    with pytest.raises(OSError) as caught:
        machine.apply(step)
    error = explain(machine, step, caught.value, subject)
    assert (error.errno_name, error.code) == (name, code), error.message
    assert hint in (error.hint or ""), error.hint
    found = {each["file"].rpartition("/")[2]: each["value"] for each in error.details.get("evidence", ())}
    assert evidence.items() <= found.items(), found
    return error


def bind(driver: str, address: str, name: str, code: str, hint: str, /, **evidence: str) -> VfioctlError:
    return refused(Write(f"{DRIVERS}/{driver}/bind", address), f"pci/{address}", name, code, hint, **evidence)


def write(
    address: str, file: str, data: str, name: str, code: str, hint: str, **evidence: str
) -> VfioctlError:
    return refused(Write(f"{PCI / address}/{file}", data), f"pci/{address}", name, code, hint, **evidence)


@contextmanager
def steered(address: str, driver: str) -> Iterator[None]:
    """The device without a driver and with this override meanwhile; the kernel finds its driver again."""
    before = driver_of(address)
    override = PCI / address / "driver_override"
    override.write_text(driver)
    unbind(address)
    try:
        yield
    finally:
        override.write_text("\n")
        if before is not None and driver_of(address) is None:
            Path(DRIVERS, before, "bind").write_text(address)


@contextmanager
def lent(address: str) -> Iterator[int]:
    """The device open in another process, whose pid this is."""
    give(address, "vfio-pci")
    try:
        with open_device(address) as files, subprocess.Popen(["sleep", "100"], pass_fds=files) as holder:
            try:
                yield holder.pid
            finally:
                holder.kill()
    finally:
        take_back(address)


@contextmanager
def as_nobody() -> Iterator[None]:
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def nvme(roles: Roles) -> str:
    """The disk with its host driver, which other tests may have taken from it."""
    on_host_driver(roles["nvme"], "nvme")
    return roles["nvme"]


def test_devices_that_a_driver_does_not_take(vfio_pci: Path, roles: Roles, nvme: str) -> None:
    bridge, edu = roles["plain_bridge"], roles["mf0"]
    with steered(bridge, "vfio-pci"):
        bind("vfio-pci", bridge, "EINVAL", "bridge", "--leave-unbound", **{"class": "0x060400"})
    with steered(edu, "none"):
        bind("vfio-pci", edu, "ENODEV", "kernel", "driver_override", driver_override="none")
    bind("nvme", edu, "ENODEV", "kernel", "--to NAME", vendor="0x1234", device="0x11e8")
    bind("vfio-pci", "0000:ff:1f.7", "ENODEV", "no-such-device", "list-devices")
    bind("no-such", edu, "ENOENT", "no-driver", "modprobe no-such")
    override = PCI / nvme / "driver_override"
    override.write_text("vfio-pci")  # or it would not match, and so be ENODEV
    bind("vfio-pci", nvme, "EBUSY", "busy", "--leave-unbound", driver="nvme")
    override.write_text("\n")
    unbinding = Write(f"{DRIVERS}/vfio-pci/unbind", nvme)
    error = refused(unbinding, f"pci/{nvme}", "ENODEV", "kernel", "show", driver="nvme")
    assert "it has nvme" in error.message
    unbinding = Write(f"{DRIVERS}/vfio-pci/unbind", edu)
    assert "any more" in refused(unbinding, f"pci/{edu}", "ENODEV", "kernel", "show").message
    write(edu, "driver_override", "x" * 4095, "EINVAL", "kernel", "name of a driver")


@pytest.mark.machine("no-iommu")
def test_a_device_in_no_group(vfio_pci: Path, roles: Roles) -> None:
    edu = roles["edu"]
    with steered(edu, "vfio-pci"):
        bind("vfio-pci", edu, "EINVAL", "no-iommu-group", "list-groups", iommu_group="not there")


@pytest.fixture
def e1000() -> Iterator[None]:
    """The driver is there; other tests find it as it was."""
    there = Path(DRIVERS, "e1000").is_dir()
    need_driver("e1000")
    yield
    if not there:
        remove_modules("e1000")


@pytest.mark.usefixtures("vfio_pci", "e1000")
def test_a_group_in_use(roles: Roles) -> None:
    ours, sibling = roles["mf0"], roles["mf1"]
    node = f"/dev/vfio/{group_of(ours)}"
    with without_driver(sibling), lent(ours) as holder:
        error = bind("e1000", sibling, "EBUSY", "group-busy", f"vfioctl holders {sibling}")
        assert node in [each["file"] for each in error.details["evidence"]]
        assert f"process {holder}" in error.message
        probing = Write("/sys/bus/pci/drivers_probe", sibling)
        error = refused(probing, f"pci/{sibling}", "EINVAL", "group-busy", f"vfioctl holders {sibling}")
        assert f"process {holder}" in error.message


def test_virtual_functions(vfio_pci: Path, nvme: str) -> None:
    numvfs = PCI / nvme / "sriov_numvfs"
    autoprobe = PCI / nvme / "sriov_drivers_autoprobe"
    write(nvme, "sriov_numvfs", "x", "EINVAL", "kernel", "sriov_totalvfs")
    write(nvme, "sriov_numvfs", "99", "ERANGE", "kernel", "sriov_totalvfs", sriov_totalvfs="4")
    autoprobe.write_text("0")
    numvfs.write_text("1")
    try:
        write(nvme, "sriov_numvfs", "2", "EBUSY", "virtual-functions", "echo 0", sriov_numvfs="1")
        with steered(nvme, "vfio-pci"):
            assert numvfs.read_text() == "1\n"
            bind("vfio-pci", nvme, "EBUSY", "virtual-functions", "echo 0", sriov_numvfs="1")
            write(nvme, "sriov_numvfs", "0", "ENOENT", "no-driver", "host driver")
    finally:
        numvfs.write_text("0")
        autoprobe.write_text("1")
    with steered(nvme, "vfio-pci"):
        Path(DRIVERS, "vfio-pci/bind").write_text(nvme)
        write(nvme, "sriov_numvfs", "1", "ENOENT", "not-supported", "enable_sriov", enable_sriov="N")
        unbind(nvme)


def test_ids(vfio_pci: Path) -> None:
    def ids(file: str, data: str, name: str, code: str, hint: str) -> None:
        refused(Write(f"{DRIVERS}/vfio-pci/{file}", data), "vfio-pci", name, code, hint)

    ids("new_id", "1af4:fffe", "EINVAL", "kernel", "hexadecimal")
    ids("remove_id", "1af4 fffe", "ENODEV", "kernel", "nothing to do")
    Path(DRIVERS, "vfio-pci/new_id").write_text("1af4 fffe")
    try:
        ids("new_id", "1af4 fffe", "EEXIST", "kernel", "nothing to do")
    finally:
        Path(DRIVERS, "vfio-pci/remove_id").write_text("1af4 fffe")
    refused(
        Write(f"{DRIVERS}/no-such/new_id", "1af4 fffe"), "no-such", "ENOENT", "no-driver", "modprobe no-such"
    )


def test_resets(roles: Roles) -> None:
    card = roles["nic_b"]
    write(card, "reset", "0", "EINVAL", "kernel", "echo 1")
    write(roles["edu"], "reset", "1", "ENOENT", "no-reset", "slot or bus")
    methods = PCI / card / "reset_method"
    before = methods.read_text().strip()
    write(card, "reset_method", "no-such", "EINVAL", "no-reset", "default", reset_method=before)
    methods.write_text("\n")
    try:
        write(card, "reset", "1", "ENOTTY", "no-reset", "default")
    finally:
        methods.write_text("default")


def test_who_may_not(vfio_pci: Path, roles: Roles) -> None:
    edu = roles["edu"]
    node = SetAccess("/dev/vfio/vfio", Access(NOBODY, NOBODY, 0o666))
    owner = "owner 0:0, mode 0200"
    with as_nobody():
        bind("vfio-pci", edu, "EACCES", "permission", "as root", bind=owner)
        refused(node, node.path, "EPERM", "permission", "CAP_CHOWN", vfio="owner 0:0, mode 0666")
    gone = SetAccess("/dev/vfio/99999", Access(0, 0, 0o600))
    refused(gone, gone.path, "ENOENT", "not-found", "list-groups")


def test_modules() -> None:
    def load(name: str) -> VfioctlError:
        with pytest.raises(VfioctlError) as caught:
            load_modules(Machine(), (name,), (), lambda text: None)
        return caught.value

    missing = load("vfio_no_such")
    assert (missing.errno_name, missing.code, missing.subject) == ("ENOENT", "no-module", "vfio_no_such")
    assert "boot it" in (missing.hint or "")
