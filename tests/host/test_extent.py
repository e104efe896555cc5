"""The list of what goes into a snapshot, against what the looking commands really ask for."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from tests.cli.looking import command_lines
from tests.cli.test_snapshot import SUBJECTS, host  # noqa: F401
from tests.fakes.command import run_command
from tests.fakes.reads import missing, noted
from tests.fakes.topology import ROLES, boot
from tests.fakes.uses import A, Host
from vfioctl.host.archive import Entry, Kind
from vfioctl.host.archive.entry import forbidden
from vfioctl.host.extent import collect
from vfioctl.host.extent.excerpts import excerpt
from vfioctl.host.extent.places import DEVICES, expanded
from vfioctl.host.reader import RECORD
from vfioctl.policy.buses import BUS_DRIVERS


def test_all_that_is_asked_for_is_taken(host: Host) -> None:  # noqa: F811
    with noted() as reads:
        for line in command_lines(SUBJECTS[:5]):
            run_command(None, "--root", host.root, *line)
    assert len(reads.paths) > 100
    assert missing(reads, host.root, collect(host.root, 30)) == {RECORD}


def test_all_of_a_whole_topology(tmp_path: Path) -> None:
    kernel = boot(str(tmp_path), cdevs=True)
    kernel.load_module("vfio-pci")
    with noted() as reads:
        for line in command_lines((ROLES["nic_a"], "14")):
            run_command(None, "--root", str(tmp_path), *line)
    assert missing(reads, str(tmp_path), collect(str(tmp_path), 30)) == set()


def test_what_is_not_taken_would_be_noticed(host: Host) -> None:  # noqa: F811
    with noted() as reads, open(host.at("/proc/cmdline")), open(host.at("/run/libvirt/qemu/win.xml")):
        os.path.exists(f"{host.root}/sys/class/block/sda/holders/none")
    collected = collect(host.root, 30)
    assert missing(reads, host.root, collected) == set()
    del collected.entries["proc/cmdline"]
    assert missing(reads, host.root, collected) == {"proc/cmdline"}


def test_every_bus_with_a_vfio_driver_is_on_the_list() -> None:
    listed = {parts[2] for pattern in DEVICES for parts in expanded(pattern) if parts[1] == "bus"}
    assert listed >= set(BUS_DRIVERS)


def test_braces() -> None:
    assert list(expanded("a/{b,c*}/d{,e}")) == [
        ["a", "b", "d"],
        ["a", "b", "de"],
        ["a", "c*", "d"],
        ["a", "c*", "de"],
    ]


def test_links_that_lead_out_are_not_followed(host: Host, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "secret").write_text("secret")
    home = host.at(host.homes["pci", A])
    os.symlink(tmp_path / "secret", f"{home}/revision")
    os.symlink(tmp_path / "secret", host.at("/etc/driverctl.d/pci-0000:00:09.0"))
    os.unlink(host.at("/proc/swaps"))
    os.symlink("../../secret", host.at("/proc/swaps"))
    os.mkfifo(host.at("/proc/net/if_inet6.fifo"))
    os.symlink("if_inet6.fifo", host.at("/proc/net/none"))
    os.rename(host.at("/proc/net/if_inet6.fifo"), host.at("/proc/iomem"))
    collected = collect(host.root, 30)
    assert b"secret" not in b"".join(entry.data for entry in collected.entries.values())
    assert not any(path.endswith(("/revision", "proc/swaps", ":09.0")) for path in collected.entries)
    assert collected.entries["proc/iomem"] == Entry("proc/iomem", Kind.FILE)


def test_links_that_are_not_straight_are_made_so(host: Host) -> None:  # noqa: F811
    path = host.at("/sys/class/net/eth0")
    home = os.path.realpath(path)
    os.unlink(path)
    os.symlink(home, path)
    entry = collect(host.root, 30).entries["sys/class/net/eth0"]
    assert (entry.kind, entry.target) == (Kind.LINK, os.path.relpath(home, host.at("/sys/class/net")))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
def test_what_may_not_be_read() -> None:
    with tempfile.TemporaryDirectory() as root:
        os.chmod(root, 0o755)
        host = Host(root)
        host.put("/proc/iomem", "x")
        host.put("/run/libvirt/qemu/win.xml", "x")
        os.chmod(host.at("/proc/iomem"), 0)
        os.chmod(host.at("/run/libvirt/qemu"), 0o700)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.seteuid(65534)
                os.write(writer, "\n".join(collect(root, 30).forbidden).encode())
            finally:
                os._exit(0)
        os.close(writer)
        with open(reader) as answer:
            assert answer.read().split("\n") == ["/proc/iomem", "/run/libvirt/qemu"]
        os.waitpid(child, 0)


def test_a_mark_is_a_link_to_itself() -> None:
    assert forbidden("a/b") == Entry("a/b", Kind.LINK, b"b")


@pytest.mark.parametrize(
    ("path", "whole", "part"),
    [
        ("proc/interrupts", "      CPU0 CPU1\n 24:  1   22  IR-PCI-MSI 0-edge  eth0\nNMI: 0 7  x\n",
         "      CPU0 CPU1\n 24: 0  IR-PCI-MSI 0-edge  eth0\nNMI: 0  x\n"),
        ("proc/iomem", "00000000-ffffffff : PCI Bus 0000:00\n  c0000000-c0ffffff : 0000:00:01.0\n"
         "    c0000000-c01fffff : efifb\n  d0000000-d0ffffff : 0000:00:02.0\n100000-200000 : Kernel code\n",
         "00000000-ffffffff : PCI Bus 0000:00\n  c0000000-c0ffffff : 0000:00:01.0\n    c0000000-c01fffff : efifb\n"),
        ("proc/bus/input/devices", "I: Bus\nN: Name=\"K\"\nP: Phys=aa:bb\nS: Sysfs=/x\nU: Uniq=12:34\n\n",
         "I: Bus\nN: Name=\"K\"\nS: Sysfs=/x\n\n"),
        ("run/udev/data/b8:0",
         "S:disk/by-id/x\nE:ID_SERIAL=s\nE:ID_FS_TYPE=ext4\nE:ID_FS_LABEL=mine\n", "E:ID_FS_TYPE=ext4\n"),
        ("run/udev/data/b8:1", "E:ID_FS_TYPE=zfs_member\nE:ID_FS_LABEL=tank\n",
         "E:ID_FS_TYPE=zfs_member\nE:ID_FS_LABEL=tank\n"),
        ("run/libvirt/qemu/x.xml", "<domstatus><source><address domain='0' bus='1' slot='2' function='3'/></source>"
         "<graphics passwd='p'/></domstatus>",
         '<domstatus><source><address domain="0x0000" bus="0x01" slot="0x02" function="0x3"/></source></domstatus>\n'),
        ("run/libvirt/qemu/x.xml", "<!DOCTYPE x [<!ENTITY y 'z'>]><x/>", "<domstatus></domstatus>\n"),
        ("lib/modules/6.1/modules.alias", "# x\nalias pci:v1 e1000\nalias vfio_pci:v1 mlx5_vfio_pci\n",
         "alias vfio_pci:v1 mlx5_vfio_pci\n"),
        ("lib/modules/6.1/modules.builtin.modinfo",
         "a.license=GPL\0vfio_pci.alias=vfio_pci:v*\0", "vfio_pci.alias=vfio_pci:v*\0"),
        ("lib/modules/6.1/modules.dep", "kernel/a.ko:\nkernel/vfio-pci.ko.xz: kernel/b.ko\nkernel/c.ko:\n",
         "kernel/a.ko:\nkernel/vfio-pci.ko.xz: kernel/b.ko\n"),
        ("boot/config-6.1", "# Linux\nCONFIG_X=y\nCONFIG_VFIO=m\n", "# Linux\nCONFIG_VFIO=m\n"),
        ("proc/cmdline", "quiet", "quiet"),
    ],
)  # fmt: skip
def test_excerpts(path: str, whole: str, part: str) -> None:
    assert excerpt(path, whole.encode()).decode() == part
