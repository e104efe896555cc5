"""What vfioctl relies on of VFIO's group, container and type1 calls: the same tests for the fake and for Linux.

A class that inherits these provides the fixtures ``groups`` (numbers of viable groups nobody uses, at least
one) and ``dev`` (the directory that stands for /dev).
"""

from __future__ import annotations

import errno
from collections.abc import Iterator

import pytest

from tests.ops import direct as dma
from tests.ops.direct import Attached, attached
from vfioctl.errors import Busy, No, UsageError
from vfioctl.host import vfio
from vfioctl.host.ioctl import CallError
from vfioctl.host.memory import ANONYMOUS, Memory, make
from vfioctl.uapi import vfio as uapi

RW = uapi.VFIO_DMA_MAP_FLAG_READ | uapi.VFIO_DMA_MAP_FLAG_WRITE
PAGE = 4096
MIB = 1 << 20


def errno_of(caught: pytest.ExceptionInfo[CallError]) -> str:
    return errno.errorcode[caught.value.errno or 0]


class Contract:
    @pytest.fixture
    def space(self, groups: list[int], dev: str) -> Iterator[Attached]:
        with attached(groups[:1], dev=dev) as session:
            yield session

    @pytest.fixture
    def buffer(self) -> Iterator[Memory]:
        with make(ANONYMOUS, 16 * PAGE) as buffer:
            yield buffer

    def refused(self, space: Attached, vaddr: int, iova: int, size: int, flags: int = RW) -> str:
        with pytest.raises(CallError) as caught:
            vfio.iommu_map_dma(space.container, vaddr, iova, size, flags)
        assert caught.value.call == "VFIO_IOMMU_MAP_DMA"
        return errno_of(caught)

    def test_fresh_container(self, dev: str) -> None:
        info = dma.probe_container(dev)
        assert info.api_version == 0
        assert info.extensions["VFIO_TYPE1v2_IOMMU"] is True
        assert info.extensions["VFIO_UNMAP_ALL"] is True
        assert info.extensions["VFIO_SPAPR_TCE_IOMMU"] is False

    def test_an_iommu_needs_a_group(self, dev: str) -> None:
        with vfio.opened(vfio.container_path(dev)) as container:
            with pytest.raises(CallError) as caught:
                vfio.set_iommu(container, uapi.VFIO_TYPE1v2_IOMMU)
            assert (caught.value.call, errno_of(caught)) == ("VFIO_SET_IOMMU", "EINVAL")

    def test_group_status(self, groups: list[int], dev: str) -> None:
        assert dma.group_status(groups[0], dev=dev) == (True, False)

    def test_a_group_has_one_user(self, groups: list[int], dev: str) -> None:
        path = vfio.group_path(groups[0], dev)
        with vfio.opened(path):
            with pytest.raises(CallError) as caught, vfio.opened(path):
                pass
            assert (caught.value.call, errno_of(caught), caught.value.filename) == ("open", "EBUSY", path)
            with pytest.raises(Busy):
                dma.group_status(groups[0], dev=dev)

    def test_a_group_that_is_not_there(self, dev: str) -> None:
        with pytest.raises(No) as caught:
            dma.map_dma([99999], PAGE, dev=dev)
        assert caught.value.code == "no-vfio-member"

    def test_a_group_has_one_container(self, space: Attached) -> None:
        assert vfio.group_get_status(space.groups[0]) == (True, True)
        with pytest.raises(CallError) as caught:
            vfio.group_set_container(space.groups[0], space.container)
        assert errno_of(caught) == "EINVAL"

    def test_an_iommu_is_set_once(self, space: Attached) -> None:
        with pytest.raises(CallError) as caught:
            vfio.set_iommu(space.container, uapi.VFIO_TYPE1v2_IOMMU)
        assert errno_of(caught) == "EINVAL"

    def test_leaving_twice(self, groups: list[int], dev: str) -> None:
        with (
            vfio.opened(vfio.container_path(dev)) as container,
            vfio.opened(vfio.group_path(groups[0], dev)) as group,
        ):
            vfio.group_set_container(group, container)
            vfio.group_unset_container(group)
            with pytest.raises(CallError) as caught:
                vfio.group_unset_container(group)
            assert errno_of(caught) == "EINVAL"

    def test_the_address_space(self, space: Attached) -> None:
        assert space.backend == "type1v2"
        assert space.info.page_sizes & PAGE
        assert space.info.iova_ranges is not None
        for start, end in space.info.iova_ranges:
            assert start < end
        assert not any(start <= 0xFEE00000 <= end for start, end in space.info.iova_ranges)

    def test_overlap(self, space: Attached, buffer: Memory) -> None:
        vfio.iommu_map_dma(space.container, buffer.address, MIB, 4 * PAGE, RW)
        for iova, size in (
            (MIB, 4 * PAGE),
            (MIB + PAGE, PAGE),
            (MIB - PAGE, 2 * PAGE),
            (MIB + 3 * PAGE, 2 * PAGE),
        ):
            assert self.refused(space, buffer.address, iova, size) == "EEXIST"
        vfio.iommu_map_dma(space.container, buffer.address, MIB + 4 * PAGE, PAGE, RW)
        vfio.iommu_map_dma(space.container, buffer.address, MIB - PAGE, PAGE, RW)

    def test_what_cannot_be_mapped(self, space: Attached, buffer: Memory) -> None:
        assert self.refused(space, buffer.address, MIB, 0) == "EINVAL"
        assert self.refused(space, buffer.address, MIB, 100) == "EINVAL"
        assert self.refused(space, buffer.address, MIB + 8, PAGE) == "EINVAL"
        assert self.refused(space, buffer.address + 8, MIB, PAGE) == "EINVAL"
        assert self.refused(space, buffer.address, MIB, PAGE, flags=0) == "EINVAL"

    def test_holes_and_the_end_of_the_address_space(self, space: Attached, buffer: Memory) -> None:
        assert space.info.iova_ranges is not None
        last = space.info.iova_ranges[-1][1]
        assert self.refused(space, buffer.address, 0xFEE00000, PAGE) == "EINVAL"
        assert self.refused(space, buffer.address, 0xFEDFF000, 2 * PAGE) == "EINVAL"
        assert self.refused(space, buffer.address, last + 1, PAGE) == "EINVAL"
        vfio.iommu_map_dma(space.container, buffer.address, last + 1 - PAGE, PAGE, RW)

    def test_entries_are_counted(self, space: Attached, buffer: Memory) -> None:
        before = vfio.iommu_get_info(space.container).dma_avail
        assert before is not None
        vfio.iommu_map_dma(space.container, buffer.address, MIB, PAGE, RW)
        assert vfio.iommu_get_info(space.container).dma_avail == before - 1

    def test_unmap_counts_its_bytes(self, space: Attached, buffer: Memory) -> None:
        container = space.container
        for index in range(3):
            vfio.iommu_map_dma(container, buffer.address, MIB + index * PAGE, PAGE, RW)
        assert vfio.iommu_unmap_dma(container, MIB, PAGE) == PAGE
        assert vfio.iommu_unmap_dma(container, MIB, PAGE) == 0
        assert vfio.iommu_unmap_dma(container, 0, 2 * MIB) == 2 * PAGE
        vfio.iommu_map_dma(container, buffer.address, MIB, 4 * PAGE, RW)
        assert vfio.iommu_unmap_dma(container, 0, 0, uapi.VFIO_DMA_UNMAP_FLAG_ALL) == 4 * PAGE
        assert vfio.iommu_unmap_dma(container, 0, 0, uapi.VFIO_DMA_UNMAP_FLAG_ALL) == 0

    def test_unmap_never_cuts_a_mapping(self, space: Attached, buffer: Memory) -> None:
        vfio.iommu_map_dma(space.container, buffer.address, MIB, 4 * PAGE, RW)
        for iova in (MIB, MIB + PAGE, MIB + 3 * PAGE):
            with pytest.raises(CallError) as caught:
                vfio.iommu_unmap_dma(space.container, iova, PAGE)
            assert errno_of(caught) == "EINVAL"
        assert vfio.iommu_unmap_dma(space.container, MIB, 4 * PAGE) == 4 * PAGE

    def test_type1_version_1_unmaps_whole_mappings_or_nothing(
        self, groups: list[int], dev: str, buffer: Memory
    ) -> None:
        with attached(groups[:1], backend="type1", dev=dev) as space:
            assert space.backend == "type1"
            vfio.iommu_map_dma(space.container, buffer.address, MIB, 4 * PAGE, RW)
            assert vfio.iommu_unmap_dma(space.container, MIB + PAGE, PAGE) == 0
            assert vfio.iommu_unmap_dma(space.container, MIB, PAGE) == 4 * PAGE

    @pytest.mark.parametrize("backend", ["auto", "type1v2", "type1"])
    def test_map_and_let_go(self, groups: list[int], dev: str, backend: str) -> None:
        report = dma.map_dma(groups[:1], 4 * MIB, backend=backend, dev=dev)
        assert report.backend == ("type1" if backend == "type1" else "type1v2")
        assert report.groups == (groups[0],)
        assert [(each.iova, each.size, each.prot, each.source) for each in report.mappings] == [
            (0, 4 * MIB, "rw", "anonymous")
        ]
        assert PAGE in report.page_sizes
        assert report.iova_ranges and report.dma_avail
        assert dma.group_status(groups[0], dev=dev) == (True, False)

    def test_map_in_chunks(self, groups: list[int], dev: str) -> None:
        steps: list[tuple[str, int, int]] = []
        seen: list[int] = []
        report = dma.map_dma(
            groups[:1],
            5 * MIB,
            iova=0x10000000,
            chunk=2 * MIB,
            progress=lambda *step: steps.append(step),
            while_mapped=lambda report: seen.append(len(report.mappings)),
            dev=dev,
        )
        assert [each.iova for each in report.mappings] == [0x10000000, 0x10200000, 0x10400000]
        assert [each.size for each in report.mappings] == [2 * MIB, 2 * MIB, MIB]
        assert seen == [3]
        assert steps == [("populate", 5 * MIB, 5 * MIB), ("map", 5 * MIB, 5 * MIB)]

    @pytest.mark.parametrize(
        ("iova", "size", "code"),
        [
            (0xFEE00000, PAGE, "iova-out-of-range"),
            (0x1800, PAGE, "iova-misaligned"),
            (0, 100, "size-misaligned"),
            (0, 0, "size-invalid"),
            (1 << 63, PAGE, "iova-out-of-range"),
            (None, 1 << 62, "iova-out-of-range"),
        ],
    )
    def test_refused_before_the_kernel_is_asked(
        self, groups: list[int], dev: str, iova: int | None, size: int, code: str
    ) -> None:
        with pytest.raises(UsageError) as caught:
            dma.map_dma(groups[:1], size, iova=iova, dev=dev)
        assert caught.value.code == code
        assert dma.group_status(groups[0], dev=dev) == (True, False)

    def test_several_groups_in_one_container(self, groups: list[int], dev: str) -> None:
        if len(groups) < 2:
            pytest.skip("takes two groups")
        report = dma.map_dma(groups, MIB, dev=dev)
        assert report.groups == tuple(groups)
        for group in groups:
            assert dma.group_status(group, dev=dev) == (True, False)

    def test_probe(self, groups: list[int], dev: str) -> None:
        report = dma.probe_iommu(groups[:1], dev=dev)
        assert report.backend == "type1v2"
        assert report.dirty_page_sizes == (PAGE,)
        assert report.dma_avail and report.iova_ranges and PAGE in report.page_sizes
        assert dma.group_status(groups[0], dev=dev) == (True, False)
