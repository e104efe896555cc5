"""Mapping on a fake VFIO: the contract, and that everything is let go of wherever it stops."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable

import pytest

from tests.host.fake_vfio import FakeVfio, Group
from tests.ops import direct as dma
from tests.ops.contract import MIB, PAGE, Contract
from tests.ops.direct import EXTENSIONS, attached
from vfioctl.errors import Busy, ExitStatus, KernelRefusal, No, UsageError, VfioctlError
from vfioctl.host import memory, vfio
from vfioctl.host.ioctl import CallError
from vfioctl.host.memory import Memlock
from vfioctl.ops.backends import type1
from vfioctl.policy.refusals import State


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeVfio:
    fake = FakeVfio(Group(26), Group(27), Group(28, viable=False), Group(29, viable=False, strict=False))
    monkeypatch.setattr(fcntl, "ioctl", fake.ioctl)
    for module in (vfio, type1):
        monkeypatch.setattr(module, "open_node", fake.open_node)
    # What the tester's own shell may lock does not matter here.
    monkeypatch.setattr(memory, "memlock", lambda: Memlock(limit=None, locked=0, cap_ipc_lock=False))
    return fake


class TestContractOnTheFake(Contract):
    @pytest.fixture
    def groups(self, fake: FakeVfio) -> list[int]:
        return [26, 27]

    @pytest.fixture
    def dev(self, fake: FakeVfio) -> str:
        return "/dev"


ONE_GROUP = [
    *("open", "VFIO_GET_API_VERSION", "VFIO_CHECK_EXTENSION", "VFIO_CHECK_EXTENSION"),
    *("open", "VFIO_GROUP_GET_STATUS", "VFIO_GROUP_SET_CONTAINER"),
    *("VFIO_SET_IOMMU", "VFIO_IOMMU_GET_INFO", "VFIO_IOMMU_GET_INFO"),
    *("VFIO_IOMMU_MAP_DMA", *["VFIO_IOMMU_GET_INFO"] * 4, *["VFIO_CHECK_EXTENSION"] * len(EXTENSIONS)),
    *("VFIO_CHECK_EXTENSION", "VFIO_IOMMU_UNMAP_DMA", "VFIO_GROUP_UNSET_CONTAINER"),
]


def test_the_calls_and_their_order(fake: FakeVfio) -> None:
    dma.map_dma([26], MIB)
    assert fake.calls == ONE_GROUP
    assert fake.left_open() == []


def test_closed_in_reverse_order(fake: FakeVfio, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[int] = []
    close = os.close

    def record(fd: int) -> None:
        closed.append(fd)
        close(fd)

    monkeypatch.setattr(os, "close", record)
    with attached([26, 27]) as session:
        pass
    assert [fd for fd in closed if fd in (session.container, *session.groups)] == [
        *reversed(session.groups),
        session.container,
    ]


def failing_at(number: int, exception: Callable[[str], BaseException]) -> Callable[[int, str], None]:
    def fail(at: int, call: str) -> None:
        if at == number:
            raise exception(call)

    return fail


@pytest.mark.parametrize("number", range(1, len(ONE_GROUP) + 9))
def test_a_failure_anywhere_leaves_nothing_behind(fake: FakeVfio, number: int) -> None:
    """Two groups and three chunks; the kernel refuses the n-th call."""
    fake.fail = failing_at(number, lambda call: vfio_error(call, errno.EIO))
    try:
        dma.map_dma([26, 27], 3 * MIB, chunk=MIB)
    except VfioctlError as error:
        assert error.errno == errno.EIO
        assert error.code in ("kernel", "cannot-share")
        assert "EIO" in error.message
    else:
        tolerated = ("VFIO_CHECK_EXTENSION", "VFIO_GROUP_UNSET_CONTAINER")  # closing it does the same
        assert number > len(fake.calls) or fake.calls[number - 1] in tolerated
    let_go(fake)


@pytest.mark.parametrize("number", range(1, len(ONE_GROUP) + 9))
def test_an_interrupt_anywhere_leaves_nothing_behind(fake: FakeVfio, number: int) -> None:
    dma.map_dma([26, 27], 3 * MIB, chunk=MIB)
    in_all = len(fake.calls)
    fake.calls.clear()
    fake.fail = failing_at(number, lambda call: KeyboardInterrupt())
    if number <= in_all:
        with pytest.raises(KeyboardInterrupt):
            dma.map_dma([26, 27], 3 * MIB, chunk=MIB)
    else:
        dma.map_dma([26, 27], 3 * MIB, chunk=MIB)
    let_go(fake)


def let_go(fake: FakeVfio) -> None:
    assert fake.left_open() == []
    fake.reap()
    assert fake.files == {}
    assert all(group.container is None and group.fd is None for group in fake.groups.values())


def vfio_error(call: str, number: int) -> CallError:
    return CallError(call, number, "/dev/vfio/26" if call == "open" else None)


def test_an_error_while_mapped_is_the_one_that_is_told(fake: FakeVfio) -> None:
    def stop(report: dma.Report) -> None:
        fake.fail = lambda number, call: (_ for _ in ()).throw(vfio_error(call, errno.EIO))
        raise Busy("told")

    with pytest.raises(Busy, match="told"):
        dma.map_dma([26], MIB, while_mapped=stop)
    let_go(fake)


def test_a_group_that_is_not_viable(fake: FakeVfio) -> None:
    state = State(group=28, blocking=(("0000:06:0d.1", "snd_emu10k1"),))
    with pytest.raises(No) as caught:
        dma.map_dma([28], MIB, states={28: state})
    assert (caught.value.code, caught.value.errno, caught.value.subject) == ("not-viable", errno.EPERM, "28")
    assert "0000:06:0d.1 (snd_emu10k1)" in caught.value.message
    let_go(fake)


def test_old_kernels_take_a_group_that_is_not_viable_and_vfioctl_does_not(fake: FakeVfio) -> None:
    with pytest.raises(No) as caught:
        dma.map_dma([29], MIB)
    assert (caught.value.code, caught.value.errno) == ("not-viable", None)
    let_go(fake)


def test_the_second_group_fails(fake: FakeVfio) -> None:
    with pytest.raises(No) as caught:
        dma.map_dma([26, 28], MIB)
    assert caught.value.subject == "28"
    let_go(fake)


@pytest.mark.parametrize("groups", [[], [26, 26]])
def test_groups_that_make_no_sense(fake: FakeVfio, groups: list[int]) -> None:
    with pytest.raises(UsageError):
        dma.map_dma(groups, MIB)


def test_type1_where_there_is_no_other(fake: FakeVfio) -> None:
    fake.backends = {1}
    assert dma.map_dma([26], MIB).backend == "type1"
    with pytest.raises(KernelRefusal) as caught:
        dma.map_dma([26], MIB, backend="type1v2")
    assert caught.value.code == "no-iommu-backend"
    assert "type1v2" in caught.value.message


def test_no_backend(fake: FakeVfio) -> None:
    fake.backends = set()
    with pytest.raises(KernelRefusal) as caught:
        dma.probe_iommu([26])
    assert caught.value.code == "no-iommu-backend"
    assert "open" in fake.calls and "VFIO_GROUP_SET_CONTAINER" not in fake.calls
    let_go(fake)


def test_another_version_of_the_interface(fake: FakeVfio) -> None:
    fake.api_version = 1
    with pytest.raises(KernelRefusal) as caught:
        dma.map_dma([26], MIB)
    assert caught.value.code == "api-version"
    let_go(fake)


def test_memlock_is_explained_and_nothing_is_populated(
    fake: FakeVfio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "memlock", lambda: Memlock(limit=8 * MIB, locked=MIB, cap_ipc_lock=False))
    fake.memlock = 7 * MIB
    steps: list[str] = []
    with pytest.raises(KernelRefusal) as caught:
        dma.map_dma([26], 16 * MIB, chunk=2 * MIB, progress=lambda stage, done, total: steps.append(stage))
    assert (caught.value.code, caught.value.errno, caught.value.status) == (
        "memlock",
        errno.ENOMEM,
        ExitStatus.KERNEL,
    )
    assert "the limit is 8M" in caught.value.message
    assert "populate" not in steps
    let_go(fake)


def test_more_than_there_is_memory(fake: FakeVfio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda: PAGE)
    monkeypatch.setattr(memory, "memlock", lambda: Memlock(limit=None, locked=0, cap_ipc_lock=True))
    with pytest.raises(KernelRefusal) as caught:
        dma.map_dma([26], MIB)
    assert caught.value.code == "no-memory"
    let_go(fake)


def test_a_short_unmap_is_told(fake: FakeVfio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vfio, "iommu_unmap_dma", lambda container, iova, size, flags=0: size - PAGE)
    with pytest.raises(KernelRefusal) as caught:
        dma.map_dma([26], MIB)
    assert caught.value.code == "unmap-short"
    let_go(fake)


def test_entries_left(fake: FakeVfio) -> None:
    fake.entry_limit = 2
    with pytest.raises(KernelRefusal) as caught:
        dma.map_dma([26], 3 * MIB, chunk=MIB)
    assert caught.value.code == "no-entries-left"
    assert "VFIO_IOMMU_MAP_DMA" not in fake.calls


def test_reserved_regions_are_named(fake: FakeVfio) -> None:
    with pytest.raises(UsageError) as caught:
        dma.map_dma([26], PAGE, iova=0xFEE00000, reserved=((0xFEE00000, 0xFEEFFFFF, "msi"),))
    assert caught.value.code == "iova-reserved"


def test_iommufd_in_the_place_of_the_container(fake: FakeVfio) -> None:
    def fail(number: int, call: str) -> None:
        if call == "VFIO_CHECK_EXTENSION" and fake.calls.count(call) == 4:
            raise vfio_error(call, errno.ENODEV)

    fake.fail = fail
    assert dma.probe_container().extensions["VFIO_DMA_CC_IOMMU"] is None


@pytest.mark.parametrize(("noiommu", "path"), [(False, "/x/vfio/26"), (True, "/x/vfio/noiommu-26")])
def test_nodes_are_looked_for_under_dev(monkeypatch: pytest.MonkeyPatch, noiommu: bool, path: str) -> None:
    with pytest.raises(No) as caught:
        dma.group_status(26, State(group=26, noiommu=noiommu), dev="/x")
    assert path in caught.value.message
