"""vfioctl region on real devices: registers, configuration space, I/O ports, VGA, ROM, 8 to 64 bits."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.kernel.guest.conftest import Vfioctl
from tests.kernel.guest.sysfs import PCI, modprobe
from tests.kernel.testbed.qmp import Qmp
from vfioctl.policy import pci_config

ROLES = ("edu", "nic_a", "nvme", "vga")
#: What QEMU looks for beside itself.
ROM = Path("/usr/share/seabios/vgabios-stdvga.bin")


@pytest.fixture(scope="module")
def held(vfioctl: Vfioctl, roles: Mapping[str, str]) -> Iterator[Mapping[str, str]]:
    """The devices, all in one open container."""
    modprobe("vfio-pci")
    mine = [roles[role] for role in ROLES]
    assert vfioctl("bind", *mine, "--allow", "boot-vga").status == 0
    assert vfioctl("container", "open", "regions", *mine).status == 0
    yield roles
    assert vfioctl("container", "close", "regions").status == 0
    assert vfioctl("unbind", *mine).status == 0


def value(vfioctl: Vfioctl, *arguments: object) -> int:
    found = vfioctl("region", "read", *arguments)
    assert found.status == 0, found.stderr
    return int(found.stdout, 16)


def sizes(address: str) -> dict[str, int]:
    """The sizes of a device's BARs as sysfs has them; the ROM of a display may be a shadow in memory there."""
    names = [f"bar{i}" for i in range(6)]
    rows = [line.split() for line in (PCI / address / "resource").read_text().splitlines()]
    return {
        name: int(end, 16) - int(start, 16) + 1
        for name, (start, end, _) in zip(names, rows, strict=False)
        if int(end, 16)
    }


@pytest.mark.parametrize("role", ROLES)
def test_the_regions_are_those_of_the_kernel(vfioctl: Vfioctl, held: Mapping[str, str], role: str) -> None:
    regions = {r["name"]: r for r in vfioctl("region", "list", held[role], "-J").json["regions"]}
    for name, size in sizes(held[role]).items():
        assert regions[name]["size"] == size
    config = (PCI / held[role] / "config").read_bytes()
    assert regions["config"]["size"] == (4096 if len(config) > 256 else 256)
    assert ("vga" in regions) == (role == "vga")
    spaces = {name: region["space"] for name, region in regions.items() if name.startswith("bar")}
    assert set(spaces.values()) <= {"memory", "io"}
    assert role != "nic_a" or (spaces["bar2"] == "io" and "mmap" not in regions["bar2"]["flags"])


def test_registers_of_memory(vfioctl: Vfioctl, held: Mapping[str, str]) -> None:
    edu = held["edu"]
    assert value(vfioctl, edu, "bar0", "0") == 0x010000ED
    assert vfioctl("region", "read", edu, "bar0", "0", "-J").json["access"] == "mmap"
    assert vfioctl("region", "write", edu, "bar0", "4", "0x12345678").status == 0
    assert value(vfioctl, edu, "bar0", "4") == 0xEDCBA987, "it stays from command to command"
    found = vfioctl("region", "write", edu, "bar0", "0x80=0x1122334455667788", "--width", "64", "--check")
    assert found.status == 0, found.stderr
    low, high = vfioctl("region", "read", edu, "bar0", "0x80", "--count", "2").stdout.split()
    # The device has a register of 64 bits there, which is read as a whole, or by its first half.
    assert int(low, 16) == 0x55667788
    # It answers accesses of 4 and 8 bytes: one byte is no less than that.
    assert value(vfioctl, edu, "bar0", "0", "--width", "8") == 0
    assert high


def test_registers_of_64_bits(vfioctl: Vfioctl, held: Mapping[str, str]) -> None:
    whole = value(vfioctl, held["nvme"], "bar0", "0", "--width", "64")
    halves = [
        int(half, 16)
        for half in vfioctl("region", "read", held["nvme"], "bar0", "0", "--count", "2").stdout.split()
    ]
    assert whole == halves[1] << 32 | halves[0] != 0


def test_io_ports(vfioctl: Vfioctl, held: Mapping[str, str]) -> None:
    """IOADDR and IODATA of the card reach its registers: STATUS, which is at 8 of BAR 0 too."""
    nic = held["nic_a"]
    assert vfioctl("region", "write", nic, "bar2", "0", "8", "--check").status == 0
    found = vfioctl("region", "read", nic, "bar2", "4", "-J").json
    assert found["access"] == "pread"
    assert found["values"] == [value(vfioctl, nic, "bar0", "8")] != [0]


def test_vga(vfioctl: Vfioctl, held: Mapping[str, str]) -> None:
    """The index of the sequencer, a byte wide, and legacy memory."""
    vga = held["vga"]
    assert vfioctl("region", "write", vga, "config", "COMMAND", "3", "--mask", "3").status == 0
    found = vfioctl("region", "write", vga, "vga", "0x3c4", "2", "--width", "8", "--check")
    assert found.status == 0, found.stderr
    assert len(vfioctl("region", "read", vga, "vga", "0xa0000", "--count", "4").stdout.split()) == 4
    assert vfioctl("region", "write", vga, "bar0", "0x1000", "0xdeadbeef", "--check").status == 0


def test_config(vfioctl: Vfioctl, held: Mapping[str, str]) -> None:
    """Names and chains; the host sees the same space, but for what VFIO keeps to itself."""
    nic = held["nic_a"]
    document = vfioctl("region", "dump", nic, "config", "--decode", "-J").json
    there = pci_config.decode((PCI / nic / "config").read_bytes())
    assert {c["name"]: c["offset"] for c in document["capabilities"]} == {
        c.name: c.offset for c in there.capabilities
    }
    registers = {r["name"]: r["value"] for r in document["registers"]}
    for name in ("VENDOR_ID", "DEVICE_ID", "CLASS_DEVICE", "BASE_ADDRESS_0", "SUBSYSTEM_VENDOR_ID"):
        assert registers[name] == next(found for register, found in there.registers if register.name == name)
    assert document["problems"] == []
    first = vfioctl("region", "dump", nic, "config").stdout.splitlines()[0]
    assert re.fullmatch(r"000:( [0-9a-f]{2}){16}", first) and first.startswith("000: 86 80 d3 10")
    assert value(vfioctl, nic, "config", "CAP_EXP+0xa", "--width", "16") == value(
        vfioctl, nic, "config", "0xea", "--width", "16"
    )


def test_memory_that_is_not_decoded(vfioctl: Vfioctl, held: Mapping[str, str]) -> None:
    """Touching it mapped would be a SIGBUS."""
    edu = held["edu"]
    found = vfioctl("region", "write", edu, "config", "COMMAND", "0", "--mask", "2", "--check", "-J")
    assert (found.status, found.json["writes"][0]["after"] & 2) == (0, 0)
    for arguments in (("read", edu, "bar0", "0"), ("write", edu, "bar0", "4", "1")):
        refused = vfioctl("region", *arguments, "-J")
        assert (refused.status, refused.json_error["code"]) == (7, "decoding-off")
        cure = refused.json_error["hint"].removeprefix("vfioctl ").split()
    assert vfioctl(*cure).status == 0
    assert value(vfioctl, edu, "bar0", "0") == 0x010000ED


def test_a_whole_bar(vfioctl: Vfioctl, held: Mapping[str, str], tmp_path: Path) -> None:
    data = bytes(range(256)) * 4096
    (tmp_path / "picture").write_bytes(data)
    vga = held["vga"]
    done = vfioctl("region", "write", vga, "bar0", "0x100000", "--input", tmp_path / "picture")
    assert done.status == 0, done.stderr
    assert vfioctl("region", "dump", vga, "bar0", "--output", tmp_path / "all").status == 0
    assert (tmp_path / "all").read_bytes()[0x100000:0x200000] == data


def test_a_rom(vfioctl: Vfioctl, roles: Mapping[str, str], qmp: Qmp, tmp_path: Path) -> None:
    below = PCI / roles["hotplug_port"]
    qmp.device_add("e1000e", "visitor", "hotplug_port", romfile=str(ROM))
    (address,) = _wait_for_child(below)
    try:
        assert vfioctl("bind", address).status == 0
        assert vfioctl("region", "dump", address, "rom", "--output", tmp_path / "rom").status == 0
        assert (tmp_path / "rom").read_bytes()[: ROM.stat().st_size] == ROM.read_bytes()
        refused = vfioctl("region", "write", address, "rom", "0", "1", "-J")
        assert refused.json_error["code"] == "region-access"
    finally:
        assert vfioctl("unbind", address, "--leave-unbound").status == 0
        qmp.device_del("visitor")
        qmp.wait_event("DEVICE_DELETED")


def _wait_for_child(port: Path) -> list[str]:
    import time

    until = time.monotonic() + 60
    while time.monotonic() < until:
        found = [path.name for path in port.iterdir() if re.fullmatch(r"[0-9a-f]{4}:.*\.\d", path.name)]
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError("the device did not appear")


def test_without_a_container(vfioctl: Vfioctl, roles: Mapping[str, str]) -> None:
    """It is opened for the command, and closed again."""
    nic = roles["nic_b"]
    assert vfioctl("bind", nic).status == 0
    found = vfioctl("region", "write", nic, "bar0", "0x5000", "0")
    assert found.status == 0 and "for this command only" in found.stderr
    assert value(vfioctl, nic, "config", "VENDOR_ID") == 0x8086
    assert vfioctl("unbind", nic).status == 0
