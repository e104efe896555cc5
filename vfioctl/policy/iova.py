"""Where a mapping may lie: checked and explained before the kernel is asked (floor 3, pure).

The rules are those of vfio_iommu_type1: IOVA and size are multiples of the smallest page size, the range lies
inside one IOVA range, overlaps no other mapping, and the number of mappings is limited (``dma_entry_limit``).
Those of iommufd are the same without a limit, and those of sPAPR too, but that each range (window) has pages of its
own and the kernel does not notice an overlap.
"""

from __future__ import annotations

import errno
from bisect import bisect_right, insort
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
    (iova, size), where many that follow one another may be one; ``entries`` is how many more mappings the kernel
    allows, None where it does not tell. ``pages`` are the page sizes of the ranges, one each, where each range has
    its own (sPAPR's windows). ``charge`` is what counts as locked memory next in the place of what is mapped (with
    sPAPR v1 the whole window, once).
    """

    page_sizes: int = DEFAULT_PAGE_SIZES
    ranges: tuple[tuple[int, int], ...] | None = None
    reserved: Sequence[tuple[int, int, str]] = ()
    mappings: Sequence[tuple[int, int]] = ()
    entries: int | None = None
    pages: tuple[int, ...] | None = None
    charge: int | None = None

    @property
    def granule(self) -> int:
        """The smallest page size: every IOVA and size is a multiple of it."""
        sizes = self.page_sizes or DEFAULT_PAGE_SIZES
        return min(self.pages) if self.pages else sizes & -sizes

    @property
    def windows(self) -> list[tuple[int, int, int]]:
        """The ranges as (first, last, smallest page size), lowest first."""
        ranges = self.ranges if self.ranges is not None else ((0, LIMIT - 1),)
        pages = self.pages or (self.granule,) * len(ranges)
        return sorted((*each, page) for each, page in zip(ranges, pages, strict=True))


class Layout:
    """A space being filled: what is taken of it and what is left. Costs what the changes cost, however many."""

    def __init__(self, space: Space) -> None:
        self.space = space
        #: What is left, lowest first: (first, last, smallest page size).
        self.gaps: list[tuple[int, int, int]] = []
        #: What is mapped, lowest first: (iova, size).
        self.taken = sorted(space.mappings)
        occupied = sorted(
            [(start, end) for start, end, _ in _enforced(space.reserved)]
            + [(iova, iova + size - 1) for iova, size in space.mappings]
        )
        at = 0
        reach = -1
        for start, end, page in space.windows:
            while at < len(occupied) and occupied[at][0] <= end:
                first, last = occupied[at]
                if first > max(start, reach + 1):
                    self.gaps.append((max(start, reach + 1), first - 1, page))
                reach = max(reach, last)
                at += 1
            if max(start, reach + 1) <= end:
                self.gaps.append((max(start, reach + 1), end, page))

    def reasons(self, iova: int, size: int) -> list[UsageError]:
        """Everything that stands in the way of mapping ``size`` bytes at ``iova``; see :func:`check`."""
        return [] if self.fits(iova, size) else list(self._reasons(iova, size))

    def fits(self, iova: int, size: int) -> bool:
        """Whether nothing stands in the way."""
        at = bisect_right(self.gaps, iova, key=lambda gap: gap[0]) - 1
        if at < 0 or not 0 < size < LIMIT:
            return False
        _, end, page = self.gaps[at]
        return iova + size - 1 <= end and not (iova | size) & (page - 1)

    def page_at(self, iova: int) -> int:
        """The smallest page size where ``iova`` is."""
        windows = (page for start, end, page in self.space.windows if start <= iova <= end)
        return next(windows, self.space.granule)

    def find(self, size: int, backing: int = LIMIT) -> int | None:
        """The IOVA that :func:`place` chooses for ``size`` bytes of memory with pages of ``backing`` bytes, or None.
        Where ranges have pages of their own, those of the memory must not be smaller (sPAPR answers EPERM)."""
        space = self.space
        alignments = [each for each in page_sizes(space.page_sizes) if each <= min(size, LARGEST_ALIGNMENT)]
        for alignment in sorted({space.granule, *alignments}, reverse=True):
            for start, end, page in self.gaps:
                if space.pages is not None and page > backing:
                    continue
                step = max(alignment, page)
                iova = -(-start // step) * step
                if iova + size - 1 <= end and not size & (page - 1):
                    return iova
        return None

    def take(self, iova: int, size: int) -> None:
        """Occupy a range for which there are no :meth:`reasons`."""
        at = bisect_right(self.gaps, iova, key=lambda gap: gap[0]) - 1
        start, end, page = self.gaps[at]
        rest = [(start, iova - 1, page), (iova + size, end, page)]
        self.gaps[at : at + 1] = [each for each in rest if each[0] <= each[1]]
        insort(self.taken, (iova, size))

    def largest(self) -> tuple[int, int]:
        """The size and the start of the largest gap; (0, 0) for none."""
        return max(((end - start + 1, start) for start, end, _ in self.gaps), default=(0, 0))

    def _reasons(self, iova: int, size: int) -> Iterator[UsageError]:
        space = self.space
        last = iova + size - 1
        windows = space.windows
        page = self.page_at(iova)
        if (wrong := wrong_size(page, size, "size")) is not None:
            yield wrong
            if wrong.code == "size-invalid":
                return
        if iova % page:
            yield UsageError(
                f"IOVA {format_iova(iova)} is not a multiple of {_page(page)}",
                code="iova-misaligned",
                hint=f"the next lower one that is: {format_iova(iova - iova % page)}",
            )
        wanted = f"{format_size(size)} at IOVA {_span(iova, last)}"
        for start, end, kind in _enforced(space.reserved):
            if iova <= end and start <= last:
                yield UsageError(
                    f"{wanted} overlaps the reserved region {_span(start, end)} ({kind})",
                    code="iova-reserved",
                    hint=self._what_fits(size),
                )
        if not any(start <= iova and last <= end for start, end, _ in windows):
            yield UsageError(
                f"{wanted} is not inside a range that the IOMMU can translate ("
                f"{', '.join(_span(*each[:2]) for each in windows) or 'there is none'})",
                code="iova-out-of-range",
                hint=self._what_fits(size),
            )
        other = next((each for each in self.taken if each[0] <= last and iova < sum(each)), None)
        if other is not None:
            yield UsageError(
                f"{wanted} overlaps the mapping {_span(other[0], sum(other) - 1)}",
                code="mapping-overlap",
                hint=self._what_fits(size),
            )

    def _what_fits(self, size: int) -> str:
        found = self.find(size)
        if found is None:
            return f"no free range holds {format_size(size)}: ask for less"
        return f"{format_iova(found)} would fit; without an IOVA, vfioctl chooses one"


def runs(bitmap: int) -> Iterator[tuple[int, int]]:
    """The (first, count) of the bits that are set in a bitmap, lowest first; those that follow each other are one."""
    first = 0
    while bitmap:
        clear = (bitmap & -bitmap).bit_length() - 1
        bitmap >>= clear
        count = (~bitmap & bitmap + 1).bit_length() - 1
        first += clear
        yield first, count
        bitmap >>= count
        first += count


def page_sizes(bitmap: int) -> tuple[int, ...]:
    """The page sizes of a bitmap, in bytes, smallest first."""
    return tuple(1 << bit for bit in range(bitmap.bit_length()) if bitmap >> bit & 1)


def plan(space: Space, size: int, iova: int | None = None, chunk: int | None = None) -> tuple[Piece, ...]:
    """The mappings that make up ``size`` bytes at ``iova``, or at a place of our choice.

    With ``chunk``, mappings of that many bytes each (the last may be smaller). Raises UsageError, or
    KernelRefusal ``no-entries-left``, as :func:`check` does.
    """
    _raise(wrong_size(space.granule, size, "size"))
    if chunk is not None:
        _raise(wrong_size(space.granule, chunk, "chunk"))
    if iova is None:
        iova = place(space, size)
    else:
        check(space, iova, size)
    count = pieces(size, chunk)
    if space.entries is not None and count > space.entries:
        raise no_entries(count, space.entries)
    return tuple(split(iova, size, chunk))


def check(space: Space, iova: int, size: int) -> None:
    """Raise UsageError saying what stands in the way of mapping ``size`` bytes at ``iova``.

    Codes: ``size-invalid``, ``size-misaligned``, ``iova-misaligned``, ``iova-out-of-range``,
    ``iova-reserved``, ``mapping-overlap``.
    """
    for reason in Layout(space).reasons(iova, size):
        raise reason


def place(space: Space, size: int) -> int:
    """The lowest suitable IOVA for ``size`` bytes, 0 included, as virtual machines lay out their memory.

    Aligned to the largest page size of the IOMMU, up to 1G, that ``size`` fills, so that large pages can be
    used; to a smaller one where that does not fit. UsageError ``iova-out-of-range`` when nothing fits.
    """
    _raise(wrong_size(space.granule, size, "size"))
    layout = Layout(space)
    found = layout.find(size)
    if found is None:
        raise no_place(layout, size)
    return found


def pieces(size: int, chunk: int | None) -> int:
    """How many mappings ``size`` bytes in chunks are."""
    return 1 if chunk is None else -(-size // chunk)


def split(iova: int, size: int, chunk: int | None) -> Iterator[Piece]:
    """Cut a mapping into pieces of ``chunk`` bytes; None leaves it whole."""
    for done in range(0, size, chunk or size):
        yield Piece(iova + done, min(chunk or size, size - done))


def free(space: Space) -> list[tuple[int, int]]:
    """The (first, last) IOVAs that nothing occupies, lowest first."""
    return [(start, end) for start, end, _ in Layout(space).gaps]


def wrong_size(page: int, size: int, what: str) -> UsageError | None:
    """What is wrong with a size (``what``: how the message calls it) where pages are of ``page`` bytes."""
    if not 0 < size < LIMIT:
        return UsageError(
            f"{what} {size} is not possible: it must be more than 0 and fit into 64 bits", code="size-invalid"
        )
    if size % page:
        return UsageError(
            f"{what} {format_size(size)} is not a multiple of {_page(page)}",
            code="size-misaligned",
            hint=f"the next larger one that is: {format_size(-(-size // page) * page)}",
        )
    return None


def no_place(layout: Layout, size: int) -> UsageError:
    """The refusal when no gap holds ``size`` bytes."""
    room, start = layout.largest()
    return UsageError(
        f"there is no free IOVA range of {format_size(size)}",
        code="iova-out-of-range",
        hint=f"the largest free one holds {format_size(room)}, at {format_iova(start)}"
        if room
        else "no IOVA is left in this address space",
    )


def no_entries(count: int, left: int) -> KernelRefusal:
    """The refusal when the kernel allows fewer mappings than are wanted."""
    return KernelRefusal(
        f"{count} mappings are wanted and the IOMMU driver allows {left} more in this container",
        code="no-entries-left",
        errno=errno.ENOSPC,
        hint="use larger chunks, or raise /sys/module/vfio_iommu_type1/parameters/dma_entry_limit"
        " (it counts for containers set up afterwards)",
    )


def _raise(error: UsageError | None) -> None:
    if error is not None:
        raise error


def _enforced(reserved: Iterable[tuple[int, int, str]]) -> Iterator[tuple[int, int, str]]:
    # The kernel lets VFIO use direct-relaxable regions (vfio_iommu_resv_exclude, since 5.4).
    return (region for region in reserved if region[2] != "direct-relaxable")


def _page(page: int) -> str:
    return f"the IOMMU's page size {format_size(page)}"


def _span(start: int, end: int) -> str:
    return f"{format_iova(start)}-{format_iova(end)}"
