"""The walk along a capability chain, over what kernels send and over what none should."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from vfioctl.uapi import capability, vfio


def test_offsets_count_from_the_info_struct_and_headers_may_be_4_byte_aligned() -> None:
    info = bytearray(64)
    struct.pack_into("=HHI", info, 24, 2, 1, 44)
    struct.pack_into("=HHII", info, 44, 3, 1, 0, 65535)
    found = list(capability.walk(info, 24))
    assert [(each.id, each.version) for each in found] == [(2, 1), (3, 1)]
    assert vfio.vfio_iommu_type1_info_dma_avail.unpack(found[1].data).avail == 65535


def test_unknown_ids_are_skipped_by_find() -> None:
    info = bytearray(48)
    struct.pack_into("=HHI", info, 24, 99, 7, 32)
    struct.pack_into("=HHII", info, 32, 3, 1, 0, 5)
    data = capability.find(info, 24, 3, vfio.vfio_iommu_type1_info_dma_avail)
    assert data is not None
    assert vfio.vfio_iommu_type1_info_dma_avail.unpack(data).avail == 5
    assert capability.find(info, 24, 4, vfio.vfio_info_cap_header) is None


def test_a_loop_ends() -> None:
    info = bytearray(40)
    struct.pack_into("=HHI", info, 24, 1, 1, 32)
    struct.pack_into("=HHI", info, 32, 2, 1, 24)
    assert [each.id for each in capability.walk(info, 24)] == [1, 2]


def test_a_header_that_does_not_fit_ends_the_walk() -> None:
    info = bytearray(40)
    struct.pack_into("=HHI", info, 24, 1, 1, 33)
    assert [each.id for each in capability.walk(info, 24)] == [1]
    assert list(capability.walk(info, 1 << 31)) == []


def test_a_capability_that_is_cut_short_is_not_found() -> None:
    info = bytearray(34)
    struct.pack_into("=HHI", info, 24, 3, 1, 0)
    assert capability.find(info, 24, 3, vfio.vfio_iommu_type1_info_dma_avail) is None


@given(st.binary(max_size=200), st.integers(0, 2**32 - 1) | st.integers(0, 200))
def test_any_bytes_end_in_bounded_time_and_stay_inside(info: bytes, offset: int) -> None:
    found = list(capability.walk(info, offset))
    assert len(found) <= len(info)
    for each in found:
        assert 8 <= len(each.data) <= len(info)


@given(st.binary(min_size=16, max_size=100), st.integers(0, 2**32 - 1))
def test_items_never_reach_behind_the_buffer(data: bytes, count: int) -> None:
    found = capability.items(memoryview(data), 16, vfio.vfio_iova_range, count)
    assert len(found) == min(count, (len(data) - 16) // 16)
