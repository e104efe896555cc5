"""Memory of every kind in an open container: mapped, written, read back, moved by a device, unmapped; and refusals."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.edu.edu import Edu
from tests.kernel.guest.conftest import Vfioctl
from tests.kernel.guest.sysfs import group_of
from vfioctl.host.machine import Machine
from vfioctl.ops.keeper import named

MIB = 1 << 20
PAGE = 4096
NAME = "memory"
POOL = Path("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")
LIMIT = Path("/sys/module/vfio_iommu_type1/parameters/dma_entry_limit")
#: The device reaches the first 256 MiB only.
TARGET = 0x8000000


@pytest.fixture(scope="module")
def group(vfioctl: Vfioctl, roles: Mapping[str, str]) -> Iterator[int]:
    assert vfioctl("bind", roles["edu"]).status == 0
    yield group_of(roles["edu"])
    assert vfioctl("unbind", roles["edu"]).status == 0


@pytest.fixture
def container(vfioctl: Vfioctl, group: int) -> Iterator[str]:
    opened = vfioctl("container", "open", NAME, group)
    assert opened.status == 0, opened.stderr
    yield NAME
    assert vfioctl("container", "close", NAME).status == 0


@pytest.fixture
def per_user(machine: str) -> bool:
    """Whether iommufd is what containers are made of."""
    return "iommufd" in machine


@pytest.fixture
def huge_pages() -> Iterator[int]:
    Path("/proc/sys/vm/compact_memory").write_text("1")  # other tests have left it scattered
    POOL.write_text("4")
    yield int(POOL.read_text())
    POOL.write_text("0")


def mapped(vfioctl: Vfioctl, *arguments: object) -> dict[str, int]:
    result = vfioctl("map", "-c", NAME, *arguments, "-J")
    assert result.status == 0, result.stderr
    (mapping,) = result.json["mappings"]
    return dict(mapping)


def refused(vfioctl: Vfioctl, *arguments: object, **setting: Any) -> tuple[int, str, str]:
    """Status, code and all the words of an error."""
    result = vfioctl(*arguments, "-J", **setting)
    error = result.json_error
    return result.status, error["code"], f"{error['message']}; {error['hint']}"


def moved_by_the_device(address: str, source: int, destination: int, size: int) -> None:
    """Real DMA by edu, in a container that is open."""
    with named.connected(Machine(), NAME) as client:
        fd = client.open_device(address)
        try:
            Edu(fd).dma_copy(source, destination, size)
        finally:
            os.close(fd)


#: With iommufd, too, whose rules of charging and unmapping are others.
ALL_BACKENDS = pytest.mark.kernels("6.1", "7.2", "7.2-iommufd")


@pytest.mark.deadline(600)
@ALL_BACKENDS
def test_memory_of_every_kind(
    vfioctl: Vfioctl,
    roles: Mapping[str, str],
    container: str,
    huge_pages: int,
    tmp_path: Path,
    per_user: bool,
) -> None:
    assert huge_pages == 4
    shared = Path("/dev/shm/vfioctl-memory")
    shared.write_bytes(bytes(2 * PAGE))
    target = mapped(vfioctl, "--iova", hex(TARGET), "--size", "64K")
    kinds = {
        "anonymous": ["--size", "64K"],
        "chunks": ["--size", "64K", "--chunk", "4K"],
        "memfd": ["--source", "memfd", "--size", "64K"],
        "hugepages": ["--source", "hugepages-2M", "--size", "4M"],
        "file": ["--file", str(shared)],
    }
    charged = target["size"]
    for kind, arguments in kinds.items():
        made = mapped(vfioctl, *arguments)
        charged += made["size"]
        data = os.urandom(2 * PAGE - 5)
        given = tmp_path / kind
        given.write_bytes(data)
        assert (
            vfioctl("memory", "write", "-c", NAME, "--iova", hex(made["iova"] + 3), "--input", given).status
            == 0
        )
        back = tmp_path / "back"
        read = ["memory", "read", "-c", NAME, "--size", len(data), "--output", back, "--iova"]
        assert vfioctl(*read, hex(made["iova"] + 3)).status == 0
        assert back.read_bytes() == data, kind
        moved_by_the_device(roles["edu"], made["iova"], TARGET, 2 * PAGE)
        assert vfioctl(*read, hex(TARGET + 3)).status == 0
        assert back.read_bytes() == data, f"{kind}, moved by the device"
    assert shared.read_bytes()[3 : 3 + len(data)] == data
    # Into the file: what a device writes is there for everybody.
    shared_at = made["iova"]
    given.write_bytes(b"from the device")
    assert vfioctl("memory", "write", "-c", NAME, "--iova", hex(TARGET), "--input", given).status == 0
    moved_by_the_device(roles["edu"], TARGET, shared_at, PAGE)
    assert shared.read_bytes().startswith(b"from the device")

    listed = vfioctl("memory", "list", "-c", NAME, "-J").json
    assert [m["source"] for m in listed["mappings"]].count("hugepages-2M") == 1
    assert [m["chunk"] for m in listed["mappings"] if m["chunk"]] == [PAGE]
    assert listed["backend"] == ("iommufd" if per_user else "type1v2")
    assert listed["charged"] == {
        "accounting": "user" if per_user else "process",
        "locked": 0 if per_user else charged,
        "pinned": charged if per_user else 0,
        "user_pinned": charged if per_user else None,
        "limit": None,
    }
    told = vfioctl("memory", "list", "-c", NAME)
    assert f"{charged // 1024}K {'pinned' if per_user else 'locked'}" in told.stderr
    assert "memfd" in told.stdout

    everything = vfioctl("unmap", "-c", NAME, "--all", "-J").json
    assert (everything["unmapped"], everything["changed"]) == (charged, True)
    listed = vfioctl("memory", "list", "-c", NAME, "-J").json
    assert (listed["mappings"], listed["charged"]["locked"], listed["charged"]["pinned"]) == ([], 0, 0)
    assert vfioctl("unmap", "-c", NAME, "--all", "-J").json["changed"] is False
    # Its pages are back in the pool.
    assert Path(POOL.parent, "free_hugepages").read_text().strip() == "4"
    shared.unlink()


def test_fill_and_raw_bytes(vfioctl: Vfioctl, container: str, tmp_path: Path) -> None:
    data = os.urandom(3 * PAGE + 17)
    (tmp_path / "data").write_bytes(data)
    made = mapped(vfioctl, "--fill", tmp_path / "data", "--iova", "0x100000")
    assert made["size"] == 4 * PAGE
    script = f"vfioctl memory read -c {NAME} --iova 100000 --size {len(data)} | cmp - {tmp_path / 'data'}"
    subprocess.run(["sh", "-ec", script], check=True)
    dump = vfioctl(
        "memory", "read", "-c", NAME, "--iova", "0x100000", "--size", "20", "--hex"
    ).stdout.splitlines()
    assert dump[0].startswith(f"00100000  {data[:8].hex(' ')}  {data[8:16].hex(' ')}  |")
    assert dump[1].startswith(f"00100010  {data[16:20].hex(' ')} ")
    typed = vfioctl("map", "-c", NAME, "--size", "4K", "--iova", "0x200000", "--fill", "-", stdin="hello")
    assert typed.status == 0, typed.stderr
    assert vfioctl("memory", "read", "-c", NAME, "--iova", "200000", "--size", "6").stdout == "hello\0"
    # Raw bytes are kept from a terminal.
    shown = vfioctl("memory", "read", "-c", NAME, "--iova", "100000", "--size", "64", tty=True)
    assert shown.status == 2 and "--hex" in shown.stdout
    # A filling that does not fit leaves nothing.
    arguments = ("map", "-c", NAME, "--size", "4K", "--iova", "0x300000", "--fill", tmp_path / "data")
    assert refused(vfioctl, *arguments)[0] == 2
    assert len(vfioctl("memory", "list", "-c", NAME, "-J").json["mappings"]) == 2
    for words in (("read", "--size", "8K"), ("write", "--input", tmp_path / "data")):
        lost = vfioctl("memory", words[0], "-c", NAME, "--iova", "200000", *words[1:])
        assert lost.status == 3 and "nothing is mapped at IOVA 0x201000" in lost.stderr


@ALL_BACKENDS
def test_what_is_unmapped_in_part_or_not_mapped(vfioctl: Vfioctl, container: str) -> None:
    mapped(vfioctl, "--iova", "0x100000", "--size", "1M", "--chunk", "64K")
    status, code, words = refused(vfioctl, "unmap", "-c", NAME, "--iova", "0x100000", "--size", "4K")
    assert (status, code) == (2, "mapping-cut")
    assert "--iova 0x100000 --size 65536" in words
    assert refused(vfioctl, "unmap", "-c", NAME, "--iova", "0x900000")[:2] == (3, "not-mapped")
    assert vfioctl("unmap", "-c", NAME, "--iova", "0x120000", "-J").json["unmapped"] == 64 << 10
    part = vfioctl("unmap", "-c", NAME, "--iova", "0x130000", "--size", "64K", "-J")
    assert part.json["unmapped"] == 64 << 10
    runs = vfioctl("memory", "list", "-c", NAME, "-n", "-o", "iova,size,entries").stdout.splitlines()
    assert runs == [f"0x100000 {128 << 10} 2", f"0x140000 {768 << 10} 12"]
    assert mapped(vfioctl, "--iova", "0x120000", "--size", "128K")["size"] == 128 << 10
    status, code, words = refused(vfioctl, "map", "-c", NAME, "--iova", "0x110000", "--size", "4K")
    assert (status, code) == (2, "mapping-overlap")
    assert "0x100000-0x11ffff" in words


def test_a_list_is_mapped_as_a_whole_or_not_at_all(vfioctl: Vfioctl, container: str, tmp_path: Path) -> None:
    text = tmp_path / "list"
    text.write_text("# guest memory\n0x100000 64K rw\n- 2M r memfd\n\n0xfee00000 4K\n0x100000 4K\n0 5000\n")
    status, code, words = refused(vfioctl, "map", "-c", NAME, "--list", text)
    assert (status, code) == (2, "iova-reserved")
    assert words.startswith("line 5: ") and "3 more problems" in words
    plan = vfioctl("map", "-c", NAME, "--list", text, "--plan", "-J")
    assert plan.status == 1
    assert plan.json["possible"] is False
    assert [(p["line"], p["code"]) for p in plan.json["problems"]] == [
        (5, "iova-reserved"),
        (5, "iova-out-of-range"),
        (6, "mapping-overlap"),
        (7, "size-misaligned"),
    ]
    assert vfioctl("memory", "list", "-c", NAME, "-J").json["mappings"] == []
    text.write_text('0x100000 64K\n{"size": "2M", "prot": "r", "source": "memfd"}\n')
    plan = vfioctl("map", "-c", NAME, "--list", text, "--plan", "-J")
    assert (plan.status, plan.json["possible"], plan.json["problems"]) == (0, True, [])
    done = vfioctl("map", "-c", NAME, "--list", "-", "-J", stdin=text.read_text())
    places = [(m["iova"], m["size"], m["prot"], m["source"]) for m in plan.json["mappings"]]
    assert [(m["iova"], m["size"], m["prot"], m["source"]) for m in done.json["mappings"]] == places
    text.write_text("0x100000 64K rw\n0 4K what\n")
    status, code, words = refused(vfioctl, "map", "-c", NAME, "--list", text)
    assert (status, code) == (2, "list-invalid") and words.startswith("line 2: 'what' is no protection")


def test_huge_pages_that_are_not_there(vfioctl: Vfioctl, container: str, huge_pages: int) -> None:
    status, code, words = refused(vfioctl, "map", "-c", NAME, "--source", "hugepages-2M", "--size", "10M")
    assert (status, code) == (7, "no-huge-pages")
    assert "echo 5 > /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages" in words
    status, code, words = refused(vfioctl, "map", "-c", NAME, "--source", "hugepages-1G", "--size", "1G")
    has = Path("/sys/kernel/mm/hugepages/hugepages-1048576kB").is_dir()
    assert (status, code) == (7, "no-huge-pages" if has else "no-such-huge-pages")
    assert ("hugepagesz=1G hugepages=1" if has else "pdpe1gb") in words
    status, code, words = refused(vfioctl, "map", "-c", NAME, "--source", "hugepages-4M", "--size", "4M")
    assert (status, code) == (7, "no-such-huge-pages") and "hugepages-2M" in words


def test_files_that_cannot_be_mapped(vfioctl: Vfioctl, container: str, kernel: str) -> None:
    """The disk's file system needs to know who writes: from 6.5 on its pages are not pinned for writing."""
    file = Path("/mnt/disk/memory")
    file.write_bytes(b"on disk".ljust(PAGE))
    plan = vfioctl("map", "-c", NAME, "--file", file, "--plan", "-J").json
    assert plan["possible"] is True
    (caution,) = plan["cautions"]
    assert "Linux 6.5" in caution
    if kernel.startswith("6.1."):
        mapped(vfioctl, "--file", file, "--iova", "0x100000")
    else:
        status, code, words = refused(vfioctl, "map", "-c", NAME, "--file", file)
        assert (status, code) == (7, "memory-not-pinnable")
        assert "tmpfs" in words and "it is on ext" in words
    reading = mapped(vfioctl, "--file", file, "--prot", "r")
    at = hex(reading["iova"])
    assert vfioctl("memory", "read", "-c", NAME, "--iova", at, "--size", "7").stdout == "on disk"
    assert refused(vfioctl, "map", "-c", NAME, "--file", file, "--size", "8K")[1] == "file-too-short"
    assert (
        refused(vfioctl, "map", "-c", NAME, "--file", file, "--file-offset", "5")[1]
        == "file-offset-misaligned"
    )
    assert (
        refused(vfioctl, "map", "-c", NAME, "--file", "/dev/null", "--size", "4K")[1] == "file-not-mappable"
    )
    assert refused(vfioctl, "map", "-c", NAME, "--file", "/none")[:2] == (2, "file")
    # The keeper outlives a file that becomes shorter under it.
    file.write_bytes(b"")
    assert vfioctl("memory", "read", "-c", NAME, "--iova", at, "--size", "7").status == 7
    assert vfioctl("unmap", "-c", NAME, "--iova", at).status == 0


@ALL_BACKENDS
def test_the_limit_of_locked_memory(vfioctl: Vfioctl, group: int, tmp_path: Path, per_user: bool) -> None:
    """Of an unprivileged user whose keeper has the limit of the shell that opened the container."""
    user = Vfioctl.unprivileged
    assert vfioctl("permit", group, "--user", user[0]).status == 0
    if per_user:
        os.chmod("/dev/iommu", 0o666)
    os.chown(tmp_path, *user)
    os.chmod(tmp_path, 0o700)
    as_user: dict[str, Any] = {"user": user, "env": {"XDG_RUNTIME_DIR": str(tmp_path)}, "memlock": MIB}
    for parent in tmp_path.parents:
        if parent != Path("/") and not parent.stat().st_mode & 0o001:
            os.chmod(parent, parent.stat().st_mode | 0o011)
    try:
        opened = vfioctl("container", "open", "own", group, "-J", **as_user)
        assert opened.status == 0, opened.stderr
        (record,) = opened.json["containers"]
        keeper = record["pid"]
        assert record["backend"] == ("iommufd" if per_user else "type1v2")
        first = vfioctl("map", "-c", "own", "--size", "512K", "-J", **as_user)
        assert first.status == 0, first.stderr
        plan = vfioctl("map", "-c", "own", "--size", "1M", "--plan", "-J", **as_user)
        assert plan.status == 1
        assert [problem["code"] for problem in plan.json["problems"]] == ["memlock"]
        assert plan.json["memlock"]["locked"] == MIB // 2
        assert plan.json["memlock"]["limit"] == MIB
        status, code, words = refused(vfioctl, "map", "-c", "own", "--size", "1M", **as_user)
        assert (status, code) == (7, "memlock")
        assert ("the processes of this user together" if per_user else f"process {keeper} may not") in words
        assert f"prlimit --pid {keeper} --memlock={MIB * 3 // 2}" in words
        assert "ENOMEM" in vfioctl("map", "-c", "own", "--size", "1M", **as_user).stderr
        # The advice is good.
        subprocess.run(["prlimit", "--pid", str(keeper), f"--memlock={MIB * 3 // 2}"], check=True)
        assert vfioctl("map", "-c", "own", "--size", "1M", **as_user).status == 0
        advice = vfioctl("map", "-c", "own", "--size", "8M", "--plan", "--user", "root", "-J", **as_user).json
        assert advice["memlock"]["needed"] == 8 * MIB
        assert any("root - memlock 8192" in line for line in advice["memlock"]["advice"])
    finally:
        assert vfioctl("container", "close", "own", **as_user).status == 0
        if per_user:
            os.chmod("/dev/iommu", 0o600)
        assert vfioctl("revoke", group).status == 0


@pytest.mark.deadline(600)
def test_entries_run_out(vfioctl: Vfioctl, group: int) -> None:
    before = LIMIT.read_text()
    LIMIT.write_text("64")
    try:
        assert vfioctl("container", "open", NAME, group).status == 0
        mapped(vfioctl, "--size", "200K", "--chunk", "4K")
        status, code, words = refused(vfioctl, "map", "-c", NAME, "--size", "64K", "--chunk", "4K")
        assert (status, code) == (7, "no-entries-left")
        assert "16 mappings are wanted and the IOMMU driver allows 14 more" in words
        assert "dma_entry_limit" in words
        assert mapped(vfioctl, "--size", "56K", "--chunk", "4K")["chunk"] == PAGE
        plan = vfioctl("map", "-c", NAME, "--size", "4K", "--plan", "-J").json
        assert plan["entries"] == {"needed": 1, "left": 0}
        assert vfioctl("container", "close", NAME).status == 0
    finally:
        LIMIT.write_text(before)
