"""The reader against trees of files: all that it can say comes back, and nothing hostile gets through."""

from __future__ import annotations

import os
import string
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fakes.command import run_command
from tests.fakes.topology import ROLES, boot
from tests.fakes.tree import Tree, modalias_of, write_snapshot
from vfioctl.host import files, reader
from vfioctl.host.reader import parse_pci_modalias, parse_reserved_regions, read_platform, read_snapshot
from vfioctl.model import Device, IommuGroup, Kernel, Node, PciIds, ReservedRegion, Snapshot

HEX = "0123456789abcdef"
words = st.text(string.ascii_letters + string.digits + "-_.", min_size=1, max_size=12).filter(
    lambda word: word.strip(".") == word
)
#: What a sysfs file may hold: anything but what ends it.
texts = st.text(min_size=1, max_size=20).filter(lambda t: t.rstrip("\n") == t and t.isprintable())


def hexadecimal(digits: int) -> st.SearchStrategy[str]:
    return st.text(HEX, min_size=digits, max_size=digits)


pci_ids = st.builds(PciIds, hexadecimal(6), *(hexadecimal(4) for _ in range(4)))


@st.composite
def addresses(draw: st.DrawFn) -> str:
    domain = draw(hexadecimal(4) | hexadecimal(5) | hexadecimal(8))
    slot, function = draw(st.integers(0, 31)), draw(st.integers(0, 7))
    return f"{domain}:{draw(hexadecimal(2))}:{slot:02x}.{function}"


@st.composite
def regions(draw: st.DrawFn) -> ReservedRegion:
    start, end = sorted((draw(st.integers(0, 2**64 - 1)), draw(st.integers(0, 2**64 - 1))))
    return ReservedRegion(
        start, end, draw(st.sampled_from(["msi", "direct", "reserved", "direct-relaxable"]))
    )


@st.composite
def devices(draw: st.DrawFn, group: int | None) -> Device:
    driver = draw(st.none() | words)
    vfio_dev = None if driver is None else draw(st.none() | st.integers(0, 99).map("vfio{}".format))
    override = draw(st.none() | texts.filter(lambda t: t != "(null)"))
    if group is None or draw(st.booleans()):
        pci = draw(pci_ids)
        return Device(
            draw(addresses()), "pci", group, pci, driver, override, vfio_dev, modalias=modalias_of(pci)
        )
    bus = draw(st.sampled_from(["platform", "amba", "fsl-mc", "mdev"]))
    modalias = draw(st.none() | words.map("platform:{}".format))
    return Device(draw(words), bus, group, None, driver, override, vfio_dev, modalias=modalias)


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    groups = []
    used: set[str] = set()

    def fresh(found: list[Device]) -> list[Device]:
        kept = [device for device in found if device.key not in used]
        for device in kept:
            used.add(device.key)
        return list({device.key: device for device in kept}.values())

    for number in sorted(draw(st.sets(st.integers(0, 10**6), max_size=4))):
        members = fresh(draw(st.lists(devices(number), max_size=4)))
        if len({device.address for device in members}) != len(members):
            members = members[:1]  # suffixes have a test of their own
        node = Node(f"/dev/vfio/{number}", os.getuid(), os.getgid(), draw(st.integers(0, 0o777)))
        # Which member a cdev belongs to is in another test too.
        groups.append(
            IommuGroup(
                number,
                draw(st.none() | words),
                draw(st.sampled_from(["DMA", "DMA-FQ", "identity", None])),
                tuple(draw(st.lists(regions(), max_size=3))),
                draw(st.none() | st.just(node)),
                tuple(sorted(members, key=lambda device: device.address)),
            )
        )
    alone = sorted(fresh(draw(st.lists(devices(None), max_size=3))), key=lambda device: device.address)
    kernel = Kernel(
        draw(st.none() | words),
        "x86_64",
        draw(st.none() | st.booleans()),
        draw(st.booleans()),
        tuple(sorted(draw(st.sets(words, max_size=2)))),
        draw(st.booleans()),
    )
    return Snapshot(kernel, tuple(groups), (*(d for group in groups for d in group.devices), *alone))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(snapshots())
def test_what_is_written_is_read(snapshot: Snapshot) -> None:
    with tempfile.TemporaryDirectory() as root:
        write_snapshot(root, snapshot)
        kernel = snapshot.kernel._replace(has_vfio_dev=any(device.vfio_dev for device in snapshot.devices))
        assert read_snapshot(root, ungrouped=True) == snapshot._replace(kernel=kernel)


@given(pci_ids)
def test_modaliases(ids: PciIds) -> None:
    assert parse_pci_modalias(modalias_of(ids)) == ids


@given(st.text(max_size=80))
def test_a_modalias_of_another_form_is_none(text: str) -> None:
    assert parse_pci_modalias(text) is None


def test_reserved_regions_of_another_form_are_passed_over() -> None:
    text = "0x0 0xfff direct\nnonsense\n0x1 2 msi\n0x00000000fee00000 0x00000000feefffff msi\n"
    assert parse_reserved_regions(text) == (
        ReservedRegion(0, 0xFFF, "direct"),
        ReservedRegion(0xFEE00000, 0xFEEFFFFF, "msi"),
    )


def test_two_members_of_one_name_on_two_buses(tmp_path: Path) -> None:
    tree = Tree(str(tmp_path))
    tree.group(3)
    for bus in ("platform", "amba"):
        tree.device(Device("fe000000.dma", bus, 3))
    assert sorted(os.listdir(tmp_path / "sys/kernel/iommu_groups/3/devices")) == [
        "fe000000.dma",
        "fe000000.dma.0",
    ]
    (group,) = read_snapshot(str(tmp_path)).groups
    assert {device.key for device in group.devices} == {"platform/fe000000.dma", "amba/fe000000.dma"}


def test_a_long_domain(tmp_path: Path) -> None:
    tree = Tree(str(tmp_path))
    tree.group(0)
    ids = PciIds("010802", "8086", "0a54", "8086", "4702")
    tree.device(Device("10000001:e1:00.0", "pci", 0, ids, modalias=modalias_of(ids)))
    result = run_command(None, "--root", tmp_path, "show", "10000001:e1:00.0", "-P", "address", "--value")
    assert (result.status, result.stdout) == (0, "10000001:e1:00.0\n")


@pytest.mark.parametrize(
    "override", [b"\x1b[31mred\x1b[0m", b"two\nlines", b"\xff\xfe", "\u202eevil".encode(), b"\x9b2J", b"a\rb"]
)
@pytest.mark.parametrize("form", ["table", "plain", "json", "yaml"])
def test_hostile_text_in_sysfs_stays_text(tmp_path: Path, override: bytes, form: str) -> None:
    kernel = boot(str(tmp_path))
    home = kernel.tree.homes["pci", ROLES["edu"]]
    kernel.tree.put(f"{home}/driver_override", override + b"\n")
    for command in (
        ("list-devices", "-o", "address,override") if form in ("table", "plain") else ("list-devices",),
        ("show", ROLES["edu"]),
    ):
        result = run_command(None, "--root", tmp_path, *command, "--format", form)
        assert result.status == 0, result.stderr
        assert all(c == "\n" or (c.isprintable() and c != "\u202e") for c in result.stdout)
        result.stdout.encode()


def test_a_device_that_vanishes_between_two_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever read it is after: no error, and never half of another device."""
    whole = read_snapshot(boot(str(tmp_path / "whole")).tree.root)
    real = files.read
    for number in range(1, 40, 3):
        root = tmp_path / str(number)
        root.mkdir()
        kernel = boot(str(root))
        count = 0

        def vanishing(path: str, dir_fd: int | None = None) -> str | None:
            nonlocal count
            count += 1
            if count == number:  # noqa: B023
                kernel.unplug(ROLES["edu"])  # noqa: B023
            return real(path, dir_fd)

        monkeypatch.setattr(reader, "read", vanishing)
        found = read_snapshot(str(root))
        monkeypatch.undo()
        others = [d for d in found.devices if d.address != ROLES["edu"]]
        assert others == [d for d in whole.devices if d.address != ROLES["edu"]]


def test_forbidden_is_not_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    boot(str(tmp_path))

    def forbidden(path: str, dir_fd: int | None = None) -> str | None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(reader, "read", forbidden)
    result = run_command(None, "--root", tmp_path, "list-groups", "-J")
    assert (result.status, result.stdout) == (4, "")
    assert result.json_error["code"] == "permission"


def test_root_is_for_looking(tmp_path: Path) -> None:
    boot(str(tmp_path))
    assert run_command(None, "--root", tmp_path, "list-groups").status == 0
    for command in (
        ("bind", "2"),
        ("unbind", "2"),
        ("permit", "2", "--user", "0"),
        ("recover",),
        ("map", "2"),
    ):
        result = run_command(None, "--root", tmp_path, *command, "-J")
        assert (result.status, result.stdout) == (2, ""), command
    assert run_command(None, "--root", tmp_path / "none", "list-groups").status == 2


def test_no_groups_are_explained(tmp_path: Path) -> None:
    tree = Tree(str(tmp_path))
    tree.directory("/sys/kernel/iommu_groups")
    tree.put("/proc/sys/kernel/arch", "x86_64\n")
    tree.put("/proc/cmdline", "quiet intel_iommu=off\n")
    tree.put("/sys/firmware/acpi/tables/DMAR", "")
    platform = read_platform(str(tmp_path))
    assert (platform.firmware_tables, platform.groups_directory) == (("DMAR",), True)
    result = run_command(None, "--root", tmp_path, "list-groups", "-J")
    assert (result.status, result.json["groups"]) == (0, [])
    assert "intel_iommu=off" in result.stderr


@pytest.mark.parametrize(
    ("machine", "interrupts", "isolated"),
    [
        ("x86_64", "  1:  9  IR-IO-APIC  1-edge  i8042", True),
        ("x86_64", "  1:  9  IO-APIC  1-edge  i8042", False),
        (
            "aarch64",
            " 11:  3  GICv3  27 Level  arch_timer\n 22:  0  ITS-PCI-MSIX-0000:00:1e.0  0 Edge  virtio1",
            True,
        ),
        ("aarch64", " 11:  3  GICv3  27 Level  arch_timer", None),
        ("aarch64", " 11:  3  GIC-0  27 Level  arch_timer", False),
        ("aarch64", " 11:  3  GICv2  27 Level  arch_timer", False),
        ("s390x", "I/O:  3  SCLP", True),
        ("ppc64le", " 16:  3  XIVE-IRQ  1 Edge", True),
        ("riscv64", " 10:  3  RISC-V INTC  5 Edge  riscv-timer", None),
    ],
)
def test_isolation_of_interrupts(
    tmp_path: Path, machine: str, interrupts: str, isolated: bool | None
) -> None:
    tree = Tree(str(tmp_path))
    tree.put("/proc/sys/kernel/arch", f"{machine}\n")
    tree.put("/proc/interrupts", f"           CPU0\n{interrupts}\n")
    assert read_snapshot(str(tmp_path)).kernel.interrupts_isolated is isolated
