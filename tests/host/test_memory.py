"""Memory of all kinds, and what may be had and locked of it."""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.descriptors import targets
from vfioctl.host import memory
from vfioctl.host.ioctl import CallError
from vfioctl.host.memory import ANONYMOUS, HugePages, Memlock, Source, file_facts, hugepages, make, source

MIB = 1 << 20


def mapping_of(address: int) -> str:
    for line in Path("/proc/self/smaps").read_text().split("VmFlags:"):
        for each in line.splitlines():
            start, _, rest = each.partition("-")
            end = rest.partition(" ")[0]
            try:
                if int(start, 16) <= address < int(end, 16):
                    return line
            except ValueError:
                continue
    return ""


def resident(address: int) -> int:
    fields = [line.split() for line in mapping_of(address).splitlines()]
    return next(int(each[1]) * 1024 for each in fields if each[0] == "Rss:")


KINDS = ("anonymous", "memfd", "file")


def source_of(kind: str, path: Path, size: int = 16 * MIB) -> Source:
    """A source of that kind, whose file is closed at the test's end."""
    if kind != "file":
        return Source(kind)
    with open(path / "file", "wb") as file:
        file.truncate(size)
    fd = os.open(path / "file", os.O_RDWR | os.O_CLOEXEC)
    OPEN.append(fd)
    return Source("file", fd=fd)


OPEN: list[int] = []


@pytest.fixture(autouse=True)
def closed_at_the_end() -> Iterator[None]:
    yield
    while OPEN:
        os.close(OPEN.pop())


@pytest.mark.parametrize("alignment", [mmap.PAGESIZE, 65536, 2 * MIB])
@pytest.mark.parametrize("kind", KINDS)
def test_the_address_is_that_of_the_bytes(kind: str, alignment: int, tmp_path: Path) -> None:
    with make(source_of(kind, tmp_path), 4 * MIB, alignment) as memory:
        assert memory.address % alignment == 0
        memory.write(5, b"proof")
        with open("/proc/self/mem", "rb", buffering=0) as own:
            own.seek(memory.address)
            assert own.read(12) == b"\0" * 5 + b"proof\0\0"
        assert memory.read(4, 7) == b"\0proof\0"
        assert (memory.fd is None) is (kind == "anonymous")


@pytest.mark.parametrize("kind", KINDS)
def test_what_lies_outside_is_refused(kind: str, tmp_path: Path) -> None:
    with make(source_of(kind, tmp_path), 8192, 65536) as memory:
        assert memory.read(8190, 2) == b"\0\0"
        for offset, size in ((-1, 1), (8192, 1), (8191, 2), (0, -1)):
            with pytest.raises(IndexError):
                memory.read(offset, size)
        for offset, data in ((-1, b"x"), (8192, b"x"), (8191, b"xx")):
            with pytest.raises(IndexError):
                memory.write(offset, data)


@pytest.mark.parametrize("kind", KINDS)
def test_prefault_populates_in_steps(kind: str, tmp_path: Path) -> None:
    with make(source_of(kind, tmp_path), 5 * MIB, 2 * MIB) as memory:
        assert resident(memory.address) == 0
        steps = memory.prefault(step=2 * MIB)
        assert next(steps) == 2 * MIB
        assert resident(memory.address) < 5 * MIB
        assert list(steps) == [4 * MIB, 5 * MIB]
        assert resident(memory.address) >= 5 * MIB


def test_prefault_where_the_kernel_cannot_populate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "MADV_POPULATE_WRITE", 9999)
    with make(ANONYMOUS, 5 * MIB) as memory:
        memory.write(0, b"kept")
        assert list(memory.prefault()) == [5 * MIB]
        assert memory.read(0, 4) == b"kept"
        assert resident(memory.address) >= 5 * MIB


@pytest.mark.parametrize("size", [1 << 62, 1 << 63, (1 << 64) - 4096])
@pytest.mark.parametrize("kind", ["anonymous", "memfd"])
def test_no_room(kind: str, size: int) -> None:
    with pytest.raises(CallError) as caught:
        make(Source(kind), size)
    assert (caught.value.call, caught.value.errno) == ("mmap", errno.ENOMEM)
    assert_nothing_open()


def test_what_is_written_is_in_the_file_from_the_offset_on(tmp_path: Path) -> None:
    given = source_of("file", tmp_path, 1 * MIB)
    with make(given._replace(offset=2 * mmap.PAGESIZE), 8192) as memory:
        os.close(OPEN.pop())  # the memory has its own
        memory.write(1, b"proof")
        assert (tmp_path / "file").read_bytes()[2 * mmap.PAGESIZE + 1 :][:5] == b"proof"
    assert_nothing_open()


def test_a_file_that_is_open_for_reading_only(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"proof".ljust(8192))
    with open(tmp_path / "file", "rb") as file, make(Source("file", fd=file.fileno()), 8192) as memory:
        assert memory.read(0, 5) == b"proof"
        assert list(memory.prefault()) == [8192]
        with pytest.raises(CallError) as caught:
            memory.write(0, b"x")
        assert caught.value.call == "write"
    assert (tmp_path / "file").read_bytes()[:5] == b"proof"


def test_a_file_that_becomes_shorter_is_an_error_and_no_signal(tmp_path: Path) -> None:
    with make(source_of("file", tmp_path, 2 * mmap.PAGESIZE), 2 * mmap.PAGESIZE) as memory:
        os.truncate(tmp_path / "file", 10)
        assert memory.read(0, 10) == bytes(10)
        for act in (lambda: memory.read(mmap.PAGESIZE, 1), lambda: memory.write(mmap.PAGESIZE, b"x")):
            with pytest.raises(CallError):
                act()
        with pytest.raises(CallError):
            list(memory.prefault())


def test_what_cannot_be_mapped() -> None:
    receiver, sender = os.pipe()
    with pytest.raises(CallError) as caught:
        make(Source("file", fd=receiver), 4096)
    assert (caught.value.call, caught.value.errno) == ("mmap", errno.ENODEV)
    assert not file_facts(sender).regular
    os.close(receiver)
    os.close(sender)
    assert_nothing_open()


def test_huge_pages_of_a_size_that_no_kernel_has() -> None:
    with pytest.raises(CallError) as caught:
        make(Source("hugepages", 1 << 40), 1 << 40)
    assert caught.value.call == "memfd_create"


def test_facts_of_files(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"proof")
    with open(tmp_path / "file", "rb") as file:
        facts = file_facts(file.fileno())
    assert (facts.regular, facts.size, facts.writable) == (True, 5, False)
    assert facts.file_system is not None
    assert facts.page_size == mmap.PAGESIZE
    with make(Source("memfd"), 8192) as memory:
        assert memory.fd is not None
        assert file_facts(memory.fd) == (True, 8192, True, None, mmap.PAGESIZE)
    with pytest.raises(OSError, match="Bad file descriptor"):
        file_facts(memory.fd)


def assert_nothing_open() -> None:
    """No descriptor of memory is left."""
    assert not [t for t in targets().values() if t.startswith("/memfd:vfioctl") or t == "/proc/self/mem"]


def test_pools_of_huge_pages(tmp_path: Path) -> None:
    top = tmp_path / "sys/kernel/mm/hugepages"
    for name, values in {"2048kB": (8, 5, 2, 1, 4), "1048576kB": (0, 0, 0, 0, 0)}.items():
        (top / f"hugepages-{name}").mkdir(parents=True)
        for key, value in zip(("nr", "free", "resv", "surplus", "nr_overcommit"), values, strict=True):
            (top / f"hugepages-{name}" / f"{key}_hugepages").write_text(f"{value}\n")
    assert hugepages(str(tmp_path)) == {2 * MIB: HugePages(8, 3, 3), 1 << 30: HugePages(0, 0, 0)}
    assert hugepages(str(tmp_path / "missing")) == {}


def proc(path: Path, uid_map: str = "0 0 4294967295") -> str:
    (path / "status").write_text("Name:\tqemu: x\nVmLck:\t    1024 kB\nCapEff:\t0000000000004000\n")
    (path / "uid_map").write_text(f"         {uid_map}\n")
    return str(path)


def test_memlock(tmp_path: Path) -> None:
    found = memory.memlock(proc(tmp_path))
    assert (found.locked, found.cap_ipc_lock) == (MIB, True)
    assert memory.memlock().locked >= 0


def test_what_is_charged(tmp_path: Path) -> None:
    for pid, uid, pinned in (("10", 1000, 8), ("11", 1000, 4), ("12", 1001, 2), ("13", 1000, None)):
        (tmp_path / pid).mkdir()
        pin = "" if pinned is None else f"VmPin:\t      {pinned} kB\n"
        (tmp_path / pid / "status").write_text(f"Name:\tx\nUid:\t{uid}\t0\t0\t0\nVmLck:\t  16 kB\n{pin}")
    (tmp_path / "14").mkdir()
    (tmp_path / "self").mkdir()
    proc = str(tmp_path)
    assert memory.charged(10, proc) == (1000, 16384, 8192)
    assert memory.charged(13, proc) == (1000, 16384, 0)
    assert [memory.pinned_by(uid, proc) for uid in (1000, 1001, 1002)] == [12288, 2048, 0]
    with pytest.raises(ProcessLookupError):
        memory.charged(14, proc)


def test_a_capability_in_a_container_does_not_count(tmp_path: Path) -> None:
    assert not memory.memlock(proc(tmp_path, "0 100000 65536")).cap_ipc_lock


@pytest.mark.parametrize(
    ("limit", "locked", "capable", "size", "allowed"),
    [
        (100, 40, False, 60, True),
        (100, 40, False, 61, False),
        (100, 40, True, 61, True),
        (None, 40, False, 1 << 60, True),
    ],
)
def test_allows(limit: int | None, locked: int, capable: bool, size: int, allowed: bool) -> None:
    assert Memlock(limit, locked, capable).allows(size) is allowed


def test_available(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 8 kB\nMemAvailable:   4 kB\n")
    assert memory.available(str(tmp_path / "meminfo")) == 4096
    assert memory.available(str(tmp_path / "missing")) is None
