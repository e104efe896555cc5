"""vfioctl snapshot, and every looking command on what it wrote."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.looking import answers, command_lines
from tests.fakes.command import Result, run_command
from tests.fakes.topology import ROLES, boot
from tests.fakes.uses import A, B, Host
from vfioctl.host.archive import Entry, Kind, pack, unpack
from vfioctl.host.archive.streams import zstd
from vfioctl.host.holders import Found, Holder
from vfioctl.host.reader import RECORD
from vfioctl.host.recorded import Recorded, to_json
from vfioctl.model import LockLimit, Node

SUBJECTS = ("5", A, B, "eth0", "sda", "99", "no-such", "mdev/83b8f4f2-509f-382f-3c1e-e6bfe0fa1001")
UUID = "83b8f4f2-509f-382f-3c1e-e6bfe0fa1001"


def record(**changes: Any) -> Recorded:
    """What a host has told that has somebody holding A, and a claimed disk."""
    holder = Holder(
        4711, "qemu-alice", 1000, user="alice", unit="machine-qemu-1-win.scope", container="vm:win",
        address=A, node="/dev/vfio/5", kind="vfio",
    )  # fmt: skip
    known = Recorded(
        version="1", euid=0, byteorder=sys.byteorder, time=1000, redacted=False,
        nodes={"/dev/vfio/5": Node("/dev/vfio/5", 1000, 36, 0o640)},
        holders=Found((holder, holder._replace(address=B, kind="block", node="/dev/sdb")), 2),
        connections=(("203.0.113.9", "192.0.2.1"),), addresses={"eth0": "192.0.2.1"}, claimed=frozenset({"sdc"}),
        api_version=0, extensions={"VFIO_TYPE1_IOMMU": True, "VFIO_SPAPR_TCE_IOMMU": None},
        names={}, lock=LockLimit("uid 0", 1 << 20, None, "/proc/self/limits", "Max locked memory 1048576", 4096),
    )  # fmt: skip
    return known._replace(**changes)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """Two controllers and what the host uses them for, with a record of what no file tells."""
    host = Host(str(tmp_path / "host"))
    for address, disk, number in ((A, "sda", "8:0"), (B, "sdb", "8:16")):
        host.bind("pci", address, "ahci")
        host.disk(disk, number, address)
    host.disk("sdc", "8:32", B, below="ata2/host1")
    host.partition("sda", "sda1", "8:1")
    host.dm("dm-0", "253:0", "alicebox--vg-root", "sda1")
    host.mount("/dev/mapper/alicebox--vg-root", "/home/alice/My\\040Disk", number="0:77")
    host.mount("192.0.2.77:/export", "/srv/nfs", type_="nfs4", number="0:78", options="rw,addr=192.0.2.77")
    host.swap("/dev/sdb")
    host.udev("sdc", ID_FS_TYPE="ext4", ID_SERIAL="S3R1AL", ID_FS_LABEL="alices-backup")
    host.interface("eth0", A)
    host.interface("bond0", None, kind="bond")
    host.stack("eth0", "bond0", master=True)
    host.route("eth0", "192.0.2.0/24")
    host.route("eth0", gateway=True)
    host.address6("eth0", "20010db8000000000000000000000042")
    host.local4("192.0.2.1")
    host.keyboard(f"{host.homes['pci', B]}/usb1/input/input1")
    host.put("/proc/cmdline", f"root=UUID={UUID} intel_iommu=on quiet ip=192.0.2.1 hostname=alicebox\n")
    host.put("/run/libvirt/qemu/win.xml", DOMAIN)
    host.put("/run/qemu-server/pci-id-reservations", f"{B} 100 time:2000\n{A} 101 time:999\n")
    host.put(f"/etc/driverctl.d/pci-{B}", "vfio-pci\n")
    host.put(f"{host.homes['pci', A]}/config", config())
    host.put("/dev/vfio/5", "")
    display = f"{host.homes['pci', B]}/graphics/fb0"
    host.put(f"{display}/name", "simple\n")
    host.link(f"{display}/device", host.homes["pci", B])
    host.link("/sys/class/graphics/fb0", display)
    host.put("/sys/devices/virtual/vtconsole/vtcon1/name", "(M) frame buffer device\n")
    host.put("/sys/devices/virtual/vtconsole/vtcon1/bind", "1\n")
    host.link("/sys/class/vtconsole/vtcon1", "/sys/devices/virtual/vtconsole/vtcon1")
    host.link(f"/sys/fs/btrfs/{UUID}/devices/sdc", f"{host.homes['pci', B]}/ata2/host1/block/sdc")
    host.put(f"/{RECORD}", to_json(record()).decode())
    return host


DOMAIN = f"""<domstatus><domain type='kvm'><uuid>{UUID}</uuid><devices><graphics type='vnc' passwd='s3cret'/>
<hostdev><source><address domain='0x0000' bus='0x00' slot='0x05' function='0x0'/></source></hostdev></devices></domain>
</domstatus>"""


def config() -> bytes:
    """4096 bytes of configuration space with a serial number at 0x140, behind another capability."""
    data = bytearray(4096)
    data[0x100:0x104] = (0x14010001).to_bytes(4, "little")
    data[0x140:0x144] = (0x00010003).to_bytes(4, "little")
    data[0x144:0x14C] = bytes.fromhex("efbeadde00c0ffee")
    return bytes(data)


def snapshot(root: str | None, target: Path, *options: str) -> Result:
    where = () if root is None else ("--root", root)
    result = run_command(None, *where, "snapshot", "-o", target, *options)
    assert result.status == 0, result.stderr
    return result


def on(root: object) -> Callable[..., Result]:
    return lambda *line: run_command(None, "--root", root, *line)


@pytest.mark.parametrize("suffix", ["tar.gz", "tar.zst"])
def test_the_same_answers(host: Host, tmp_path: Path, suffix: str) -> None:
    if suffix == "tar.zst" and zstd() is None:
        pytest.skip("zstd is not installed")
    target = tmp_path / f"s.{suffix}"
    snapshot(host.root, target, "--no-redact")
    lines = list(command_lines(SUBJECTS))
    before = answers(on(host.root), lines)
    assert {status for status, _ in before.values()} >= {0, 1, 2, 3}
    directory = tmp_path / "unpacked"
    directory.mkdir()
    unpack(str(target), str(directory), 60)
    assert answers(on(directory), lines) == before
    some = lines[::9]
    assert answers(on(target), some) == {line: before[line] for line in map(" ".join, some)}


def test_a_whole_topology(tmp_path: Path) -> None:
    kernel = boot(str(tmp_path / "host"))
    kernel.load_module("vfio-pci")
    target = tmp_path / "s.tar.gz"
    snapshot(kernel.tree.root, target, "--no-redact")
    directory = tmp_path / "unpacked"
    directory.mkdir()
    unpack(str(target), str(directory), 60)
    lines = list(command_lines((ROLES["nic_a"], "14")))
    assert answers(on(directory), lines) == answers(on(kernel.tree.root), lines)


def test_what_changes_a_host_names_the_archive_it_was_given(host: Host, tmp_path: Path) -> None:
    target = tmp_path / "s.tar.gz"
    snapshot(host.root, target)
    for command in ("bind", "unbind"):
        refused = run_command(None, "--root", target, command, A, "-J")
        assert (refused.status, refused.json_error["subject"]) == (2, str(target))
        assert "running host only" in refused.stderr


def test_a_directory_is_as_good_as_the_archive(host: Host, tmp_path: Path) -> None:
    target = tmp_path / "s.tar.gz"
    snapshot(host.root, target, "--no-redact")
    directory = tmp_path / "unpacked"
    directory.mkdir()
    subprocess.run(["tar", "-xzf", target, "-C", directory], check=True)
    again = tmp_path / "again.tar.gz"
    snapshot(str(directory), again, "--no-redact")
    assert again.read_bytes() == target.read_bytes()


def test_secrets_are_gone_and_the_findings_stay(host: Host, tmp_path: Path) -> None:
    target = tmp_path / "s.tar.gz"
    result = snapshot(host.root, target, "-J")
    with tarfile.open(target) as archive:
        everything = "\n".join(
            f"{member.name} {member.linkname} "
            + (archive.extractfile(member) or sys.exit()).read().decode("latin-1")
            if member.isreg()
            else f"{member.name} {member.linkname}"
            for member in archive
        )
    for secret in (
        "alice", UUID, "192.0.2.1", "192.0.2.77", "203.0.113.9", "S3R1AL", "s3cret", "backup", "My", "win",
        bytes.fromhex("efbeadde00c0ffee").decode("latin-1"), "020000C0", "20010db8", "2001:db8",
    ):  # fmt: skip
        assert secret not in everything, secret
    counts = result.json["redacted"]
    assert set(counts) == {"address", "name", "serial", "user", "uuid"}
    assert "look through it" in result.stderr

    def guards(root: object) -> list[tuple[str, str, str]]:
        document = run_command(None, "--root", root, "impact", A, B, "-J").json
        return [
            (r["address"], use["guard"], use["level"]) for r in document["results"] for use in r["impacts"]
        ]

    found = guards(host.root)
    assert {guard for _, guard, _ in found} >= {
        "mounted-disk", "swap", "disk-in-use", "default-route", "ssh-session", "address", "network-master",
        "last-keyboard", "libvirt", "console", "proxmox", "held", "unseen",
    }  # fmt: skip
    assert guards(target) == found
    for line in (
        ("list-groups", "-J"),
        ("list-devices", "-J"),
        ("show", A, "-J"),
        ("check-viable", "5", "-J"),
    ):
        assert (
            run_command(None, "--root", target, *line).stdout
            == run_command(None, "--root", host.root, *line).stdout
        )
    (holder, *_) = run_command(None, "--root", target, "holders", A, "-J").json["holders"]
    assert (holder["pid"], holder["uid"], holder["user"][:5]) == (4711, 1000, "user-")


def test_redacting_what_was_not(host: Host, tmp_path: Path) -> None:
    private, public = tmp_path / "private.tgz", tmp_path / "public.tgz"
    snapshot(host.root, private, "--no-redact")
    snapshot(str(private), public)
    assert run_command(None, "--root", public, "list-groups", "-J").status == 0
    assert b"S3R1AL" not in public.read_bytes()


def test_absent_empty_and_forbidden_are_three_answers(host: Host, tmp_path: Path) -> None:
    """A mark of an unpacked snapshot is kept by the next."""
    path = host.at("/sys/kernel/iommu_groups/5/type")
    os.unlink(path)
    os.symlink("type", path)
    os.unlink(host.at("/sys/kernel/iommu_groups/6/type"))
    host.put("/sys/kernel/iommu_groups/6/reserved_regions", "")
    target = tmp_path / "s.tar.gz"
    result = snapshot(host.root, target, "-J")
    assert result.json["forbidden"] == ["/sys/kernel/iommu_groups/5/type"]
    for root in (host.root, target):
        refused = run_command(None, "--root", root, "list-groups", "-J")
        assert (refused.status, refused.json_error["errno"]) == (4, "EACCES")
        assert "forbidden to whoever took the snapshot" in refused.json_error["message"]
    os.unlink(path)
    other = run_command(None, "--root", target, "show", B, "-J")
    assert other.status == 4


def test_the_document(host: Host, tmp_path: Path) -> None:
    target = tmp_path / "s.tar.gz"
    document = snapshot(host.root, target, "-J", "--no-redact").json
    assert document == {
        "schema_version": 1,
        "path": str(target),
        "files": len(tarfile.open(target).getmembers()),  # noqa: SIM115
        "bytes": target.stat().st_size,
        "redacted": None,
        "forbidden": [],
        "silent": [],
    }
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["host", "s.tar.gz"] or set(os.listdir(tmp_path)) == {"host", "s.tar.gz"}


def test_nothing_is_replaced_unasked(host: Host, tmp_path: Path) -> None:
    target = tmp_path / "s.tar.gz"
    target.write_text("mine")
    command = ("--root", host.root, "snapshot", "-J", "-o", target)
    refused = run_command(None, *command)
    assert (refused.status, refused.json_error["code"], target.read_text()) == (2, "exists", "mine")
    target.unlink()
    (tmp_path / "victim").write_text("theirs")
    target.symlink_to("victim")
    assert run_command(None, *command).json_error["code"] == "exists"
    assert run_command(None, *command, "--overwrite").status == 0
    assert not target.is_symlink() and (tmp_path / "victim").read_text() == "theirs"
    target.unlink()
    target.mkdir()
    assert run_command(None, *command, "--overwrite").json_error["code"] == "exists"


def test_where_it_cannot_be_written(host: Host, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    for target, status, code in (
        (shared / "s.tar.gz", 2, "unsafe-directory"),
        (tmp_path / "s.zip", 2, "usage"),
        (tmp_path / "no" / "s.tar.gz", 7, "system"),
    ):
        refused = run_command(None, "--root", host.root, "snapshot", "-J", "-o", target)
        assert (refused.status, refused.json_error["code"]) == (status, code)
        assert refused.stdout == ""
    shared.chmod(0o1777)
    snapshot(host.root, shared / "s.tar.gz")


def vfioctl(*arguments: object, **more: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "vfioctl", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2]), **more.pop("env", {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **more,
    )


def test_stdout(host: Host, tmp_path: Path) -> None:
    with vfioctl("--root", host.root, "snapshot", "--no-redact", "-o", "-") as child:
        out, _ = child.communicate(timeout=60)
    snapshot(host.root, tmp_path / "s.tar.gz", "--no-redact")
    assert (child.returncode, out) == (0, (tmp_path / "s.tar.gz").read_bytes())
    refused = run_command(None, "--root", host.root, "snapshot", "-o", "-", "-J")
    assert (refused.status, refused.stdout) == (2, "")


def test_an_archive_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "hello").write_text("hello")
    for names in ((), ("hello",)):
        with tarfile.open(tmp_path / "other.tar.gz", "w:gz") as archive:
            for name in names:
                archive.add(tmp_path / name, name)
        result = run_command(None, "--root", tmp_path / "other.tar.gz", "tree", "-J")
        assert (result.status, result.json_error["code"]) == (2, "archive")
        assert "of no snapshot" in result.json_error["message"]


def test_what_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no archive " * 100)
    (tmp_path / "empty").touch()
    os.mkfifo(tmp_path / "fifo")
    for name, code in (("text", "archive"), ("empty", "archive"), ("fifo", "usage"), ("none", "usage")):
        refused = run_command(None, "--root", tmp_path / name, "list-groups", "-J")
        assert (refused.status, refused.json_error["code"], refused.stdout) == (2, code, ""), name
        assert refused.json_error["subject"] == str(tmp_path / name)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, None])
def test_nothing_is_left_behind(tmp_path: Path, number: signal.Signals | None) -> None:
    """One that takes a while to unpack, or none."""
    scratch, target = tmp_path / "scratch", tmp_path / "s.tar.gz"
    scratch.mkdir()
    members = 10 if number is None else 20000
    target.write_bytes(pack([Entry(f"sys/a{index}", Kind.FILE) for index in range(members)], "gzip", 60))
    with vfioctl("--root", target, "list-groups", env={"TMPDIR": str(scratch)}) as child:
        until = time.monotonic() + 60
        while number is not None and not list(scratch.glob("*/sys")):
            assert time.monotonic() < until and child.poll() is None
            time.sleep(0.01)
        if number is not None:
            (directory,) = scratch.iterdir()
            assert stat.S_IMODE(directory.stat().st_mode) == 0o700
            child.send_signal(number)
        child.communicate(timeout=60)
    assert list(scratch.iterdir()) == []
    assert child.returncode in ({-number, 130} if number is not None else {0})


@pytest.mark.parametrize(
    "change",
    [
        "",
        "[]",
        "[" * 100000,
        {"snapshot_version": 2},
        {"nodes": {"/dev/vfio/5": [0, 0, "0600"]}},
        {"nodes": {"/dev/vfio/5": [0, 0]}},
        {"holders": [{}]},
        {"holders": {}},
        {"unseen": "many"},
        {"euid": True},
        {"byteorder": "middle"},
        {"extensions": {"VFIO_TYPE1_IOMMU": 1}},
        {"names": {"pci:": {"ID": 1}}},
        {"connections": [["a"]]},
        {"time": 1.5},
    ],
)
def test_a_hostile_record(host: Host, change: Any) -> None:
    document = json.loads(Path(host.at(f"/{RECORD}")).read_text())
    host.put(f"/{RECORD}", change if isinstance(change, str) else json.dumps({**document, **change}))
    refused = run_command(None, "--root", host.root, "holders", "-J")
    assert (refused.status, refused.json_error["code"], refused.stdout) == (2, "archive", "")
    assert run_command(None, "--root", host.root, "impact", A, "-J").status == 2


def test_text_of_a_record_is_fit_to_be_shown(host: Host) -> None:
    document = json.loads(Path(host.at(f"/{RECORD}")).read_text())
    document["holders"][0]["command"] = "\x1b[31m\n"
    host.put(f"/{RECORD}", json.dumps(document))
    (holder, *_) = run_command(None, "--root", host.root, "holders", A, "-J").json["holders"]
    assert holder["command"] == "\\x1b[31m\\n"
