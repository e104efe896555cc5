"""The family region on an imitated device: what is asked of it, and what is said."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.command import Result, run_command
from tests.fakes.device import (
    MMAP,
    READ,
    STRIDE,
    WRITE,
    FakeClient,
    FakeDevice,
    FakeRegion,
    install,
    open_for_commands,
)
from tests.fakes.machine import FakeMachine
from tests.fakes.topology import ROLES, SMALL, boot
from tests.policy.test_pci_config import dump
from vfioctl.errors import DeadlinePassed, KernelRefusal
from vfioctl.host import bounded
from vfioctl.ops.regions import Regions

EDU = ROLES["edu"]
COMMAND = 4
#: Memory and I/O decoding on.
CONFIG = dump("e1000e")
REGIONS = {
    0: FakeRegion(0x2000, READ | WRITE | MMAP, bytes.fromhex("ed000001 78563412 8877665544332211")),
    2: FakeRegion(32, READ | WRITE, bytes(range(32))),
    3: FakeRegion(0x4000, READ | WRITE | MMAP, b"", ((0x1000, 0x3000),)),
    6: FakeRegion(0x1000, READ, b"\x55\xaa"),
    7: FakeRegion(4096, READ | WRITE, CONFIG),
    9: FakeRegion(0x1000, READ, b"igd", type=(0x80008086, 1)),
}
Vfioctl = Callable[..., Result]


@pytest.fixture
def device() -> FakeDevice:
    return FakeDevice(REGIONS, num_regions=10)


@pytest.fixture
def vfioctl(device: FakeDevice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Vfioctl:
    open_for_commands(monkeypatch, device, FakeClient(), temporary=False)
    machine = FakeMachine(boot(str(tmp_path), SMALL))
    return lambda *arguments: run_command(machine, *arguments)


def test_list(vfioctl: Vfioctl) -> None:
    found = vfioctl("region", "list", EDU)
    assert found.stdout.splitlines() == [
        "INDEX NAME SIZE FLAGS SPACE",
        "0 bar0 0x2000 read,write,mmap memory",
        "2 bar2 0x20 read,write io",
        "3 bar3 0x4000 read,write,mmap memory",
        "6 rom 0x1000 read -",
        "7 config 0x1000 read,write -",
        "9 igd_opregion 0x1000 read -",
    ]
    document = vfioctl("region", "list", EDU, "-a", "-J").json
    assert document["device"] == EDU
    assert [region["name"] for region in document["regions"]] == [
        *(f"bar{i}" for i in range(6)),
        "rom",
        "config",
        "igd_opregion",
    ]
    assert document["regions"][3]["areas"] == [{"offset": 0x1000, "size": 0x3000}]
    assert (document["regions"][8]["type"], document["regions"][8]["subtype"]) == (0x80008086, 1)


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        (("bar0", "0"), ["0x010000ed"]),
        (("BAR0", "4"), ["0x12345678"]),
        (("0", "0x8", "--width", "64"), ["0x1122334455667788"]),
        (("bar0", "0", "--width", "8", "--count", "2"), ["0xed", "0x00"]),
        (("bar2", "2", "--width", "16", "--count", "2"), ["0x0302", "0x0504"]),
        (("config", "VENDOR_ID"), ["0x8086"]),
        (("config", "COMMAND", "--width", "8"), ["0x07"]),
        (("config", "CAP_MSIX+2", "--width", "16"), ["0x8004"]),
        (("igd_opregion", "0", "--width", "8"), ["0x69"]),
    ],
)
def test_read(vfioctl: Vfioctl, arguments: tuple[str, ...], lines: list[str]) -> None:
    found = vfioctl("region", "read", EDU, *arguments)
    assert (found.status, found.stdout.splitlines()) == (0, lines), found.stderr


def test_read_as_a_document(vfioctl: Vfioctl) -> None:
    assert vfioctl("region", "read", EDU, "config", "COMMAND", "-J").json == {
        "schema_version": 1, "device": EDU, "region": "config", "register": "COMMAND", "offset": 4, "width": 16,
        "access": "pread", "values": [0x0507],
    }  # fmt: skip
    assert vfioctl("region", "read", EDU, "bar0", "0", "-J").json["access"] == "mmap"
    assert vfioctl("region", "read", EDU, "bar3", "0", "-J").json["access"] == "pread"


@pytest.mark.parametrize(
    ("arguments", "status", "code"),
    [
        (("bar1", "0"), 3, "no-such-region"),
        (("bar9", "0"), 3, "no-such-region"),
        (("vga", "0"), 3, "no-such-region"),
        (("bar0", "2"), 2, "misaligned"),
        (("bar0", "0x2000"), 2, "outside-region"),
        (("bar0", "0x1ffc", "--count", "2"), 2, "outside-region"),
        (("bar0", "-4"), 2, "usage"),
        (("bar0", "0x"), 2, "number"),
        (("bar0", "0x10000000000000000"), 2, "number"),
        (("bar0", "COMMAND"), 2, "register"),
        (("config", "NOTHING"), 2, "register"),
    ],
)
def test_what_cannot_be_read(vfioctl: Vfioctl, arguments: tuple[str, ...], status: int, code: str) -> None:
    found = vfioctl("region", "read", EDU, *arguments, "-J")
    assert (found.status, found.json_error["code"], found.stdout) == (status, code, ""), found.stderr


def test_a_group_is_no_device(vfioctl: Vfioctl) -> None:
    found = vfioctl("region", "read", "2", "bar0", "0")
    assert found.status == 2 and EDU in found.stderr


def test_write(vfioctl: Vfioctl, device: FakeDevice) -> None:
    found = vfioctl("region", "write", EDU, "bar0", "0x10", "0x12345678")
    assert (found.status, found.stdout, found.stderr) == (0, "", "")
    assert device.bytes(0, 0x10, 4) == bytes.fromhex("78563412")
    pairs = ("0x80=0x1122334455667788", "0x88=1")
    assert vfioctl("region", "write", EDU, "bar0", *pairs, "--width", "64").status == 0
    assert device.bytes(0, 0x80, 16) == bytes.fromhex("8877665544332211 0100000000000000")
    assert vfioctl("region", "write", EDU, "config", "COMMAND=0x3", "INTERRUPT_LINE=9").status == 0
    assert device.bytes(7, COMMAND, 2) == b"\3\0" and device.bytes(7, 0x3C, 2) == b"\x09\x01"


def test_write_with_a_mask(vfioctl: Vfioctl, device: FakeDevice) -> None:
    found = vfioctl("region", "write", EDU, "config", "COMMAND", "0", "--mask", "0x4", "--check", "-J")
    assert found.status == 0
    assert found.json["writes"] == [
        {"offset": 4, "register": "COMMAND", "width": 16, "value": 0x503, "before": 0x507, "after": 0x503}
    ]
    assert device.bytes(7, COMMAND, 2) == b"\x03\x05"


def test_what_reads_back_differently_is_a_no(
    vfioctl: Vfioctl, device: FakeDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: len(data))
    found = vfioctl("region", "write", EDU, "bar2", "0", "0x7", "--check")
    assert found.status == 1
    assert "0x0 reads back as 0x03020100, not 0x00000007" in found.stderr
    assert vfioctl("region", "write", EDU, "bar2", "0", "0x100", "--check", "--mask", "0x100").status == 0


@pytest.mark.parametrize(
    ("arguments", "status", "code"),
    [
        (("bar0", "0"), 2, "usage"),
        (("bar0", "0", "1", "2"), 2, "usage"),
        (("bar0", "0=1", "4"), 2, "usage"),
        (("bar0", "0", "0x100", "--width", "8"), 2, "usage"),
        (("bar0", "0", "-1"), 2, "usage"),
        (("rom", "0", "1"), 2, "region-access"),
        (("bar0", "0", "1", "--mask", "z"), 2, "number"),
        (("bar0", "0", "--input", "/none/such"), 2, "file"),
        (("bar0", "4", "--input", "/dev/zero"), 2, "outside-region"),
        (("bar0", "0x9000", "--input", "/dev/zero"), 2, "outside-region"),
        (("bar0", "0=1", "0x2000=1"), 2, "outside-region"),
    ],
)
def test_what_cannot_be_written(
    vfioctl: Vfioctl, device: FakeDevice, arguments: tuple[str, ...], status: int, code: str
) -> None:
    found = vfioctl("region", "write", EDU, *arguments, "-J")
    assert (found.status, found.json_error["code"]) == (status, code), found.stderr
    assert device.bytes(0, 0, 4) == REGIONS[0].content[:4], "nothing is written when something cannot be"


def test_a_file_is_written(vfioctl: Vfioctl, device: FakeDevice, tmp_path: Path) -> None:
    data = os.urandom(0x1000)
    (tmp_path / "firmware").write_bytes(data)
    assert vfioctl("region", "write", EDU, "bar0", "0x1000", "--input", tmp_path / "firmware").status == 0
    assert device.bytes(0, 0x1000, 0x1000) == data


def test_dump(vfioctl: Vfioctl, tmp_path: Path) -> None:
    lines = vfioctl("region", "dump", EDU, "config").stdout.splitlines()
    assert len(lines) == 256 and lines[0] == f"000: {CONFIG[:16].hex(' ')}"
    assert vfioctl("region", "dump", EDU, "bar2", "-J").json["data"] == bytes(range(32)).hex()
    assert vfioctl("region", "dump", EDU, "rom", "--output", tmp_path / "rom").status == 0
    assert (tmp_path / "rom").read_bytes() == b"\x55\xaa".ljust(0x1000, b"\0")
    assert vfioctl("region", "dump", EDU, "rom", "--output", "/none/such/file").status == 7


def test_decoded(vfioctl: Vfioctl) -> None:
    document = vfioctl("region", "dump", EDU, "config", "--decode", "-J").json
    assert {"name": "VENDOR_ID", "offset": 0, "width": 16, "value": 0x8086} in document["registers"]
    (msix,) = (each for each in document["capabilities"] if each["name"] == "CAP_MSIX")
    assert (msix["offset"], msix["fields"]["vectors"]) == (0xA0, 5)
    lines = vfioctl("region", "dump", EDU, "config", "--decode").stdout.splitlines()
    assert "COMMAND=0x0507" in lines and "CAP_MSIX.enabled=yes" in lines
    assert vfioctl("region", "dump", EDU, "bar0", "--decode").status == 2


def with_command(value: int) -> FakeDevice:
    config = bytearray(CONFIG)
    config[COMMAND : COMMAND + 2] = value.to_bytes(2, "little")
    ones = FakeRegion(32, READ | WRITE, b"\xff" * 32)
    return FakeDevice({**REGIONS, 2: ones, 7: FakeRegion(4096, READ | WRITE, bytes(config))}, num_regions=10)


def test_ones_are_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    off = with_command(2)
    install(monkeypatch, off)
    regions = Regions(EDU, off.fd, 1)
    with pytest.raises(KernelRefusal, match="decodes no I/O ports") as caught:
        regions.read(regions.find("bar2"), 0, 4)
    assert caught.value.code == "decoding-off"
    assert caught.value.hint == f"vfioctl region write {EDU} config COMMAND 1 --mask 1"
    on = with_command(3)
    install(monkeypatch, on)
    regions = Regions(EDU, on.fd, 1)
    assert regions.read(regions.find("bar2"), 0, 4) == b"\xff" * 4


def test_memory_that_is_not_decoded_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    off = with_command(1)
    install(monkeypatch, off)
    pread = os.pread

    def refuse(fd: int, size: int, at: int) -> bytes:
        if at < 1 << 20:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return pread(fd, size, at)

    off.regions[0] = off.regions[0]._replace(flags=READ | WRITE)
    monkeypatch.setattr(os, "pread", refuse)
    regions = Regions(EDU, off.fd, 1)
    with pytest.raises(KernelRefusal, match="decodes no memory") as caught:
        regions.read(regions.find("bar0"), 0, 4)
    assert caught.value.errno == errno.EIO


def test_a_device_that_is_gone_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = FakeDevice({7: FakeRegion(256, READ | WRITE, b"\xff" * 256)})
    install(monkeypatch, gone)
    regions = Regions(EDU, gone.fd, 1)
    with pytest.raises(KernelRefusal) as caught:
        regions.config()
    assert caught.value.code == "device-gone"


def test_memory_that_kills_is_survived(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind the end of a file mapped memory is a SIGBUS, as is device memory that is not decoded."""
    call = bounded.call
    device = with_command(1)
    install(monkeypatch, device)
    regions = Regions(EDU, device.fd, 5)
    bar = regions.find("bar0")
    nothing = bar._replace(info=bar.info._replace(offset=device.num_regions * STRIDE))
    monkeypatch.setattr(bounded, "call", call)
    with pytest.raises(KernelRefusal, match="decodes no memory"):
        regions.read(nothing, 0, 4)


def test_a_read_that_does_not_come_back_has_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    call = bounded.call
    device = FakeDevice(REGIONS, num_regions=10)
    install(monkeypatch, device)
    regions = Regions(EDU, device.fd, 0.2)
    region = regions.find("bar2")
    monkeypatch.setattr(bounded, "call", call)
    reader, _ = os.pipe()
    monkeypatch.setattr(os, "pread", lambda fd, size, at: os.read(reader, size))
    with pytest.raises(DeadlinePassed, match="has not answered within"):
        regions.read(region, 0, 4)


def test_what_does_not_stay_is_said(
    device: FakeDevice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_for_commands(monkeypatch, device, FakeClient(), temporary=True)
    machine: Any = FakeMachine(boot(str(tmp_path), SMALL))
    found = run_command(machine, "region", "write", EDU, "bar0", "0", "1")
    assert found.status == 0 and "what was written may be lost" in found.stderr
    assert "lost" not in run_command(machine, "region", "read", EDU, "bar0", "0").stderr
