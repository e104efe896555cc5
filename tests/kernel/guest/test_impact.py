"""What a real kernel says of disks, interfaces, displays and keyboards in use: impact shows it, bind refuses."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
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
    need_driver,
    override_of,
    probe,
    unbind,
)
from tests.kernel.testbed.command import Result
from tests.kernel.testbed.qmp import Qmp

pytestmark = pytest.mark.one_kernel("6.1")

BLOCK = Path("/sys/class/block")
CLIENT = "203.0.113.9"


def run(*command: str) -> None:
    subprocess.run(command, check=True)


def wait_for(path: Path, seconds: float = 60.0) -> Path:
    until = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < until, f"{path} has not appeared"
        time.sleep(0.05)
    return path


def found(result: Result) -> list[tuple[str, str, str]]:
    """(guard, level, evidence) of all findings."""
    results = result.json["results"]
    return [(use["guard"], use["level"], use["evidence"]) for r in results for use in r["impacts"]]


def guards(result: Result) -> list[str]:
    return [guard for guard, _, _ in found(result)]


def refused(vfioctl: Vfioctl, address: str, *expected: str) -> str:
    """That impact shows these guards and bind refuses because of them, with nothing changed; the message."""
    before = (driver_of(address), override_of(address))
    shown = vfioctl("impact", address, "-J")
    assert shown.status == 1, shown.stderr
    assert [guard for guard, level, _ in found(shown) if level == "refuse"] == list(expected)
    result = vfioctl("bind", address, "-J")
    error = result.json_error
    assert (result.status, result.stdout, error["code"]) == (5, "", expected[0]), result.stderr
    assert [entry["guard"] for entry in error["guards"]] == list(expected)
    assert (driver_of(address), override_of(address)) == before
    message: str = error["message"]
    return message


# --- disks --------------------------------------------------------------------------------------


def test_the_controller_of_a_mounted_disk(vfioctl: Vfioctl, roles: Mapping[str, str]) -> None:
    address = roles["disk"]
    assert "vda is mounted on /mnt/disk" in refused(vfioctl, address, "mounted-disk")
    assert vfioctl("impact", "-q", group_of(address)).status == 1
    unprivileged = vfioctl("impact", address, "-J", user=Vfioctl.unprivileged)
    assert (unprivileged.status, guards(unprivileged)[0]) == (1, "mounted-disk")


@pytest.fixture
def nvme(roles: Mapping[str, str]) -> Iterator[str]:
    """The NVMe disk nvme0n1, which reads as zeroes and forgets what is written."""
    address = roles["nvme"]
    need_driver("nvme")
    if driver_of(address) is None:
        probe(address)
    wait_for(Path("/dev/nvme0n1"))
    yield address
    unbind(address)


@pytest.fixture
def loop() -> Iterator[str]:
    """A loop device over a file of 4 MiB in memory."""
    modprobe("loop")
    backing = Path("/run/impact.img")
    backing.write_bytes(bytes(4 << 20))
    name = subprocess.run(
        ["losetup", "--find", "--show", backing], check=True, capture_output=True, text=True
    ).stdout.strip()
    yield name
    run("losetup", "-d", name)
    backing.unlink()


@contextlib.contextmanager
def mapped(name: str, table: str) -> Iterator[str]:
    """A device-mapper device. No udev runs here, so dmsetup makes the node: no link to ../dm-0, but as good."""
    modprobe("dm-mod")
    environment = {**os.environ, "DM_DISABLE_UDEV": "1"}
    subprocess.run(["dmsetup", "create", name], input=table, text=True, check=True, env=environment)
    try:
        yield f"/dev/mapper/{name}"
    finally:
        subprocess.run(["dmsetup", "remove", "--retry", name], check=True, env=environment)


def test_a_disk_that_nothing_uses(vfioctl: Vfioctl, nvme: str) -> None:
    shown = vfioctl("impact", nvme, "-J")
    assert (shown.status, found(shown)) == (0, [])


def test_swap_on_a_mapped_device(vfioctl: Vfioctl, nvme: str, loop: str) -> None:
    """Its first page, with the header, is on the loop, and the rest on the disk."""
    table = f"0 8 linear {loop} 0\n8 32760 linear /dev/nvme0n1 8\n"
    with mapped("swapvol", table) as volume:
        message = refused(vfioctl, nvme, "disk-in-use")
        assert "(swapvol) is active on nvme0n1" in message
        run("mkswap", volume)
        run("swapon", volume)
        try:
            assert "(swapvol) is swap space, built on nvme0n1" in refused(vfioctl, nvme, "swap")
        finally:
            run("swapoff", volume)


def test_a_file_system_on_mapped_devices(vfioctl: Vfioctl, nvme: str, loop: str) -> None:
    """One on the other; the file system is on the loop's part."""
    run("mke2fs", "-q", loop)
    with contextlib.ExitStack() as stack:
        lower = stack.enter_context(
            mapped("lower", f"0 8192 linear {loop} 0\n8192 8192 linear /dev/nvme0n1 0\n")
        )
        upper = stack.enter_context(mapped("upper", f"0 16384 linear {lower} 0\n"))
        assert "(upper) is active on nvme0n1" in refused(vfioctl, nvme, "disk-in-use")
        where = Path("/mnt/a b")
        where.mkdir(exist_ok=True)
        run("mount", upper, str(where))
        try:
            message = refused(vfioctl, nvme, "mounted-disk")
            assert "(upper) is mounted on /mnt/a b, built on nvme0n1" in message
        finally:
            run("umount", str(where))
    assert vfioctl("impact", "-q", nvme).status == 0


def test_a_member_of_an_array(vfioctl: Vfioctl, nvme: str) -> None:
    """Without mdadm, through sysfs (Linux, Documentation/admin-guide/md.rst)."""
    modprobe("md-mod", "raid1")
    Path("/sys/module/md_mod/parameters/new_array").write_text("md7")
    array = wait_for(Path("/sys/block/md7/md"))
    try:
        (array / "metadata_version").write_text("none")
        (array / "level").write_text("raid1")
        (array / "raid_disks").write_text("1")
        (array / "new_dev").write_text((BLOCK / "nvme0n1/dev").read_text().strip())
        assert "md7 is active on nvme0n1" in refused(vfioctl, nvme, "disk-in-use")
    finally:
        (array / "array_state").write_text("clear")
    assert vfioctl("impact", "-q", nvme).status == 0


def test_a_loop_on_the_disk(vfioctl: Vfioctl, nvme: str) -> None:
    modprobe("loop")
    name = subprocess.run(
        ["losetup", "--find", "--show", "/dev/nvme0n1"], check=True, capture_output=True, text=True
    ).stdout.strip()
    try:
        assert f"{name[5:]} is active on nvme0n1" in refused(vfioctl, nvme, "disk-in-use")
    finally:
        run("losetup", "-d", name)


def test_a_disk_that_somebody_has_claimed(vfioctl: Vfioctl, nvme: str) -> None:
    """Nothing in sysfs tells; only root may ask the disk itself, and see whose it is."""
    claim = os.open("/dev/nvme0n1", os.O_RDWR | os.O_EXCL)
    try:
        assert "something has claimed nvme0n1" in refused(vfioctl, nvme, "disk-in-use", "held")
        assert vfioctl("impact", "-q", nvme, user=Vfioctl.unprivileged).status == 0
    finally:
        os.close(claim)
    assert vfioctl("impact", "-q", nvme).status == 0


def test_data_is_no_use(vfioctl: Vfioctl, nvme: str) -> None:
    run("addpart", "/dev/nvme0n1", "1", "2048", "4096")
    wait_for(Path("/sys/class/block/nvme0n1p1"))
    shown = vfioctl("impact", nvme, "-J")
    assert (shown.status, found(shown)) == (0, [("has-data", "warn", "nvme0n1 has partitions: nvme0n1p1")])
    bound = vfioctl("bind", nvme)
    assert bound.status == 0, bound.stderr
    assert driver_of(nvme) == "vfio-pci"
    assert vfioctl("unbind", nvme).status == 0
    assert driver_of(nvme) == "nvme"


# --- virtual functions --------------------------------------------------------------------------


def test_virtual_functions(vfioctl: Vfioctl, nvme: str) -> None:
    numvfs = PCI / nvme / "sriov_numvfs"
    numvfs.write_text("2")
    try:
        functions = [os.path.basename(os.readlink(PCI / nvme / f"virtfn{n}")) for n in range(2)]
        shown = vfioctl("impact", nvme, "-J")
        # A worker of the kernel that probes them may be too busy to be looked into.
        assert (shown.status, [name for name in guards(shown) if name != "unseen"]) == (
            1,
            ["virtual-functions"],
        )
        evidence = found(shown)[0][2]
        for function in functions:
            assert f"{function} ({driver_of(function) or 'no driver'})" in evidence
        assert vfioctl("bind", functions[1]).status == 0
        shown = vfioctl("impact", nvme, "-J")
        assert guards(shown)[:2] == ["virtual-functions-assigned", "virtual-functions"]
        assert f"{functions[1]} (vfio-pci)" in found(shown)[0][2]
        assert shown.json["results"][0]["impacts"][0]["allowable"] is False
        result = vfioctl("bind", nvme, "--allow", "virtual-functions", "-J")
        assert result.status == 5, result.stderr
        assert result.json_error["code"].startswith("virtual-functions")
        assert (driver_of(nvme), numvfs.read_text()) == ("nvme", "2\n")
        assert vfioctl("unbind", functions[1], "--leave-unbound").status == 0
    finally:
        numvfs.write_text("0")


# --- network ------------------------------------------------------------------------------------


@pytest.fixture
def nic(vfioctl: Vfioctl, roles: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """(address, interface) of a card on e1000e that is up and has no address."""
    need_driver("e1000e")
    address = roles["nic_a"]
    if driver_of(address) != "e1000e":
        unbind(address)
        probe(address)
    (name,) = os.listdir(wait_for(PCI / address / "net"))
    Path(f"/proc/sys/net/ipv6/conf/{name}/accept_dad").write_text("0")
    run("ip", "address", "flush", "dev", name)
    run("ip", "link", "set", name, "up")
    yield address, name
    assert vfioctl("unbind", address).status == 0
    (name,) = os.listdir(wait_for(PCI / address / "net"))
    run("ip", "link", "set", name, "down")
    run("ip", "address", "flush", "dev", name)


def test_an_address_and_what_is_allowed(vfioctl: Vfioctl, nic: tuple[str, str]) -> None:
    address, name = nic
    shown = vfioctl("impact", name, "-J")
    assert (shown.status, found(shown)) == (0, [])  # its link-local address does not count
    run("ip", "address", "add", "192.0.2.1/24", "dev", name)
    message = refused(vfioctl, address, "address")
    assert f"{name} is up with the address 192.0.2.1" in message
    run("ip", "link", "set", name, "down")
    assert vfioctl("impact", "-q", name).status == 0
    run("ip", "link", "set", name, "up")
    assert vfioctl("bind", name, "--allow", "default-route", "--allow", "swap").status == 5
    assert vfioctl("bind", name, "--allow", "address").status == 0
    assert driver_of(address) == "vfio-pci"


@pytest.mark.parametrize("text", ["192.0.2.1/32", "2001:db8::1/64"])
def test_addresses_of_other_kinds(vfioctl: Vfioctl, nic: tuple[str, str], text: str) -> None:
    """One that no route shows, and one of IPv6."""
    address, name = nic
    run("ip", "address", "add", text, "dev", name)
    evidence = f"{name} is up with the address {text.partition('/')[0]}"
    assert evidence in refused(vfioctl, address, "address")


def test_default_routes_and_the_callers_session(vfioctl: Vfioctl, nic: tuple[str, str]) -> None:
    address, name = nic
    run("ip", "address", "add", "192.0.2.1/24", "dev", name)
    run("ip", "route", "add", "default", "via", "192.0.2.2")
    refused(vfioctl, address, "default-route", "address")
    session = {"SSH_CONNECTION": f"{CLIENT} 4711 192.0.2.1 22"}
    result = vfioctl("bind", address, "--allow", "default-route", "--allow", "address", "-J", env=session)
    assert (result.status, result.json_error["code"]) == (5, "ssh-session")
    assert CLIENT in result.json_error["message"]
    assert result.json_error["hint"].endswith(": --allow ssh-session")
    assert driver_of(address) == "e1000e"
    # sudo drops the variable, and the shell that called it has it.
    command = f"env -u SSH_CONNECTION {sys.executable} -m vfioctl impact {address} -n -o guard; true"
    done = subprocess.run(
        ["sh", "-c", command],
        env={**os.environ, **session},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["ssh-session", "default-route", "address"], done.stderr


def test_members_of_a_bridge_and_of_a_bond(vfioctl: Vfioctl, nic: tuple[str, str]) -> None:
    address, name = nic
    for kind in ("bridge", "bond"):
        master = f"{kind}7"
        run("ip", "link", "add", master, "type", kind)
        try:
            run("ip", "link", "set", name, "down")
            run("ip", "link", "set", name, "master", master)
            run("ip", "link", "set", master, "up")
            message = refused(vfioctl, address, "network-master")
            assert f"{name} belongs to {master} ({kind})" in message
            run("ip", "address", "add", "192.0.2.1/24", "dev", master)
            message = refused(vfioctl, address, "address", "network-master")
            assert f"{master} is up with the address 192.0.2.1" in message
        finally:
            run("ip", "link", "delete", master)
        assert vfioctl("impact", "-q", address).status == 0


def test_an_interface_in_another_namespace(vfioctl: Vfioctl, nic: tuple[str, str]) -> None:
    address, name = nic
    run("ip", "netns", "add", "other")
    try:
        run("ip", "link", "set", name, "netns", "other")
        refused(vfioctl, address, "network-namespace")
    finally:
        run("ip", "netns", "delete", "other")
        wait_for(Path("/sys/class/net") / name)


# --- seats --------------------------------------------------------------------------------------


def test_the_firmwares_display_and_the_console(vfioctl: Vfioctl, roles: Mapping[str, str]) -> None:
    address = roles["vga"]
    assert (PCI / address / "boot_vga").read_text() == "1\n"
    assert driver_of(address) is None
    refused(vfioctl, address, "boot-vga")
    modprobe("bochs")
    if driver_of(address) is None:  # it was loaded before
        probe(address)
    wait_for(Path("/sys/class/graphics/fb0"))
    consoles = Path("/sys/class/vtconsole")
    (console,) = [path for path in consoles.iterdir() if "frame buffer" in (path / "name").read_text()]
    (console / "bind").write_text("1")
    assert (console / "bind").read_text() == "1\n"
    try:
        message = refused(vfioctl, address, "boot-vga", "console")
        assert "the text console is on its frame buffer fb0" in message
    finally:
        (console / "bind").write_text("0")
    assert guards(vfioctl("impact", address, "-J")) == ["boot-vga"]
    unbind(address)


def test_the_last_keyboard(vfioctl: Vfioctl, roles: Mapping[str, str], qmp: Qmp) -> None:
    address = roles["xhci"]
    need_driver("xhci_hcd")
    modprobe("xhci-pci", "usbhid", "hid-generic")
    if driver_of(address) is None:
        probe(address)
    qmp.device_add("usb-kbd", "keyboard", "xhci.0")
    inputs = Path("/proc/bus/input/devices")
    until = time.monotonic() + 60
    while "USB Keyboard" not in inputs.read_text():
        assert time.monotonic() < until, inputs.read_text()
        time.sleep(0.1)
    atkbd = Path("/sys/bus/serio/drivers/atkbd")
    ports = [path.resolve() for path in atkbd.glob("serio*")]
    assert ports
    try:
        assert vfioctl("impact", "-q", address).status == 0
        for port in ports:
            (port / "drvctl").write_text("none")
        until = time.monotonic() + 60
        while "i8042/serio0/input" in inputs.read_text():
            assert time.monotonic() < until
            time.sleep(0.1)
        assert "QEMU USB Keyboard" in refused(vfioctl, address, "last-keyboard")
    finally:
        for port in ports:
            (port / "drvctl").write_text("atkbd")
        qmp.device_del("keyboard")
        assert qmp.wait_event("DEVICE_DELETED")["data"]["device"] == "keyboard"
    unbind(address)


# --- claims -------------------------------------------------------------------------------------


def test_driverctl(vfioctl: Vfioctl, nic: tuple[str, str]) -> None:
    address, _ = nic
    file = Path(f"/etc/driverctl.d/pci-{address}")
    file.parent.mkdir(exist_ok=True)
    try:
        file.write_text("e1000e\n")
        assert str(file) in refused(vfioctl, address, "driverctl")
        file.write_text("vfio-pci\n")
        assert vfioctl("impact", "-q", address).status == 0
        assert vfioctl("bind", address).status == 0
        result = vfioctl("unbind", address, "-J")
        assert (result.status, result.json_error["code"]) == (5, "driverctl")
        assert driver_of(address) == "vfio-pci"
        assert vfioctl("unbind", address, "--allow", "driverctl").status == 0
        assert driver_of(address) == "e1000e"
    finally:
        file.unlink()


def test_a_running_libvirt_domain(vfioctl: Vfioctl, roles: Mapping[str, str]) -> None:
    address = roles["edu"]
    domain, bus, rest = address.split(":")
    slot, function = rest.split(".")
    numbers = f"domain='0x{domain}' bus='0x{bus}' slot='0x{slot}' function='0x{function}'"
    file = Path("/run/libvirt/qemu/vm.xml")
    file.parent.mkdir(parents=True, mode=0o700)
    try:
        file.write_text(
            f"<domain><hostdev type='pci'><source><address {numbers}/></source></hostdev></domain>"
        )
        assert "the running libvirt domain vm has it" in refused(vfioctl, address, "libvirt")
        file.parent.chmod(0o700)
        unprivileged = vfioctl("impact", address, "-J", user=Vfioctl.unprivileged)
        assert (unprivileged.status, set(guards(unprivileged))) == (0, {"unseen"})
        assert any("/run/libvirt/qemu" in evidence for _, _, evidence in found(unprivileged))
    finally:
        file.unlink()
        file.parent.rmdir()
