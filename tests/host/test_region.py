"""Regions by mmap and by pread: which of the two, and the bytes."""

from __future__ import annotations

import errno
import mmap
import os

import pytest

from tests.fakes.device import MMAP, READ, WRITE
from vfioctl.host import region
from vfioctl.host.ioctl import CallError
from vfioctl.host.vfio_device import RegionInfo

PAGE = mmap.PAGESIZE
CONTENT = bytes(range(256)) * (4 * PAGE // 256)


@pytest.fixture
def device() -> int:
    """The region lies at the second page of the descriptor."""
    fd = os.memfd_create("device")
    os.pwrite(fd, CONTENT, PAGE)
    return fd


def info(flags: int = READ | WRITE, areas: tuple[tuple[int, int], ...] | None = None) -> RegionInfo:
    return RegionInfo(flags, 4 * PAGE, PAGE, areas)


@pytest.mark.parametrize(
    ("areas", "offset", "size", "answer"),
    [
        (None, 0, 4 * PAGE, True),
        (((0, PAGE), (2 * PAGE, 2 * PAGE)), 0, 4, True),
        (((0, PAGE), (2 * PAGE, 2 * PAGE)), PAGE, 4, False),
        (((0, PAGE), (2 * PAGE, 2 * PAGE)), PAGE - 4, 8, False),
        (((0, PAGE), (2 * PAGE, 2 * PAGE)), 4 * PAGE - 8, 8, True),
        ((), 0, 4, False),
    ],
)
def test_what_may_be_mapped(
    areas: tuple[tuple[int, int], ...] | None, offset: int, size: int, answer: bool
) -> None:
    assert region.mappable(info(READ | MMAP, areas), offset, size) is answer
    assert not region.mappable(info(READ, areas), offset, size)


def test_a_region_smaller_than_a_page_may_be_mapped() -> None:
    assert region.mappable(RegionInfo(READ | MMAP, 128, PAGE), 0, 128)


@pytest.mark.parametrize("flags", [READ | WRITE, READ | WRITE | MMAP], ids=["pread", "mmap"])
@pytest.mark.parametrize("width", [1, 2, 4, 8])
def test_reads(device: int, flags: int, width: int) -> None:
    assert region.read(device, info(flags), 8, width) == CONTENT[8 : 8 + width]
    assert region.read(device, info(flags), PAGE - 16, width, 5) == CONTENT[PAGE - 16 : PAGE - 16 + 5 * width]


@pytest.mark.parametrize("flags", [READ | WRITE, READ | WRITE | MMAP], ids=["pwrite", "mmap"])
@pytest.mark.parametrize("width", [1, 2, 4, 8])
def test_writes(device: int, flags: int, width: int) -> None:
    data = bytes(range(200, 200 + 3 * width))
    region.write(device, info(flags), PAGE + 16, width, data)
    assert (
        os.pread(device, len(data) + 2, 2 * PAGE + 15)
        == CONTENT[15:16] + data + CONTENT[16 + len(data) :][:1]
    )


@pytest.mark.parametrize("flags", [READ, READ | MMAP], ids=["pread", "mmap"])
@pytest.mark.parametrize(("offset", "size"), [(0, 4 * PAGE), (3, 5), (4, 7), (8, 4), (PAGE, 0)])
def test_copies(device: int, flags: int, offset: int, size: int) -> None:
    assert region.copy(device, info(flags), offset, size) == CONTENT[offset : offset + size]


def test_the_mapped_accesses_have_their_width(device: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def no(*arguments: object) -> bytes:
        raise AssertionError("the kernel was asked")

    monkeypatch.setattr(os, "pread", no)
    assert region.read(device, info(READ | MMAP), 0, 4) == CONTENT[:4]
    monkeypatch.undo()
    seen = []
    pread = os.pread

    def noted(fd: int, size: int, at: int) -> bytes:
        seen.append((size, at))
        return pread(fd, size, at)

    monkeypatch.setattr(os, "pread", noted)
    region.read(device, info(READ), 4, 2, 3)
    assert seen == [(2, PAGE + 4), (2, PAGE + 6), (2, PAGE + 8)]


def test_refusals_name_the_call(device: int) -> None:
    with pytest.raises(CallError) as caught:
        region.read(device, RegionInfo(READ, PAGE, 1 << 30), 0, 4)
    assert (caught.value.call, caught.value.errno) == ("pread", errno.EIO)
    with pytest.raises(CallError) as caught:
        region.read(device, RegionInfo(READ | MMAP, PAGE, PAGE + 1), 0, 4)
    assert (caught.value.call, caught.value.errno) == ("mmap", errno.EINVAL)
    reader = os.open("/dev/zero", os.O_RDONLY)
    with pytest.raises(CallError) as caught:
        region.write(reader, RegionInfo(WRITE, PAGE, 0), 0, 4, b"1234")
    assert caught.value.call == "pwrite"
    os.close(reader)
