"""The host's drivers get their devices back and work; identical twins; holders; things that vanish."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.kernel.guest.conftest import Vfioctl
from tests.kernel.guest.sysfs import (
    PCI,
    driver_of,
    group_of,
    modprobe,
    override_of,
    probe,
    remove_modules,
    unbind,
)
from tests.kernel.testbed.qmp import Qmp
from vfioctl.host import vfio
from vfioctl.uapi import vfio as uapi

NET = Path("/sys/class/net")
HWDB = [path for path in ("/etc/udev", "/lib/udev", "/usr/lib/udev") if os.path.exists(f"{path}/hwdb.bin")]


def wait_for(path: Path, seconds: float = 60.0) -> Path:
    until = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < until, f"{path} has not appeared"
        time.sleep(0.05)
    return path


def interface_of(address: str) -> str:
    wait_for(PCI / address / "net")
    return os.listdir(PCI / address / "net")[0]


@pytest.fixture
def twins(vfioctl: Vfioctl, roles: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Two identical network cards, both on e1000e."""
    modprobe("e1000e")
    both = roles["nic_a"], roles["nic_b"]
    for address in both:
        unbind(address)
        (PCI / address / "driver_override").write_text("\n")
        probe(address)
        assert driver_of(address) == "e1000e"
    yield both
    for address in both:
        assert vfioctl("unbind", address).status == 0


def test_a_network_card_goes_by_its_name_and_comes_back_working(
    vfioctl: Vfioctl, twins: tuple[str, str]
) -> None:
    address, twin = twins
    name = interface_of(address)
    mac = (NET / name / "address").read_text()
    result = vfioctl("bind", name, "-J")
    assert result.status == 0, result.stderr
    assert result.json["devices"][0]["address"] == address
    assert result.json["devices"][0]["driver_before"] == "e1000e"
    assert driver_of(address) == "vfio-pci"
    assert not (NET / name).exists()
    assert driver_of(twin) == "e1000e"
    back = vfioctl("unbind", address, "-J")
    assert back.status == 0, back.stderr
    assert back.json["devices"][0]["driver"] == "e1000e"
    assert (driver_of(address), override_of(address)) == ("e1000e", None)
    name = interface_of(address)
    assert (NET / name / "address").read_text() == mac
    subprocess.run(["ip", "link", "set", name, "up"], check=True)
    assert int((NET / name / "flags").read_text(), 16) & 1
    subprocess.run(["ip", "link", "set", name, "down"], check=True)


def test_an_nvme_disk_comes_back_readable(vfioctl: Vfioctl, roles: Mapping[str, str]) -> None:
    modprobe("nvme")
    address = roles["nvme"]
    probe(address)
    disk = wait_for(Path("/dev/nvme0n1"))
    result = vfioctl("bind", "nvme0n1", "-J")
    assert result.status == 0, result.stderr
    assert result.json["devices"][0]["address"] == address
    assert not disk.exists()
    assert vfioctl("unbind", address).status == 0
    assert driver_of(address) == "nvme"
    wait_for(disk)
    with disk.open("rb", buffering=0) as file:
        assert file.read(4096) == bytes(4096)
    unbind(address)


def test_the_host_module_is_loaded_again(vfioctl: Vfioctl, twins: tuple[str, str]) -> None:
    address, twin = twins
    assert vfioctl("bind", address, twin).status == 0
    remove_modules("e1000e")
    result = vfioctl("unbind", address, twin, "-J")
    assert result.status == 0, result.stderr
    assert {device["driver"] for device in result.json["devices"]} == {"e1000e"}


def test_new_id_names_the_twin_and_takes_only_what_was_allowed(
    vfioctl: Vfioctl, twins: tuple[str, str]
) -> None:
    address, twin = twins
    refused = vfioctl("bind", address, "--method", "new-id", "-J")
    assert refused.status == 5
    assert refused.json_error["code"] == "new-id-match"
    assert twin in refused.json_error["message"]
    assert "--allow new-id-match" in refused.json_error["hint"]
    assert (driver_of(address), driver_of(twin)) == ("e1000e", "e1000e")
    done = vfioctl("bind", address, "--method", "new-id", "--allow", "new-id-match", "-J")
    assert done.status == 0, done.stderr
    assert (driver_of(address), override_of(address)) == ("vfio-pci", None)
    assert driver_of(twin) == "e1000e"
    # The id is gone: the twin, when it is free, goes to its own driver and not to vfio-pci.
    unbind(twin)
    probe(twin)
    assert driver_of(twin) == "e1000e"
    assert vfioctl("unbind", address).status == 0
    assert driver_of(address) == "e1000e"


def test_new_id_survives_an_id_that_is_there_already(vfioctl: Vfioctl, twins: tuple[str, str]) -> None:
    address, _ = twins
    modprobe("vfio-pci")
    driver = Path("/sys/bus/pci/drivers/vfio-pci")
    (driver / "new_id").write_text("8086 10d3")
    try:
        done = vfioctl("bind", address, "--method", "new-id", "--allow", "new-id-match")
        assert done.status == 0, done.stderr
        assert driver_of(address) == "vfio-pci"
        assert vfioctl("unbind", address).status == 0
        assert driver_of(address) == "e1000e"
    finally:
        (driver / "remove_id").write_text("8086 10d3")  # ENODEV here would mean that vfioctl took it away


def test_a_held_device_is_busy_and_its_holder_named(vfioctl: Vfioctl, roles: Mapping[str, str]) -> None:
    address = roles["edu"]
    assert vfioctl("bind", address).status == 0
    group = group_of(address)
    with vfio.opened(vfio.group_path(group)):
        for arguments in (("unbind", address), ("map", group), ("iommu-info", group, "--attach")):
            result = vfioctl(*arguments, "-J")
            assert result.status == 6, result.stderr
            error = result.json_error
            assert error["code"] == "group-busy"
            assert f"process {os.getpid()}" in f"{error['message']} {error['hint']}", (arguments, error)
        assert f"/dev/vfio/{group}" in vfioctl("unbind", address, "-J").json_error["message"]
        nowhere = group_of(roles["vga"])
        live = vfioctl("check-viable", "--live", nowhere, group, "-J")
        assert live.status == 6, live.stderr
        assert [(found["group"], found["live"]) for found in live.json["results"]] == [
            (nowhere, None),
            (group, None),
        ]
        assert "group-busy" in [problem["code"] for problem in live.json["results"][1]["problems"]]
        assert driver_of(address) == "vfio-pci"
    assert vfioctl("unbind", address).status == 0


def test_nothing_hangs_while_the_kernel_waits_for_a_devices_user(
    vfioctl: Vfioctl, roles: Mapping[str, str]
) -> None:
    """Somebody else's unbind of a device in use blocks; on older kernels even reading driver_override would."""
    address = roles["edu"]
    assert vfioctl("bind", address).status == 0
    with contextlib.ExitStack() as held:
        container = held.enter_context(vfio.opened(vfio.container_path()))
        group = held.enter_context(vfio.opened(vfio.group_path(group_of(address))))
        vfio.group_set_container(group, container)
        vfio.set_iommu(container, uapi.VFIO_TYPE1v2_IOMMU)
        device = vfio.group_get_device_fd(group, address)
        try:
            writer = os.fork()
            if writer == 0:
                os.close(device)
                os.closerange(3, 1024)
                unbind(address)
                os._exit(0)
            until = time.monotonic() + 60
            while driver_of(address) is not None:
                assert time.monotonic() < until
                time.sleep(0.05)
            listed = vfioctl("list-devices", address, "-J")
            assert listed.status == 0, listed.stderr
            assert listed.json["devices"][0]["driver"] is None
            checked = vfioctl("check-viable", address, "-J")
            assert checked.json["results"][0]["members"][0]["reason"] == "being-unbound"
            for command in ("bind", "unbind"):
                refused = vfioctl(command, address, "-J")
                assert refused.status == 6, refused.stderr
                assert refused.json_error["code"] == "being-unbound"
                assert f"process {os.getpid()}" in refused.json_error["message"]
            assert os.waitpid(writer, os.WNOHANG) == (0, 0)
        finally:
            os.close(device)
    assert os.waitpid(writer, 0)[1] == 0
    assert vfioctl("unbind", address).status == 0
    assert override_of(address) is None


def test_a_device_that_vanishes_between_look_and_write(
    vfioctl: Vfioctl, roles: Mapping[str, str], qmp: Qmp
) -> None:
    """vfioctl waits for the lock; the device is unplugged; then it gets the lock."""
    port = roles["hotplug_port"]
    qmp.device_add("e1000e", "visitor", "hotplug_port", romfile="")
    bus = (PCI / port / "secondary_bus_number").read_text().strip()
    address = f"0000:{int(bus):02x}:00.0"
    wait_for(PCI / address / "iommu_group")
    modprobe("vfio-pci", "vfio_iommu_type1")
    assert vfioctl("recover").status == 0  # makes /run/vfioctl
    fd = os.open("/run/vfioctl/lock", os.O_RDWR)
    os.lockf(fd, os.F_LOCK, 0)
    running = vfioctl.start("bind", address, "--group", "-J")
    files = Path(f"/proc/{running.pid}/fd")
    until = time.monotonic() + 60
    while "/run/vfioctl/lock" not in map(os.path.realpath, files.iterdir()):
        assert running.alive() and time.monotonic() < until
        time.sleep(0.05)
    (PCI / address / "remove").write_text("1")
    assert not (PCI / address).exists()
    os.close(fd)
    result = running.wait()
    assert result.status == 3, result.stderr
    assert result.json_error["code"] == "no-such-device" and result.stdout == ""
    assert vfioctl("recover", "-J").json["changed"] is False
    qmp.device_del("visitor")
    assert qmp.wait_event("DEVICE_DELETED")["data"]["device"] == "visitor"


def test_without_the_module_nothing_is_changed(vfioctl: Vfioctl, roles: Mapping[str, str]) -> None:
    address = roles["edu"]
    assert driver_of(address) is None
    remove_modules("vfio-pci", "vfio_iommu_type1")
    subprocess.run(["mount", "-t", "tmpfs", "none", "/lib/modules"], check=True)
    try:
        result = vfioctl("bind", address, "-J")
    finally:
        subprocess.run(["umount", "/lib/modules"], check=True)
    assert result.status == 7, result.stderr
    assert result.json_error["code"] == "no-module"
    assert (driver_of(address), override_of(address)) == (None, None)


def test_a_mounted_disk_is_not_taken(vfioctl: Vfioctl, roles: Mapping[str, str]) -> None:
    address = roles["disk"]
    for arguments in (
        ("bind", address),
        ("bind", address, "--group"),
        ("bind", address, "--dry-run"),
        ("bind", address, "--allow", "root-disk", "--allow", "swap"),
        ("bind", "vda"),
        ("unbind", address, "--leave-unbound"),
        ("unbind", address, "--to", "pci-stub"),
    ):
        result = vfioctl(*arguments, "-J")
        assert result.status == 5, (arguments, result.stderr)
        error = result.json_error
        assert error["code"] == "mounted-disk"
        assert "vda is mounted on /mnt/disk" in error["message"]
        assert "--allow mounted-disk" in error["hint"]
        if "--dry-run" in arguments:
            (impact,) = result.json["impacts"]
            assert [use["guard"] for use in impact["impacts"]] == ["mounted-disk"]
        else:
            assert result.stdout == ""
        assert driver_of(address) == "virtio-pci"
    assert os.path.ismount("/mnt/disk")


def test_the_default_route_is_not_taken_unless_allowed(vfioctl: Vfioctl, twins: tuple[str, str]) -> None:
    address, _ = twins
    name = interface_of(address)
    subprocess.run(["ip", "address", "add", "192.0.2.1/24", "dev", name], check=True)
    subprocess.run(["ip", "link", "set", name, "up"], check=True)
    subprocess.run(["ip", "route", "add", "default", "via", "192.0.2.2"], check=True)
    refused = vfioctl("bind", address, "-J")
    assert refused.status == 5, refused.stderr
    assert refused.json_error["code"] == "default-route"
    assert name in refused.json_error["message"]
    assert driver_of(address) == "e1000e"
    allowed = vfioctl("bind", address, "--allow", "default-route", "--allow", "address")
    assert allowed.status == 0, allowed.stderr
    assert driver_of(address) == "vfio-pci"


def test_the_default_route_through_a_vlan(vfioctl: Vfioctl, twins: tuple[str, str]) -> None:
    address, _ = twins
    name = interface_of(address)
    vlan = ["ip", "link", "add", "link", name, "name", "v0", "type", "vlan", "id", "7"]
    subprocess.run(vlan, check=True)
    subprocess.run(["ip", "address", "add", "192.0.2.1/24", "dev", "v0"], check=True)
    subprocess.run(["ip", "link", "set", name, "up"], check=True)
    subprocess.run(["ip", "link", "set", "v0", "up"], check=True)
    subprocess.run(["ip", "route", "add", "default", "via", "192.0.2.2"], check=True)
    try:
        refused = vfioctl("bind", address, "-J")
        assert refused.status == 5, refused.stderr
        assert refused.json_error["code"] == "default-route"
        assert "v0" in refused.json_error["message"]
        assert driver_of(address) == "e1000e"
    finally:
        subprocess.run(["ip", "link", "delete", "v0"], check=True)
        subprocess.run(["ip", "link", "set", name, "down"], check=True)


def test_a_device_with_virtual_functions_is_not_taken(vfioctl: Vfioctl, roles: Mapping[str, str]) -> None:
    modprobe("nvme")
    address = roles["nvme"]
    probe(address)
    wait_for(Path("/dev/nvme0n1"))
    functions = PCI / address / "sriov_numvfs"
    functions.write_text("2")
    try:
        virtual = sorted(os.path.basename(os.readlink(link)) for link in (PCI / address).glob("virtfn*"))
        assert len(virtual) == 2
        refused = vfioctl("bind", address, "-J")
        assert refused.status == 5, refused.stderr
        assert refused.json_error["code"] == "virtual-functions"
        assert (driver_of(address), override_of(address)) == ("nvme", None)
        assert functions.read_text() == "2\n"
        assert all((PCI / function).is_dir() for function in virtual)
    finally:
        functions.write_text("0")
    unbind(address)


def test_bind_loads_what_it_needs(vfioctl: Vfioctl, roles: Mapping[str, str]) -> None:
    remove_modules("vfio-pci", "vfio_iommu_type1")
    address = roles["edu"]
    assert not Path("/sys/module/vfio_pci").exists() and not Path("/sys/module/vfio_iommu_type1").exists()
    result = vfioctl("bind", address)
    assert result.status == 0, result.stderr
    assert Path("/sys/module/vfio_pci").exists() and Path("/sys/module/vfio_iommu_type1").exists()
    assert driver_of(address) == "vfio-pci"
    for column, value in (("driver", "vfio-pci"), ("node.path", f"/dev/vfio/{group_of(address)}")):
        assert vfioctl("show", address, "-P", column, "--value").stdout == f"{value}\n"
    assert vfioctl("show", address, "-P", "group", "--value").stdout == f"{group_of(address)}\n"
    assert vfioctl("unbind", address).status == 0


@pytest.mark.skipif(not HWDB, reason="no hardware database: install udev")
def test_names_of_vendors(vfioctl: Vfioctl, roles: Mapping[str, str]) -> None:
    result = vfioctl("list-devices", "--names", roles["nic_a"])
    assert result.status == 0, result.stderr
    assert "Intel" in result.stdout


def test_a_full_run_changes_nothing(vfioctl: Vfioctl, twins: tuple[str, str]) -> None:
    """The journal holds the record of homes as well, and the last page takes only a part of it."""
    address, _ = twins
    assert vfioctl("bind", address).status == 0  # makes /run/vfioctl
    assert vfioctl("unbind", address).status == 0
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k,mode=0700", "none", "/run/vfioctl"], check=True)
    try:
        home = {"identity": None, "driver": "e1000e", "driver_override": None}
        homes = Path("/run/vfioctl/homes.json")
        homes.write_text(
            json.dumps({"version": 1, "homes": {f"pci/ffff:{n:02x}:00.0": home for n in range(80)}})
        )
        before = homes.read_bytes()
        assert 4096 < len(before) < 8192
        result = vfioctl("bind", address, "-J")
        assert (result.status, result.json_error["errno"]) == (7, "ENOSPC"), result.stderr
        assert (driver_of(address), override_of(address)) == ("e1000e", None)
        assert homes.read_bytes() == before
        assert sorted(entry.name for entry in Path("/run/vfioctl").iterdir()) == ["homes.json", "lock"]
    finally:
        subprocess.run(["umount", "/run/vfioctl"], check=True)
