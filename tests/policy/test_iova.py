"""Where a mapping may lie."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vfioctl.errors import ExitStatus, KernelRefusal, UsageError
from vfioctl.policy.iova import Piece, Space, check, free, page_sizes, place, plan

#: What VT-d tells on Linux 6.1 and later: 4K, 2M and 1G pages, 39 bits, a hole for interrupt messages.
VTD = Space(
    page_sizes=0x40201000,
    ranges=((0, 0xFEDFFFFF), (0xFEF00000, 0x7FFFFFFFFF)),
    reserved=((0xFEE00000, 0xFEEFFFFF, "msi"),),
)


def refusal(space: Space, iova: int | None, size: int, chunk: int | None = None) -> UsageError:
    with pytest.raises(UsageError) as caught:
        plan(space, size, iova, chunk)
    assert caught.value.status == ExitStatus.USAGE
    return caught.value


@pytest.mark.parametrize("size", [0, -1, -4096, 2**64])
def test_impossible_sizes(size: int) -> None:
    assert refusal(VTD, 0, size).code == "size-invalid"
    assert refusal(VTD, None, size).code == "size-invalid"


def test_misaligned_size() -> None:
    error = refusal(VTD, None, 5000)
    assert error.code == "size-misaligned"
    assert error.message == "size 5000 is not a multiple of the IOMMU's page size 4K"
    assert error.hint == "the next larger one that is: 8K"
    assert refusal(VTD, None, 8192, chunk=100).message.startswith("chunk 100 ")


def test_misaligned_iova() -> None:
    error = refusal(VTD, 0x1800, 4096)
    assert error.code == "iova-misaligned"
    assert "0x1800" in error.message
    assert error.hint is not None and "0x1000" in error.hint


def test_64k_pages_make_the_granule() -> None:
    assert refusal(Space(page_sizes=0x20010000), None, 4096).code == "size-misaligned"
    assert plan(Space(page_sizes=0x20010000), 65536) == (Piece(0, 65536),)


def test_reserved_region_is_named_with_what_would_fit() -> None:
    error = refusal(VTD, 0xFEDFF000, 8192)
    assert error.code == "iova-reserved"
    assert (
        error.message
        == "8K at IOVA 0xfedff000-0xfee00fff overlaps the reserved region 0xfee00000-0xfeefffff (msi)"
    )
    assert error.hint == "0x0 would fit; without an IOVA, vfioctl chooses one"


def test_relaxable_regions_do_not_count() -> None:
    assert plan(VTD._replace(reserved=((0, 0xFFF, "direct-relaxable"),)), 4096, 0) == (Piece(0, 4096),)


@pytest.mark.parametrize("kind", ["msi", "direct", "reserved"])
def test_all_other_regions_count(kind: str) -> None:
    space = VTD._replace(reserved=((0, 0xFFF, kind),))
    assert refusal(space, 0, 4096).code == "iova-reserved"
    assert place(space, 4096) == 0x1000


@pytest.mark.parametrize("iova", [0x8000000000, 0x7FFFFFF000, 2**64 - 4096, -4096])
def test_beyond_the_aperture(iova: int) -> None:
    error = refusal(VTD, iova, 8192)
    assert error.code == "iova-out-of-range"
    assert "0x0-0xfedfffff, 0xfef00000-0x7fffffffff" in error.message


def test_between_ranges_where_nothing_is_reserved() -> None:
    assert refusal(VTD._replace(reserved=()), 0xFEE00000, 4096).code == "iova-out-of-range"


def test_the_first_and_the_last_page_of_a_range() -> None:
    check(VTD, 0, 4096)
    check(VTD, 0xFEDFF000, 4096)
    check(VTD, 0xFEF00000, 4096)
    check(VTD, 0x7FFFFFF000, 4096)


@pytest.mark.parametrize("iova", [0x100000, 0x0FF000, 0x1FF000, 0x180000])
def test_overlap_with_a_mapping(iova: int) -> None:
    error = refusal(VTD._replace(mappings=((0x100000, 0x100000),)), iova, 8192)
    assert error.code == "mapping-overlap"
    assert "0x100000-0x1fffff" in error.message


def test_neighbours_do_not_overlap() -> None:
    space = VTD._replace(mappings=((0x100000, 0x100000),))
    check(space, 0x0FF000, 4096)
    check(space, 0x200000, 4096)


def test_nothing_large_enough() -> None:
    error = refusal(VTD, None, 1 << 40)
    assert error.code == "iova-out-of-range"
    assert error.message == "there is no free IOVA range of 1T"
    assert error.hint is not None and "0xfef00000" in error.hint
    assert refusal(Space(ranges=()), None, 4096).hint == "no IOVA is left in this address space"


def test_large_pages_where_the_size_fills_them() -> None:
    space = VTD._replace(ranges=((0x1000, 0x7FFFFFFFFF),), reserved=())
    assert place(space, 4096) == 0x1000
    assert place(space, 2 << 20) == 2 << 20
    assert place(space, 1 << 30) == 1 << 30
    tight = VTD._replace(ranges=((0x1000, 0x200FFF),), reserved=())
    assert place(tight, 2 << 20) == 0x1000


def test_s390_starts_high() -> None:
    assert place(Space(page_sizes=0x1000, ranges=((0x100000000, 0x17FFFFFFF),)), 1 << 20) == 0x100000000


def test_without_ranges_only_reserved_regions_are_left_out() -> None:
    space = Space(reserved=((0, 0xFFFFF, "reserved"),))
    assert place(space, 4096) == 0x100000
    assert plan(space, 4096, 2**64 - 4096) == (Piece(2**64 - 4096, 4096),)


def test_chunks() -> None:
    assert plan(VTD, 5 << 20, 0x200000, 2 << 20) == (
        Piece(0x200000, 2 << 20),
        Piece(0x400000, 2 << 20),
        Piece(0x600000, 1 << 20),
    )


def test_entries_left() -> None:
    space = VTD._replace(entries=2)
    assert len(plan(space, 8192, chunk=4096)) == 2
    with pytest.raises(KernelRefusal) as caught:
        plan(space, 3 * 4096, chunk=4096)
    assert caught.value.code == "no-entries-left"
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.hint is not None and "dma_entry_limit" in caught.value.hint
    with pytest.raises(KernelRefusal):
        plan(VTD._replace(entries=0), 4096)


def test_page_sizes() -> None:
    assert page_sizes(0x40201000) == (4096, 2 << 20, 1 << 30)
    assert len(page_sizes(0xFFFFFFFFFFFFF000)) == 52
    assert page_sizes(0) == ()


# A small space, in which every place can be tried: 64 pages of 4K, 16K "large" pages.
PAGE = 4096
spans = st.tuples(st.integers(0, 63), st.integers(1, 20)).map(
    lambda span: (span[0], min(63, span[0] + span[1] - 1))
)


@st.composite
def spaces(draw: st.DrawFn) -> Space:
    # Reserved regions need not begin on a page.
    reserved = draw(st.lists(st.tuples(st.integers(0, 64 * PAGE), st.integers(0, 8 * PAGE)), max_size=4))
    edges = sorted(draw(st.sets(st.integers(0, 64), max_size=6)))
    return Space(
        page_sizes=0x5000,
        ranges=tuple((a * PAGE, b * PAGE - 1) for a, b in zip(edges[::2], edges[1::2], strict=False)),
        reserved=tuple((start, start + length, "reserved") for start, length in reserved),
        mappings=tuple((a * PAGE, (b - a + 1) * PAGE) for a, b in draw(st.lists(spans, max_size=4))),
    )


def fits(space: Space, iova: int, size: int) -> bool:
    """The kernel's rule, byte by byte (page by page where that is the same)."""
    assert space.ranges is not None
    return (
        any(start <= iova and iova + size - 1 <= end for start, end in space.ranges)
        and all(iova + size <= start or end < iova for start, end, _ in space.reserved)
        and all(iova + size <= other or other + length <= iova for other, length in space.mappings)
    )


@given(spaces(), st.integers(1, 64))
def test_a_place_is_found_if_and_only_if_there_is_one(space: Space, pages: int) -> None:
    size = pages * PAGE
    possible = [iova for iova in range(0, 64 * PAGE, PAGE) if fits(space, iova, size)]
    if not possible:
        with pytest.raises(UsageError):
            place(space, size)
        return
    iova = place(space, size)
    assert iova in possible
    aligned = [each for each in possible if each % 0x4000 == 0]
    assert iova == min(aligned if aligned and size >= 0x4000 else possible)


@given(spaces(), st.integers(0, 63), st.integers(1, 64))
def test_check_agrees_with_the_rule(space: Space, page: int, pages: int) -> None:
    try:
        check(space, page * PAGE, pages * PAGE)
    except UsageError as error:
        assert error.code in ("iova-reserved", "iova-out-of-range", "mapping-overlap")
        assert not fits(space, page * PAGE, pages * PAGE)
    else:
        assert fits(space, page * PAGE, pages * PAGE)


@given(spaces())
def test_free_is_exactly_what_nothing_occupies(space: Space) -> None:
    gaps = free(space)
    assert gaps == sorted(gaps)
    for page in range(64):
        inside = any(start <= page * PAGE <= end for start, end in gaps)
        assert inside == fits(space, page * PAGE, 1)
