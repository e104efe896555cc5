"""Disks in use, a tree for each way to build on them, and disks with data."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any

import pytest

from tests.fakes.uses import A, B, Host
from vfioctl.host.usage import disks
from vfioctl.host.usage.disks import is_claimed
from vfioctl.model import Use


@pytest.fixture
def sda(host: Host) -> Host:
    """A disk of two partitions on A."""
    host.disk("sda", "8:0")
    host.partition("sda", "sda1", "8:1")
    host.partition("sda", "sda2", "8:2")
    return host


def test_a_partition(sda: Host) -> None:
    sda.mount("/dev/sda1", "/", number="8:1")
    sda.mount("/dev/sda2", "/home", number="8:2")
    assert sda.uses() == [
        Use("root-disk", "sda1 is mounted on /"),
        Use("mounted-disk", "sda2 is mounted on /home"),
    ]
    assert sda.uses(B) == []


def test_a_whole_disk(host: Host) -> None:
    host.disk("sda", "8:0")
    host.mount("/dev/sda", "/mnt", number="8:0")
    assert host.uses() == [Use("mounted-disk", "sda is mounted on /mnt")]


def test_many_mounts_are_one_finding(sda: Host) -> None:
    for number in range(5):
        sda.mount("/dev/sda1", f"/m{number}", number="8:1")
    sda.mount("/dev/sda1", "/m0", number="8:1")
    assert sda.uses() == [Use("mounted-disk", "sda1 is mounted on /m0, /m1, /m2 and 2 more")]


def test_the_mounts_of_init_count_too(sda: Host) -> None:
    sda.put("/proc/1/mountinfo", "36 25 8:1 / /srv rw - ext4 /dev/sda1 rw\n")
    assert sda.uses() == [Use("mounted-disk", "sda1 is mounted on /srv")]


def test_luks_on_lvm_on_md(sda: Host) -> None:
    sda.disk("sdb", "8:16", B)
    sda.disk("md0", "9:0", None)
    sda.on("sda2", "md0")
    sda.on("sdb", "md0")
    sda.dm("dm-0", "253:0", "vg-root", "md0")
    sda.dm("dm-1", "253:1", "crypt-root", "dm-0")
    sda.mount("/dev/mapper/crypt-root", "/", number="253:1")
    assert sda.uses() == [Use("root-disk", "dm-1 (crypt-root) is mounted on /, built on sda2")]
    assert sda.uses(B) == [Use("root-disk", "dm-1 (crypt-root) is mounted on /, built on sdb")]
    assert len(sda.uses(A, B)) == 2


def test_a_stacked_device_that_is_only_active(sda: Host) -> None:
    """A volume given to a virtual machine, next to one that is mounted."""
    sda.dm("dm-0", "253:0", "vg-root", "sda2")
    sda.dm("dm-1", "253:1", "vg-vm", "sda2")
    sda.mount("/dev/mapper/vg-root", "/", number="253:0")
    assert sda.uses() == [
        Use("root-disk", "dm-0 (vg-root) is mounted on /, built on sda2"),
        Use("disk-in-use", "dm-1 (vg-vm) is active on sda2"),
    ]


def test_of_a_chain_without_a_mount_the_top_is_named(sda: Host) -> None:
    sda.disk("md0", "9:0", None)
    sda.on("sda1", "md0")
    sda.dm("dm-0", "253:0", "vg-a", "md0")
    assert sda.uses() == [Use("disk-in-use", "dm-0 (vg-a) is active on sda1")]


def test_partitions_of_an_array(sda: Host) -> None:
    sda.disk("md0", "9:0", None)
    sda.on("sda1", "md0")
    sda.partition("md0", "md0p1", "259:0")
    assert sda.uses() == [Use("disk-in-use", "md0 is active on sda1")]
    sda.mount("/dev/md0p1", "/srv", number="259:0")
    assert sda.uses() == [Use("mounted-disk", "md0p1 is mounted on /srv, built on sda1")]


def test_multipath(host: Host) -> None:
    host.disk("sda", "8:0", A)
    host.disk("sdb", "8:16", B)
    host.dm("dm-0", "253:0", "mpatha", "sda", "sdb")
    host.dm("dm-1", "253:1", "mpatha-part1", "dm-0")
    host.mount("/dev/mapper/mpatha-part1", "/", number="253:1")
    assert host.guards(A) == host.guards(B) == ["root-disk"]


def test_swap_on_a_volume(sda: Host) -> None:
    sda.dm("dm-0", "253:0", "vg-swap", "sda2")
    sda.swap("/dev/dm-0")
    assert sda.uses() == [Use("swap", "dm-0 (vg-swap) is swap space, built on sda2")]


def test_swap_on_a_partition(sda: Host) -> None:
    sda.swap("/dev/sda2")
    assert sda.uses() == [Use("swap", "sda2 is swap space")]


def test_a_swap_file_of_that_name_is_none(sda: Host) -> None:
    sda.swap("/dev/sda2", "file")
    sda.swap("/srv/sda2")
    assert sda.guards() == ["has-data"]


@pytest.mark.parametrize("which", ["sda1", "sdb"])
def test_bcache(sda: Host, which: str) -> None:
    """The backing device and the cache."""
    sda.disk("sdb", "8:16", B)
    sda.disk("bcache0", "252:0", None)
    sda.on("sda1", "bcache0")
    sda.on("sdb", "bcache0")
    sda.mount("/dev/bcache0", "/srv", number="252:0")
    address = {"sda1": A, "sdb": B}[which]
    assert sda.uses(address) == [Use("mounted-disk", f"bcache0 is mounted on /srv, built on {which}")]


def test_a_cache_without_a_disk_to_cache(sda: Host) -> None:
    sda.directory(f"{os.path.realpath(sda.at('/sys/class/block/sda1'))[len(sda.root) :]}/bcache")
    assert sda.uses() == [Use("disk-in-use", "a bcache set is active on sda1")]


def btrfs(host: Host, *members: str) -> None:
    for member in members:
        host.link(f"/sys/fs/btrfs/0f-1/devices/{member}", f"/sys/class/block/{member}")


def test_btrfs_of_two_disks(sda: Host) -> None:
    """The mount names one of them, under a device number of its own."""
    sda.disk("sdb", "8:16", B)
    btrfs(sda, "sda1", "sdb")
    sda.put("/dev/sda1", "")
    sda.mount("/dev/sda1", "/", "btrfs", number="0:30")
    assert sda.uses(A) == [Use("root-disk", "btrfs 0f-1 is mounted on /, built on sda1")]
    assert sda.uses(B) == [Use("root-disk", "btrfs 0f-1 is mounted on /, built on sdb")]


def test_btrfs_mounted_where_it_cannot_be_seen(sda: Host) -> None:
    btrfs(sda, "sda1")
    assert sda.uses() == [Use("disk-in-use", "btrfs 0f-1 is active on sda1")]


def test_bcachefs(sda: Host) -> None:
    sda.disk("sdb", "8:16", B)
    for number, member in enumerate(("sda1", "sdb")):
        sda.link(f"/sys/fs/bcachefs/aa-1/dev-{number}/block", f"/sys/class/block/{member}")
    sda.mount("/dev/sda1:/dev/sdb", "/srv", "bcachefs", number="0:31")
    assert sda.guards(A) == sda.guards(B) == ["mounted-disk"]


def test_bcachefs_by_its_mount_alone(sda: Host) -> None:
    sda.disk("sdb", "8:16", B)
    sda.mount("/dev/sda1:/dev/sdb", "/srv", "bcachefs", number="0:31")
    assert sda.guards(A) == sda.guards(B) == ["mounted-disk"]


class TestZfs:
    @pytest.fixture
    def pool(self, sda: Host) -> Host:
        sda.udev("sda1", ID_FS_TYPE="zfs_member", ID_FS_LABEL="rpool")
        sda.put("/proc/spl/kstat/zfs/dbgmsg", "")
        sda.directory("/proc/spl/kstat/zfs/tank")
        return sda

    def test_the_root_is_a_dataset(self, pool: Host) -> None:
        pool.directory("/proc/spl/kstat/zfs/rpool")
        pool.mount("rpool/ROOT/debian", "/", "zfs", number="0:30")
        pool.mount("tank/data", "/data", "zfs", number="0:31")
        assert pool.uses() == [Use("root-disk", "ZFS pool rpool is mounted on /, built on sda1")]

    def test_imported_and_not_mounted(self, pool: Host) -> None:
        pool.directory("/proc/spl/kstat/zfs/rpool")
        assert pool.uses() == [Use("disk-in-use", "ZFS pool rpool is active on sda1")]

    def test_not_imported(self, pool: Host) -> None:
        assert pool.guards() == ["has-data"]


@pytest.mark.parametrize("backing", ["/dev/sda2", "/dev/disk/by-id/x"])
def test_a_loop_on_a_partition(sda: Host, backing: str) -> None:
    sda.put("/dev/sda2", "")
    sda.link("/dev/disk/by-id/x", "/dev/sda2")
    home = sda.disk("loop0", "7:0", None)
    sda.put(f"{home}/loop/backing_file", f"{backing}\n")
    assert sda.uses() == [Use("disk-in-use", "loop0 is active on sda2")]
    sda.mount("/dev/loop0", "/mnt", number="7:0")
    assert sda.uses() == [Use("mounted-disk", "loop0 is mounted on /mnt, built on sda2")]


def test_a_loop_on_a_file_of_that_name(sda: Host) -> None:
    sda.put(f"{sda.disk('loop0', '7:0', None)}/loop/backing_file", "/srv/sda2\n")
    assert sda.guards() == ["has-data"]


def test_a_journal_on_another_disk(sda: Host) -> None:
    sda.disk("sdb", "8:16", B)
    sda.mount("/dev/sdb", "/srv", "xfs", number="8:16", options="rw,attr2,logdev=/dev/sda1,noquota")
    assert sda.uses() == [Use("mounted-disk", "sda1 is mounted on /srv")]


def test_a_copied_tree_without_dev(sda: Host) -> None:
    sda.dm("dm-0", "253:0", "vg-root", "sda2")
    sda.remove("/dev")
    sda.mount("/dev/mapper/vg-root", "/", "btrfs", number="0:40")
    assert sda.guards() == ["root-disk"]


def test_nvme_with_multipath_is_below_its_subsystem(host: Host) -> None:
    top = "/sys/devices/virtual/nvme-subsystem/nvme-subsys0"
    for number, address in enumerate((A, B)):
        home = f"{host.homes['pci', address]}/nvme/nvme{number}"
        host.put(f"{home}/nvme0c{number}n1/hidden", "1\n")
        host.link(f"/sys/class/block/nvme0c{number}n1", f"{home}/nvme0c{number}n1")
        host.link(f"{top}/nvme{number}", home)
    host.directory(f"{top}/nvme0n1/holders")
    host.put(f"{top}/nvme0n1/dev", "259:0\n")
    host.link("/sys/class/block/nvme0n1", f"{top}/nvme0n1")
    host.partition("nvme0n1", "nvme0n1p1", "259:1")
    host.mount("/dev/nvme0n1p1", "/", number="259:1")
    assert host.uses(A) == host.uses(B) == [Use("root-disk", "nvme0n1p1 is mounted on /")]


class TestData:
    def test_partitions(self, sda: Host) -> None:
        assert sda.uses() == [Use("has-data", "sda has partitions: sda1, sda2", refuses=False)]

    @pytest.mark.parametrize("key", ["ID_FS_TYPE", "ID_PART_TABLE_TYPE"])
    def test_what_udev_has_found(self, host: Host, key: str) -> None:
        host.disk("sda", "8:0")
        host.udev("sda", **{key: "crypto_LUKS"})
        assert host.uses() == [Use("has-data", "udev has found crypto_LUKS on sda", refuses=False)]

    def test_an_empty_disk(self, host: Host) -> None:
        host.disk("sda", "8:0")
        host.udev("sda", ID_MODEL="x")
        assert host.uses() == []

    def test_each_disk_for_itself(self, sda: Host) -> None:
        """One in use, the other with data."""
        sda.disk("sdb", "8:16", below="ata2/host1")
        sda.udev("sdb", ID_FS_TYPE="ext4")
        sda.mount("/dev/sda1", "/mnt", number="8:1")
        assert sda.guards() == ["mounted-disk", "has-data"]


class TestClaimed:
    """A disk that only the kernel knows to be in use; opening it is imitated here and real in tests/kernel."""

    @pytest.mark.parametrize(
        ("answer", "claimed"),
        [(0, False), (errno.EBUSY, True), (errno.ENOMEDIUM, False), (errno.EACCES, False)],
    )
    def test_what_an_exclusive_open_says(
        self, monkeypatch: pytest.MonkeyPatch, answer: int, claimed: bool
    ) -> None:
        asked: list[tuple[str, int]] = []

        def open_(path: str, flags: int) -> int:
            asked.append((path, flags))
            if answer:
                raise OSError(answer, os.strerror(answer), path)
            return os.dup(0)

        def call(work: Callable[[], Any], timeout: float) -> Any:
            assert timeout == disks.PATIENCE
            return work()

        number = os.stat("/dev/null").st_rdev
        monkeypatch.setattr("vfioctl.host.bounded.call", call)
        monkeypatch.setattr(disks, "read", lambda path: f"{os.major(number)}:{os.minor(number)}")
        monkeypatch.setattr(os, "open", open_)
        assert is_claimed("null") is claimed
        ((path, flags),) = asked
        assert (
            path == "/dev/null" and flags & os.O_EXCL and not flags & (os.O_CREAT | os.O_RDWR | os.O_WRONLY)
        )

    def test_a_node_that_is_another_device_is_not_opened(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(disks, "read", lambda path: "8:0")
        assert is_claimed("null") is False

    def test_a_disk_without_a_node(self) -> None:
        assert is_claimed("no-such-disk") is False
