"""sPAPR containers, EEH and no-IOMMU containers, on the fake."""

from __future__ import annotations

import errno
import fcntl
import mmap
from collections.abc import Callable, Sequence
from typing import NoReturn

import pytest

from tests.host.fake_spapr import PAGE, SECOND_START, V1, V2, WINDOW_SIZE, SpaprContainer
from tests.host.fake_vfio import Container as FakeContainer
from tests.host.fake_vfio import FakeVfio, Group
from vfioctl.errors import GuardRefusal, KernelRefusal, NotFound, UsageError, VfioctlError
from vfioctl.host import memory, vfio
from vfioctl.host.ioctl import CallError
from vfioctl.host.memory import Memlock
from vfioctl.model import IommuGroup
from vfioctl.ops import eeh
from vfioctl.ops.backends import Member, type1
from vfioctl.ops.backends.spapr import SpaprV2
from vfioctl.ops.container import Container
from vfioctl.policy.mapping import Want
from vfioctl.policy.refusals import State
from vfioctl.uapi import spapr as uapi

MIB = 1 << 20


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeVfio:
    fake = FakeVfio(Group(1), Group(2), Group(3, viable=False), Group(8, noiommu=True))
    fake.backends = {V1, V2}
    monkeypatch.setattr(fcntl, "ioctl", fake.ioctl)
    for module in (vfio, type1):
        monkeypatch.setattr(module, "open_node", fake.open_node)
    monkeypatch.setattr(memory, "memlock", lambda: Memlock(limit=None, locked=0, cap_ipc_lock=False))
    return fake


def members(numbers: Sequence[int]) -> list[Member]:
    return [Member(IommuGroup(number), State(group=number, noiommu=number == 8)) for number in numbers]


def opened(backend: str, *numbers: int) -> Container:
    container = Container("/dev", backend)
    container.add(members(numbers))
    return container


def map_(container: Container, size: int, iova: int | None = None) -> None:
    for _ in container.mappings.map([Want(size, iova)]):
        pass


def unmap_all(container: Container) -> None:
    for _ in container.mappings.unmap_all():
        pass


def of(fake: FakeVfio) -> SpaprContainer:
    (found,) = [file.spapr for file in fake.files.values() if isinstance(file, FakeContainer)]
    assert found is not None
    return found


class TestV1:
    def test_it_is_enabled_for_the_first_mapping_and_disabled_after_the_last(self, fake: FakeVfio) -> None:
        with opened("spapr-v1", 1) as container:
            assert "VFIO_IOMMU_ENABLE" not in fake.calls
            assert container.space.offer() == (PAGE, ((0, WINDOW_SIZE - 1),), None, (PAGE,), WINDOW_SIZE)
            assert container.mappings.plan([Want(MIB)])[1].pinned == WINDOW_SIZE
            map_(container, MIB)
            map_(container, MIB)
            assert fake.calls.count("VFIO_IOMMU_ENABLE") == 1
            assert container.mappings.plan([Want(MIB)])[1].pinned == 0
            assert of(fake).charged == WINDOW_SIZE and len(of(fake).tces) == 2 * MIB // PAGE
            for _ in container.mappings.unmap(0):
                pass
            assert of(fake).enabled
            unmap_all(container)
            assert of(fake).charged == 0 and of(fake).tces == {}
        assert fake.left_open() == []

    def test_the_whole_window_counts_as_locked_memory(
        self, fake: FakeVfio, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(memory, "memlock", lambda: Memlock(limit=8 * MIB, locked=0, cap_ipc_lock=False))
        fake.memlock = 8 * MIB
        with opened("spapr-v1", 1) as container:
            with pytest.raises(KernelRefusal, match="2G cannot be pinned") as caught:
                map_(container, MIB)
            assert caught.value.code == "memlock"
            assert container.mappings.runs == []

    def test_one_group(self, fake: FakeVfio) -> None:
        with opened("spapr-v1", 1) as container:
            with pytest.raises(VfioctlError, match="one group only") as caught:
                container.add(members([2]))
            assert caught.value.code == type1.CANNOT_SHARE

    def test_outside_of_the_window(self, fake: FakeVfio) -> None:
        with opened("spapr-v1", 1) as container, pytest.raises(UsageError) as caught:
            map_(container, MIB, WINDOW_SIZE)
        assert caught.value.code == "iova-out-of-range"


class TestV2:
    def test_it_is_preferred(self, fake: FakeVfio) -> None:
        with opened("auto", 1) as container:
            assert container.space.name == "spapr-v2"
        fake.backends = {V1}
        with opened("auto", 1) as container:
            assert container.space.name == "spapr-v1"

    def test_memory_is_registered_before_and_unregistered_after(self, fake: FakeVfio) -> None:
        with opened("spapr-v2", 1, 2) as container:
            fake.calls.clear()
            map_(container, 3 * PAGE)
            unmap_all(container)
            named = [call for call in fake.calls if "MEMORY" in call or "_DMA" in call]
            assert named == [
                "VFIO_IOMMU_SPAPR_REGISTER_MEMORY",
                "VFIO_IOMMU_MAP_DMA",
                "VFIO_IOMMU_UNMAP_DMA",
                "VFIO_IOMMU_SPAPR_UNREGISTER_MEMORY",
            ]
            assert of(fake).charged == 0 and of(fake).registered == {}

    def test_nothing_is_mapped_over_a_mapping(self, fake: FakeVfio) -> None:
        """The kernel would."""
        with opened("spapr-v2", 1) as container:
            map_(container, MIB, 0x10000)
            before = dict(of(fake).tces)
            with pytest.raises(UsageError) as caught:
                map_(container, PAGE, 0x20000)
            assert caught.value.code == "mapping-overlap"
            assert of(fake).tces == before

    @pytest.mark.parametrize("call", ["VFIO_IOMMU_SPAPR_REGISTER_MEMORY", "VFIO_IOMMU_MAP_DMA"])
    def test_what_fails_leaves_nothing_behind(self, fake: FakeVfio, call: str) -> None:
        with opened("spapr-v2", 1) as container:
            fake.fail = refusing(call)
            with pytest.raises(KernelRefusal):
                map_(container, MIB)
            assert of(fake).registered == of(fake).tces == {} and container.mappings.runs == []
            fake.fail = lambda number, call: None
            map_(container, MIB)

    def test_when_a_group_leaves_the_mappings_of_the_others_stay(self, fake: FakeVfio) -> None:
        with opened("spapr-v2", 1, 2) as container:
            map_(container, MIB, 0x10000)
            map_(container, PAGE, MIB * 16)
            for _ in container.mappings.unmap(MIB * 16):
                pass
            before = dict(of(fake).tces)
            container.remove(1)
            assert of(fake).tces == before != {}
            with pytest.raises(VfioctlError):
                container.add(members([1, 3]))  # the first of which has to leave again
            assert of(fake).tces == before
            unmap_all(container)
            container.remove(2)
        assert fake.left_open() == []

    def test_groups_of_a_partition_share_nothing(self, fake: FakeVfio) -> None:
        fake.partition = True
        with opened("spapr-v2", 1) as container:
            with pytest.raises(VfioctlError) as caught:
                container.add(members([2]))
            assert caught.value.code == type1.CANNOT_SHARE
            assert of(fake).registered == {}
            map_(container, MIB)

    def test_windows(self, fake: FakeVfio, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(mmap, "PAGESIZE", 65536)  # as on most POWER machines
        with opened("spapr-v2", 1) as container:
            space = container.space
            assert isinstance(space, SpaprV2)
            details = dict(space.details())
            assert (details["window_page_sizes"], details["max_windows"]) == ([4096, 65536, 16 * MIB], 2)
            window = space.create_window(65536, 1 << 32, 2)
            assert window == (SECOND_START, 1 << 32, 65536, 2)
            assert space.offer().pages == (PAGE, 65536)
            map_(container, MIB, SECOND_START)
            assert len(of(fake).tces) == 16
            for iova, code in ((SECOND_START + 17 * PAGE, "iova-misaligned"), (1 << 40, "iova-out-of-range")):
                with pytest.raises(UsageError) as caught:
                    map_(container, MIB, iova)
                assert caught.value.code == code
            with pytest.raises(KernelRefusal) as refused:
                space.create_window(65536, 1 << 32, 1)
            assert (refused.value.code, refused.value.errno) == ("no-window-left", errno.ENOSPC)
            space.remove_window(space.find_window(0))
            assert space.offer().ranges == ((SECOND_START, SECOND_START + (1 << 32) - 1),)
            with pytest.raises(NotFound):
                space.find_window(0)
            with pytest.raises(UsageError):
                map_(container, MIB, 0)

    @pytest.mark.parametrize(
        ("page_size", "size", "levels"),
        [(8192, 1 << 30, 1), (12288, 1 << 30, 1), (65536, 3 << 30, 1), (65536, 4096, 1), (65536, 1 << 30, 6)],
    )
    def test_windows_that_cannot_be(self, fake: FakeVfio, page_size: int, size: int, levels: int) -> None:
        with opened("spapr-v2", 1) as container:
            space = container.space
            assert isinstance(space, SpaprV2)
            with pytest.raises(UsageError) as caught:
                space.create_window(page_size, size, levels)
            assert caught.value.code == "window-invalid"
            assert "VFIO_IOMMU_SPAPR_TCE_CREATE" not in fake.calls


class TestEeh:
    @pytest.mark.parametrize("name", sorted(eeh.OPERATIONS))
    def test_every_operation(self, fake: FakeVfio, name: str) -> None:
        with opened("spapr-v2", 1) as container:
            assert eeh.operate(container, name) == ("normal" if name == "state" else None)
            assert of(fake).eeh_ops == [eeh.OPERATIONS[name]]

    def test_injection(self, fake: FakeVfio) -> None:
        with opened("spapr-v1", 1) as container:
            eeh.inject(container, 32, "LD_CFG_ADDR", 0, 0)
            assert of(fake).eeh_ops == [uapi.VFIO_EEH_PE_INJECT_ERR]
            with pytest.raises(KernelRefusal) as caught:
                eeh.inject(container, 64, "DMA_RD_ADDR", 0x1000, 0xFFF)
            assert caught.value.code == "eeh-failed"

    @pytest.mark.parametrize(("backends", "numbers"), [({1, 3}, (1,)), ({8}, (8,))])
    def test_where_there_is_none(self, fake: FakeVfio, backends: set[int], numbers: tuple[int, ...]) -> None:
        fake.backends = backends
        with opened("noiommu" if 8 in backends else "auto", *numbers) as container:
            with pytest.raises(KernelRefusal) as caught:
                eeh.operate(container, "state")
            assert (caught.value.code, caught.value.errno) == ("no-eeh", errno.ENOTTY)


class TestNoIommu:
    def test_it_has_to_be_named(self, fake: FakeVfio) -> None:
        fake.backends = {1, 3, 8}
        with pytest.raises(GuardRefusal) as caught:
            opened("auto", 8)
        assert caught.value.code == "noiommu"
        assert "--backend noiommu" in (caught.value.hint or "")
        with opened("auto", 1) as container, pytest.raises(GuardRefusal):
            container.add(members([8]))
        assert fake.left_open() == []

    def test_nothing_is_mapped(self, fake: FakeVfio) -> None:
        fake.backends = {1, 3, 8}
        with opened("noiommu", 8) as container:
            assert container.space.offer() is None
            with pytest.raises(KernelRefusal) as caught:
                map_(container, MIB)
            assert caught.value.code == "no-iommu"
            with pytest.raises(UsageError):
                container.add(members([1]))

    def test_groups_with_an_iommu_are_not_for_it(self, fake: FakeVfio) -> None:
        fake.backends = {1, 3, 8}
        for numbers in ((1,), (1, 8)):
            with pytest.raises(UsageError):
                opened("noiommu", *numbers)
        assert fake.calls == []

    def test_a_kernel_without_it(self, fake: FakeVfio) -> None:
        with pytest.raises(KernelRefusal) as caught:
            opened("noiommu", 8)
        assert caught.value.code == "no-iommu-backend"


def refusing(name: str) -> Callable[[int, str], None]:
    def fail(number: int, call: str) -> None:
        if call == name:
            refuse(call)

    return fail


def refuse(call: str) -> NoReturn:
    raise CallError(call, errno.EIO)
