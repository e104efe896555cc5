"""Mappings of a container on a fake VFIO: made and undone as a whole, remembered as they are, and their memory."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.descriptors import targets
from tests.host.fake_vfio import FakeVfio, Group
from vfioctl.errors import KernelRefusal, NotFound, UsageError, VfioctlError
from vfioctl.host import memory, vfio
from vfioctl.host.ioctl import CallError
from vfioctl.host.memory import Memlock
from vfioctl.model import IommuGroup
from vfioctl.ops import mappings
from vfioctl.ops.backends import Member, type1
from vfioctl.ops.container import Container
from vfioctl.ops.mappings import Mappings, Run
from vfioctl.policy.mapping import Want
from vfioctl.policy.refusals import State

PAGE = 4096
MIB = 1 << 20


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeVfio:
    fake = FakeVfio(Group(26))
    monkeypatch.setattr(fcntl, "ioctl", fake.ioctl)
    for module in (vfio, type1):
        monkeypatch.setattr(module, "open_node", fake.open_node)
    monkeypatch.setattr(memory, "memlock", lambda: Memlock(limit=None, locked=0, cap_ipc_lock=False))
    monkeypatch.setattr(mappings, "STEP", 0.0)
    return fake


@pytest.fixture
def here(fake: FakeVfio) -> Iterator[Mappings]:
    with Container() as container:
        container.add([Member(IommuGroup(26), State(group=26))])
        yield container.mappings
    assert not [t for t in targets().values() if t.startswith("/memfd:vfioctl") and "fake" not in t]


def mapped(fake: FakeVfio) -> dict[int, int]:
    """What the kernel has."""
    (container,) = (file for file in fake.files.values() if hasattr(file, "mappings"))
    return dict(container.mappings)


def do(here: Mappings, *wants: Want, fd: int | None = None) -> list[Run]:
    work = here.map(wants, fd)
    while True:
        try:
            next(work)
        except StopIteration as end:
            runs: list[Run] = end.value
            return runs


def test_many_small_ones_are_one_run(fake: FakeVfio, here: Mappings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mappings, "BATCH", 3)
    (run,) = do(here, Want(10 * PAGE, 0x10000, chunk=PAGE))
    assert mapped(fake) == {0x10000 + n * PAGE: PAGE for n in range(10)}
    assert (run.iova, run.size, run.chunk, run.pieces) == (0x10000, 10 * PAGE, PAGE, 10)
    assert here.runs == [run]
    here.write(0x10000 + PAGE - 2, b"proof")
    assert here.read(0x10000 + PAGE - 3, 6) == b"\0proof"


def test_the_last_of_a_run_may_be_smaller(
    fake: FakeVfio, here: Mappings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mappings, "BATCH", 2)
    do(here, Want(7 * PAGE, 0, chunk=2 * PAGE))
    assert mapped(fake) == {0: 2 * PAGE, 2 * PAGE: 2 * PAGE, 4 * PAGE: 2 * PAGE, 6 * PAGE: PAGE}
    assert list(here.unmap(0, 7 * PAGE)) == [("unmap", 3 * PAGE, 7 * PAGE), ("unmap", 7 * PAGE, 7 * PAGE)]
    assert mapped(fake) == {}
    assert here.runs == []


def test_a_chunk_larger_than_all_of_it(fake: FakeVfio, here: Mappings) -> None:
    do(here, Want(PAGE, 0, chunk=MIB))
    assert mapped(fake) == {0: PAGE}


def test_a_list_takes_memory_once(fake: FakeVfio, here: Mappings) -> None:
    runs = do(
        here,
        *[Want(PAGE, 0x100000 + 2 * PAGE * n) for n in range(50)],
        Want(PAGE),
        Want(PAGE, source="memfd"),
    )
    assert len({id(run.memory) for run in runs}) == 2
    assert len({run.memory.address + run.offset for run in runs}) == 52
    assert [run.iova for run in runs[50:]] == [0, PAGE]
    for n, run in enumerate(runs):
        here.write(run.iova, b"%d" % n)
    assert all(here.read(run.iova, 2).rstrip(b"\0") == b"%d" % n for n, run in enumerate(runs))


def test_those_of_huge_pages_share_none(here: Mappings) -> None:
    wants = [Want(PAGE), Want(3 * MIB), Want(PAGE)]
    assert mappings._offsets(wants, 16 * MIB) == (0, [0, 16 * MIB, 32 * MIB])
    assert mappings._offsets(wants, PAGE) == (0, [0, 2 * MIB, 5 * MIB])


@pytest.mark.parametrize("at", range(1, 8))
def test_a_failure_in_the_middle_leaves_nothing(
    fake: FakeVfio, here: Mappings, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    monkeypatch.setattr(mappings, "BATCH", 2)
    do(here, Want(PAGE, 0x100000))
    calls = [0]

    def fail(number: int, call: str) -> None:
        calls[0] += call == "VFIO_IOMMU_MAP_DMA"
        if calls[0] == at and call == "VFIO_IOMMU_MAP_DMA":
            raise CallError(call, errno.EIO)

    fake.fail = fail
    with pytest.raises(KernelRefusal):
        do(here, Want(5 * PAGE, chunk=PAGE), Want(2 * PAGE, chunk=PAGE, source="memfd"))
    assert mapped(fake) == {0x100000: PAGE}
    assert [run.iova for run in here.runs] == [0x100000]


def test_one_that_stops_listening_leaves_nothing(
    fake: FakeVfio, here: Mappings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mappings, "BATCH", 2)
    work = here.map([Want(5 * PAGE, chunk=PAGE)])
    while next(work)[0] != "map":
        pass
    assert len(mapped(fake)) == 2
    work.close()
    assert mapped(fake) == {}
    assert here.runs == []


def test_a_problem_anywhere_in_a_list_maps_nothing(fake: FakeVfio, here: Mappings) -> None:
    with pytest.raises(UsageError, match="line 2: "):
        do(here, Want(PAGE, 0, line=1), Want(PAGE, 100, line=2), Want(PAGE, line=3))
    assert "VFIO_IOMMU_MAP_DMA" not in fake.calls


def test_parts_of_a_run(fake: FakeVfio, here: Mappings) -> None:
    do(here, Want(8 * PAGE, 0, chunk=2 * PAGE))
    here.write(6 * PAGE, b"kept")
    assert list(here.unmap(2 * PAGE, 4 * PAGE)) == [("unmap", 4 * PAGE, 4 * PAGE)]
    assert mapped(fake) == {0: 2 * PAGE, 6 * PAGE: 2 * PAGE}
    assert here.read(6 * PAGE, 4) == b"kept"
    with pytest.raises(NotFound):
        here.read(2 * PAGE, 1)
    with pytest.raises(NotFound):
        here.read(0, 4 * PAGE)
    do(here, Want(4 * PAGE, 2 * PAGE))
    assert [run.iova for run in here.runs] == [0, 2 * PAGE, 6 * PAGE]
    list(here.unmap(0, 6 * PAGE))
    assert mapped(fake) == {6 * PAGE: 2 * PAGE}
    list(here.unmap(6 * PAGE))
    assert mapped(fake) == {}


@pytest.mark.parametrize(
    ("iova", "size", "error", "code"),
    [
        (0x100000, None, NotFound, "not-mapped"),
        (0x100000, PAGE, NotFound, "not-mapped"),
        (PAGE, None, UsageError, "mapping-cut"),
        (0, PAGE, UsageError, "mapping-cut"),
        (PAGE, PAGE, UsageError, "mapping-cut"),
        (PAGE, MIB, UsageError, "mapping-cut"),
        (0, 9 * PAGE, UsageError, "mapping-cut"),
    ],
)
def test_what_cannot_be_unmapped(
    fake: FakeVfio, here: Mappings, iova: int, size: int | None, error: type[VfioctlError], code: str
) -> None:
    do(here, Want(8 * PAGE, 0, chunk=2 * PAGE), Want(4 * PAGE, 8 * PAGE))
    with pytest.raises(error) as caught:
        list(here.unmap(iova, size))
    assert caught.value.code == code
    assert len(mapped(fake)) == 5


def test_the_way_out_of_a_cut_is_told(here: Mappings) -> None:
    do(here, Want(8 * PAGE, 0, chunk=2 * PAGE))
    with pytest.raises(UsageError) as caught:
        list(here.unmap(3 * PAGE, PAGE))
    assert caught.value.message.startswith("IOVA 0x3000 is inside the mapping 0x2000-0x3fff")
    assert caught.value.hint == "unmap it as it was made: --iova 0x2000 --size 8192"
    list(here.unmap(2 * PAGE))
    assert [(run.iova, run.size) for run in here.runs] == [(0, 2 * PAGE), (4 * PAGE, 4 * PAGE)]


def test_everything(fake: FakeVfio, here: Mappings) -> None:
    do(here, Want(8 * PAGE, chunk=PAGE), Want(PAGE, source="memfd"))
    assert list(here.unmap_all()) == []
    assert fake.calls.count("VFIO_IOMMU_UNMAP_DMA") == 1
    assert (mapped(fake), here.runs, here.size) == ({}, [], 0)
    assert list(here.unmap_all()) == []


def test_a_file(here: Mappings, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(PAGE) + b"proof".ljust(PAGE))
    with open(tmp_path / "file", "r+b") as file:
        do(here, Want(PAGE, 0, source="file", offset=PAGE), fd=file.fileno())
    assert here.read(0, 5) == b"proof"
    here.write(0, b"P")
    assert (tmp_path / "file").read_bytes()[PAGE:][:5] == b"Proof"
    os.truncate(tmp_path / "file", 0)
    with pytest.raises(KernelRefusal):
        here.read(0, 5)
    with pytest.raises(UsageError) as caught, open(tmp_path / "file", "r+b") as file:
        do(here, Want(PAGE, source="file"), fd=file.fileno())
    assert caught.value.code == "file-too-short"


def test_the_limit_of_locked_memory_is_left_to_the_kernel(
    fake: FakeVfio, here: Mappings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def memlock() -> Memlock:
        return Memlock(limit=MIB, locked=sum(mapped(fake).values()), cap_ipc_lock=False)

    monkeypatch.setattr(memory, "memlock", memlock)
    assert here.plan([Want(2 * MIB)])[1].problems[0].code == "memlock"
    do(here, Want(2 * MIB))
    fake.memlock = 3 * MIB
    with pytest.raises(KernelRefusal) as caught:
        do(here, Want(2 * MIB, chunk=MIB))
    assert (caught.value.code, caught.value.errno) == ("memlock", errno.ENOMEM)
    assert list(mapped(fake).values()) == [2 * MIB]
