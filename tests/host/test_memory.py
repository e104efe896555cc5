"""Buffers, and what may be locked."""

from __future__ import annotations

import errno
import mmap
from pathlib import Path

import pytest

from vfioctl.host import memory
from vfioctl.host.ioctl import CallError
from vfioctl.host.memory import Buffer, Memlock

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


@pytest.mark.parametrize("alignment", [mmap.PAGESIZE, 65536, 2 * MIB])
def test_the_address_is_that_of_the_bytes(alignment: int) -> None:
    with Buffer(4 * MIB, alignment) as buffer:
        assert buffer.address % alignment == 0
        buffer.write(5, b"proof")
        with open("/proc/self/mem", "rb", buffering=0) as own:
            own.seek(buffer.address)
            assert own.read(12) == b"\0" * 5 + b"proof\0\0"


def test_what_lies_outside_is_refused() -> None:
    with Buffer(8192, 65536) as buffer:
        assert buffer.read(8190, 2) == b"\0\0"
        for offset, size in ((-1, 1), (8192, 1), (8191, 2)):
            with pytest.raises(IndexError):
                buffer.read(offset, size)
            with pytest.raises(IndexError):
                buffer.write(offset, b"x" * size)


def test_prefault_populates_in_steps() -> None:
    done: list[int] = []
    with Buffer(5 * MIB, 2 * MIB) as buffer:
        assert resident(buffer.address) == 0
        buffer.prefault(done.append, step=2 * MIB)
        assert done == [2 * MIB, 4 * MIB, 5 * MIB]
        assert resident(buffer.address) >= 5 * MIB


def test_prefault_where_the_kernel_cannot_populate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "MADV_POPULATE_WRITE", 9999)
    with Buffer(5 * MIB) as buffer:
        buffer.write(0, b"kept")
        buffer.prefault()
        assert buffer.read(0, 4) == b"kept"
        assert resident(buffer.address) >= 5 * MIB


@pytest.mark.parametrize("size", [1 << 62, 1 << 63, (1 << 64) - 4096])
def test_no_room(size: int) -> None:
    with pytest.raises(CallError) as caught:
        Buffer(size)
    assert (caught.value.call, caught.value.errno) == ("mmap", errno.ENOMEM)


def proc(path: Path, uid_map: str = "0 0 4294967295") -> str:
    (path / "status").write_text("Name:\tqemu: x\nVmLck:\t    1024 kB\nCapEff:\t0000000000004000\n")
    (path / "uid_map").write_text(f"         {uid_map}\n")
    return str(path)


def test_memlock(tmp_path: Path) -> None:
    found = memory.memlock(proc(tmp_path))
    assert (found.locked, found.cap_ipc_lock) == (MIB, True)
    assert memory.memlock().locked >= 0


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
