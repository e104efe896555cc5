"""Where a mapping may lie: checked and explained before the kernel is asked (floor 3, pure).

The rules are those of vfio_iommu_type1: IOVA and size are multiples of the smallest page size, the range lies
inside one IOVA range, overlaps no other mapping, and the number of mappings is limited (``dma_entry_limit``).
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from vfioctl.errors import KernelRefusal, UsageError
from vfioctl.policy.sizes import LIMIT, format_iova, format_size

#: Alignment beyond this helps no IOMMU page table that exists on the machines VFIO runs on.
LARGEST_ALIGNMENT = 1 << 30

#: What the kernel takes for its own page size where it does not tell the IOMMU's.
DEFAULT_PAGE_SIZES = 4096


class Piece(NamedTuple):
    """One mapping to ask for, in bytes."""

    iova: int
    size: int


class Space(NamedTuple):
    """An IOVA space: what its IOMMU offers and what it holds.

    ``page_sizes`` is a bitmap; ``ranges`` are (first, last), last included, None where the kernel does not
    tell (before 5.4); ``reserved`` are (first, last, type) as in ``reserved_regions``; ``mappings`` are
    (iova, size); ``entries`` is how many more mappings the kernel allows, None where it does not tell.
    """

    page_sizes: int = DEFAULT_PAGE_SIZES
    ranges: tuple[tuple[int, int], ...] | None = None
    reserved: Sequence[tuple[int, int, str]] = ()
    mappings: tuple[tuple[int, int], ...] = ()
    entries: int | None = None

    @property
    def granule(self) -> int:
        """The smallest page size: every IOVA and size is a multiple of it."""
        sizes = self.page_sizes or DEFAULT_PAGE_SIZES
        return sizes & -sizes


def page_sizes(bitmap: int) -> tuple[int, ...]:
    """The page sizes of a bitmap, in bytes, smallest first."""
    return tuple(1 << bit for bit in range(bitmap.bit_length()) if bitmap >> bit & 1)


def plan(space: Space, size: int, iova: int | None = None, chunk: int | None = None) -> tuple[Piece, ...]:
    """The mappings that make up ``size`` bytes at ``iova``, or at a place of our choice.

    With ``chunk``, mappings of that many bytes each (the last may be smaller). Raises UsageError, or
    KernelRefusal ``no-entries-left``, as :func:`check` does.
    """
    _check_size(space, size, "size")
    if chunk is not None:
        _check_size(space, chunk, "chunk")
    if iova is None:
        iova = place(space, size)
    else:
        check(space, iova, size)
    count = 1 if chunk is None else -(-size // chunk)
    if space.entries is not None and count > space.entries:
        raise _no_entries(count, space.entries)
    return tuple(split(iova, size, chunk))


def check(space: Space, iova: int, size: int) -> None:
    """Raise UsageError saying what stands in the way of mapping ``size`` bytes at ``iova``.

    Codes: ``size-invalid``, ``size-misaligned``, ``iova-misaligned``, ``iova-out-of-range``,
    ``iova-reserved``, ``mapping-overlap``.
    """
    _check_size(space, size, "size")
    if iova % space.granule:
        raise UsageError(
            f"IOVA {format_iova(iova)} is not a multiple of {_page(space)}",
            code="iova-misaligned",
            hint=f"the next lower one that is: {format_iova(iova - iova % space.granule)}",
        )
    last = iova + size - 1
    wanted = f"{format_size(size)} at IOVA {_span(iova, last)}"
    for start, end, kind in _enforced(space.reserved):
        if iova <= end and start <= last:
            raise UsageError(
                f"{wanted} overlaps the reserved region {_span(start, end)} ({kind})",
                code="iova-reserved",
                hint=_what_fits(space, size),
            )
    ranges = _ranges(space)
    if not any(start <= iova and last <= end for start, end in ranges):
        raise UsageError(
            f"{wanted} is not inside a range that the IOMMU can translate ("
            f"{', '.join(_span(*each) for each in ranges) or 'there is none'})",
            code="iova-out-of-range",
            hint=_what_fits(space, size),
        )
    for other, length in space.mappings:
        if iova < other + length and other <= last:
            raise UsageError(
                f"{wanted} overlaps the mapping {_span(other, other + length - 1)}",
                code="mapping-overlap",
                hint=_what_fits(space, size),
            )


def place(space: Space, size: int) -> int:
    """The lowest suitable IOVA for ``size`` bytes, 0 included, as virtual machines lay out their memory.

    Aligned to the largest page size of the IOMMU, up to 1G, that ``size`` fills, so that large pages can be
    used; to a smaller one where that does not fit. UsageError ``iova-out-of-range`` when nothing fits.
    """
    _check_size(space, size, "size")
    found = _first_fit(space, size)
    if found is not None:
        return found
    largest = max(((end - start + 1, start) for start, end in free(space)), default=(0, 0))
    raise UsageError(
        f"there is no free IOVA range of {format_size(size)}",
        code="iova-out-of-range",
        hint=f"The largest free one holds {format_size(largest[0])}, at {format_iova(largest[1])}."
        if largest[0]
        else "No IOVA is left in this address space.",
    )


def split(iova: int, size: int, chunk: int | None) -> Iterator[Piece]:
    """Cut a mapping into pieces of ``chunk`` bytes; None leaves it whole."""
    for done in range(0, size, chunk or size):
        yield Piece(iova + done, min(chunk or size, size - done))


def free(space: Space) -> list[tuple[int, int]]:
    """The (first, last) IOVAs that nothing occupies, lowest first."""
    taken = sorted(
        [(start, end) for start, end, _ in _enforced(space.reserved)]
        + [(iova, iova + size - 1) for iova, size in space.mappings]
    )
    left = []
    for start, end in sorted(_ranges(space)):
        for first, last in taken:
            if last < start or first > end:
                continue
            if first > start:
                left.append((start, first - 1))
            start = last + 1
        if start <= end:
            left.append((start, end))
    return left


def _first_fit(space: Space, size: int) -> int | None:
    granule = space.granule
    alignments = [each for each in page_sizes(space.page_sizes) if each <= min(size, LARGEST_ALIGNMENT)]
    gaps = free(space)
    for alignment in sorted({granule, *alignments}, reverse=True):
        for start, end in gaps:
            iova = -(-start // alignment) * alignment
            if iova + size - 1 <= end:
                return iova
    return None


def _check_size(space: Space, size: int, what: str) -> None:
    if not 0 < size < LIMIT:
        raise UsageError(
            f"{what} {size} is not possible: it must be more than 0 and fit into 64 bits", code="size-invalid"
        )
    if size % space.granule:
        up = -(-size // space.granule) * space.granule
        raise UsageError(
            f"{what} {format_size(size)} is not a multiple of {_page(space)}",
            code="size-misaligned",
            hint=f"the next larger one that is: {format_size(up)}",
        )


def _ranges(space: Space) -> tuple[tuple[int, int], ...]:
    return space.ranges if space.ranges is not None else ((0, LIMIT - 1),)


def _enforced(reserved: Iterable[tuple[int, int, str]]) -> Iterator[tuple[int, int, str]]:
    # The kernel lets VFIO use direct-relaxable regions (vfio_iommu_resv_exclude, since 5.4).
    return (region for region in reserved if region[2] != "direct-relaxable")


def _what_fits(space: Space, size: int) -> str:
    found = _first_fit(space, size)
    if found is None:
        return f"no free range holds {format_size(size)}: ask for less"
    return f"{format_iova(found)} would fit; without an IOVA, vfioctl chooses one"


def _no_entries(count: int, left: int) -> KernelRefusal:
    return KernelRefusal(
        f"{count} mappings are wanted and the IOMMU driver allows {left} more in this container",
        code="no-entries-left",
        errno=errno.ENOSPC,
        hint="use larger chunks, or raise /sys/module/vfio_iommu_type1/parameters/dma_entry_limit"
        " (it counts for containers set up afterwards)",
    )


def _page(space: Space) -> str:
    return f"the IOMMU's page size {format_size(space.granule)}"


def _span(start: int, end: int) -> str:
    return f"{format_iova(start)}-{format_iova(end)}"
