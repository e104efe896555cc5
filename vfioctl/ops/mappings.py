"""What is mapped in a container, and the memory behind it: planned as a whole, made or undone step by step."""

from __future__ import annotations

import mmap
import os
import time
from bisect import bisect_right
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain, repeat
from typing import TYPE_CHECKING, NamedTuple

from vfioctl.errors import KernelRefusal, NotFound, UsageError, VfioctlError
from vfioctl.host import memory
from vfioctl.host.ioctl import CallError, Refused
from vfioctl.host.memory import Memory, Source
from vfioctl.ops.explained import explained
from vfioctl.policy import mapping as planning
from vfioctl.policy.iova import Space
from vfioctl.policy.mapping import Facts, File, Placed, Plan, Want
from vfioctl.policy.refusals import State
from vfioctl.policy.sizes import format_iova

if TYPE_CHECKING:
    from vfioctl.ops.container import Container

#: Transparent huge pages are of this size with 4K pages; a buffer that starts on one is pinned faster.
HUGE_PAGE = 2 << 20

#: Mappings that are made between two looks at the clock.
BATCH = 512

#: Seconds that a step of a long request takes at least, but for its last; others wait no longer than that and a batch.
STEP = 0.1

#: What a long request yields: the stage ("populate", "map", "unmap"), what is done of it, and how much it is in all.
Progress = tuple[str, int, int]


class Run(NamedTuple):
    """Mappings that follow one another: devices reach at ``iova`` ``size`` bytes of ``memory`` from ``offset`` on, in
    mappings of ``chunk`` bytes each, of which the last may be smaller."""

    iova: int
    size: int
    chunk: int
    prot: str
    source: str
    memory: Memory
    offset: int

    @property
    def end(self) -> int:
        """The first IOVA behind it."""
        return self.iova + self.size

    @property
    def pieces(self) -> int:
        """How many mappings it is."""
        return -(-self.size // self.chunk)

    def part(self, start: int, end: int) -> Run:
        """The mappings between two IOVAs, which are edges of mappings."""
        return self._replace(iova=start, size=end - start, offset=self.offset + start - self.iova)


class Mappings:
    """The mappings of a container. The methods raise VfioctlError, and have changed nothing then."""

    def __init__(self, container: Container) -> None:
        self._container = container
        #: By IOVA, lowest first.
        self.runs: list[Run] = []

    @property
    def size(self) -> int:
        """Bytes mapped in all."""
        return sum(run.size for run in self.runs)

    # --- mapping ---------------------------------------------------------------------------------

    def plan(
        self, wants: Sequence[Want], fd: int | None = None, process: int | None = None
    ) -> tuple[Space, Plan]:
        """The address space as it is, where ``wants`` would lie in it, and what stands in the way. ``fd`` is the file
        for those of a file, ``process`` the pid by which the limits of this process can be raised."""
        limits = memory.memlock()
        per_user = self._container.space.accounting == "user"
        facts = Facts(
            available=memory.available(),
            memlock_limit=limits.limit,
            locked=memory.pinned_by(os.geteuid()) if per_user else limits.locked,
            cap_ipc_lock=limits.cap_ipc_lock,
            per_user=per_user,
            pools=memory.hugepages(),
            file=None if fd is None else File(*memory.file_facts(fd)),
            process=process,
            user=self._container.state.user,
            page_size=mmap.PAGESIZE,
        )
        space = self._container.plan_space()
        return space, planning.plan_all(space, wants, facts)

    def map(
        self, wants: Sequence[Want], fd: int | None = None, process: int | None = None
    ) -> Generator[Progress, None, list[Run]]:
        """Maps all of ``wants``, or nothing; returns what was made, in their order."""
        space, plan = self.plan(wants, fd, process)
        state = self._container.state._replace(
            page_size=space.granule,
            process=process,
            per_user=self._container.space.accounting == "user",
        )
        buffers: list[Memory] = []
        try:
            placed = plan.enforce()
            runs = _with_memory(placed, fd, _page_of(space, placed), state, buffers)
            # Where pinning is not allowed, the kernel refuses after the limit is reached: populating were in vain.
            if plan.may_pin:
                yield from _populate(buffers, runs, state)
            for buffer in buffers:
                self._container.space.prepare(buffer.address, buffer.size)
            yield from self._make(runs, state)
        except BaseException:
            for buffer in buffers:
                with suppress(VfioctlError):
                    self._container.space.release(buffer.address, buffer.size)
                buffer.close()
            raise
        self.runs = sorted([*self.runs, *runs], key=lambda run: run.iova)
        return runs

    def _make(self, runs: Sequence[Run], state: State) -> Iterator[Progress]:
        backend = self._container.space
        total, covered = sum(run.size for run in runs), 0
        told = time.monotonic()
        made: list[tuple[int, int]] = []
        try:
            for run in runs:
                for start in range(0, run.size, run.chunk * BATCH):
                    end = done = min(run.size, start + run.chunk * BATCH)
                    try:
                        backend.map(_pieces(run, start, end), run.prot)
                    except Refused as error:
                        _, iova, size = error.item
                        done = iova - run.iova
                        about = state._replace(iova=iova, size=size, wanted=total - covered - done)
                        with explained(about._replace(file_system=_file_system(run))):
                            raise error
                    finally:  # a signal stops it anywhere: then the whole batch is taken back
                        if done > start:
                            made.append((run.iova + start, done - start))
                    if time.monotonic() - told >= STEP or covered + end == total:
                        yield "map", covered + end, total
                        told = time.monotonic()
                covered += run.size
        except BaseException:
            # The error that is on its way matters more.
            for iova, size in reversed(made):
                with suppress(CallError):
                    backend.unmap(iova, size)
            raise

    # --- unmapping -------------------------------------------------------------------------------

    def unmap(self, iova: int, size: int | None = None) -> Iterator[Progress]:
        """Unmaps whole mappings in a range; without ``size``, the one that begins at ``iova``. Raises NotFound when
        nothing is mapped there, UsageError when the range would cut a mapping."""
        if size is None:
            run = self._at(iova)
            size = 1 if run is None else min(run.chunk, run.end - iova)
        end = iova + size
        found = [run for run in self.runs if run.iova < end and iova < run.end]
        if not found:
            raise _not_mapped(iova)
        for run in found:
            for edge in (iova, end):
                if run.iova < edge < run.end and (edge - run.iova) % run.chunk:
                    raise _cut(run, edge)
        yield from self._unmap([run.part(max(iova, run.iova), min(end, run.end)) for run in found])

    def unmap_all(self) -> Iterator[Progress]:
        """Unmaps everything: in one call where the kernel has one."""
        total = self.size
        if total:
            with explained(self._container.state):
                unmapped = self._container.space.unmap_all()
            if unmapped is not None:
                if unmapped < total:  # it is more when others have mapped too
                    raise _short(unmapped, total, "in all")
                self.forget()
                return
        yield from self._unmap(list(self.runs))

    def _unmap(self, parts: Sequence[Run]) -> Iterator[Progress]:
        total, covered = sum(part.size for part in parts), 0
        told = time.monotonic()
        for part in reversed(parts):
            end = part.end
            while end > part.iova:
                begin = max(part.iova, end - part.chunk * BATCH)
                begin += (part.iova - begin) % part.chunk  # the last mapping may be smaller than the others
                with explained(self._container.state._replace(iova=begin, size=end - begin)):
                    unmapped = self._container.space.unmap(begin, end - begin)
                if unmapped != end - begin:
                    raise _short(unmapped, end - begin, f"at IOVA {format_iova(begin)}")
                self._remove(begin, end)
                covered += end - begin
                end = begin
                if time.monotonic() - told >= STEP or covered == total:
                    yield "unmap", covered, total
                    told = time.monotonic()

    def _remove(self, start: int, end: int) -> None:
        at = bisect_right(self.runs, start, key=lambda run: run.iova) - 1
        run = self.runs[at]
        rest = [run.part(*span) for span in ((run.iova, start), (end, run.end)) if span[0] < span[1]]
        self.runs[at : at + 1] = rest
        if not rest:
            self._close_unused([run])

    def forget(self) -> None:
        """The kernel has dropped all mappings."""
        gone, self.runs = self.runs, []
        self._close_unused(gone)

    def _close_unused(self, gone: Iterable[Run]) -> None:
        used = {id(run.memory) for run in self.runs}
        for buffer in {id(run.memory): run.memory for run in gone if id(run.memory) not in used}.values():
            if self._container.backend is not None:
                self._container.backend.release(buffer.address, buffer.size)
            buffer.close()

    # --- memory ----------------------------------------------------------------------------------

    def read(self, iova: int, size: int) -> bytes:
        """Bytes of mapped memory. Raises NotFound for what is not mapped."""
        with explained(self._container.state._replace(iova=iova, size=size)):
            return b"".join(run.memory.read(offset, count) for run, offset, count in self._parts(iova, size))

    def write(self, iova: int, data: bytes) -> None:
        """Stores bytes in mapped memory. Raises NotFound for what is not mapped."""
        done = 0
        with explained(self._container.state._replace(iova=iova, size=len(data))):
            for run, offset, count in self._parts(iova, len(data)):
                run.memory.write(offset, data[done : done + count])
                done += count

    def _parts(self, iova: int, size: int) -> list[tuple[Run, int, int]]:
        found = []
        while size > 0:
            run = self._at(iova)
            if run is None:
                raise _not_mapped(iova)
            count = min(size, run.end - iova)
            found.append((run, run.offset + iova - run.iova, count))
            iova, size = iova + count, size - count
        return found

    def _at(self, iova: int) -> Run | None:
        at = bisect_right(self.runs, iova, key=lambda run: run.iova) - 1
        return self.runs[at] if at >= 0 and iova < self.runs[at].end else None


def _file_system(run: Run) -> str | None:
    if run.source != "file" or run.memory.fd is None or run.prot == "r":
        return None
    found = memory.file_facts(run.memory.fd).file_system
    return None if found in planning.PINNABLE else found


def _pieces(run: Run, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """The mappings of a run between two offsets: (vaddr, iova, size)."""
    vaddr = run.memory.address + run.offset
    rest = (end - start) % run.chunk
    whole = end - rest
    return chain(
        zip(
            range(vaddr + start, vaddr + whole, run.chunk),
            range(run.iova + start, run.iova + whole, run.chunk),
            repeat(run.chunk),
            strict=False,
        ),
        [(vaddr + whole, run.iova + whole, rest)] if rest else [],
    )


def _with_memory(
    placed: Sequence[Placed], fd: int | None, granule: int, state: State, buffers: list[Memory]
) -> list[Run]:
    """Memory for each, added to ``buffers``: one for all of a source, so that a long list takes no mmap a line."""
    runs: dict[int, Run] = {}
    for source in dict.fromkeys(each.want.source for each in placed):
        mine = {at: each for at, each in enumerate(placed) if each.want.source == source}
        page = planning.page_size_of(source)
        base, offsets = _offsets([each.want for each in mine.values()], max(granule, page or 0))
        size = max(at + each.want.size for at, each in zip(offsets, mine.values(), strict=True))
        kind = Source("hugepages" if page else source, page, base, fd if source == "file" else None)
        with explained(state._replace(size=size)):
            buffers.append(memory.make(kind, size, _alignment(size, granule)))
        for (at, each), offset in zip(mine.items(), offsets, strict=True):
            want = each.want
            chunk = min(want.chunk or want.size, want.size)
            runs[at] = Run(each.iova, want.size, chunk, want.prot, source, buffers[-1], offset)
    return [runs[at] for at in sorted(runs)]


def _offsets(wants: Sequence[Want], granule: int) -> tuple[int, list[int]]:
    """Where in a file the memory of all begins, and where in the memory that of each: in pages of its own, as they were
    counted, for a window of sPAPR may have pages as large."""
    if wants[0].source == "file":
        base = min(want.offset for want in wants)
        return base, [want.offset - base for want in wants]
    end = 0
    offsets = []
    for want in wants:
        alignment = _alignment(want.size, granule)
        offsets.append(-(-end // alignment) * alignment)
        end = offsets[-1] + want.size
    return 0, offsets


def _page_of(space: Space, placed: Sequence[Placed]) -> int:
    """The largest page size of the ranges in which mappings are placed: memory has to be aligned to it, too."""
    if space.pages is None:
        return space.granule
    windows = space.windows
    return max(page for each in placed for first, last, page in windows if first <= each.iova <= last)


def _alignment(size: int, granule: int) -> int:
    return max(granule, HUGE_PAGE if size >= HUGE_PAGE else mmap.PAGESIZE)


def _populate(buffers: Sequence[Memory], runs: Sequence[Run], state: State) -> Iterator[Progress]:
    """Gives all pages that are to be mapped memory. Raises KernelRefusal."""
    parts = [(buffer, *part) for buffer in buffers for part in _parts(buffer, runs)]
    total, covered = sum(size for _, _, size in parts), 0
    told = time.monotonic()
    for buffer, start, size in parts:
        with explained(state._replace(size=size)):
            for done in buffer.prefault(start, size):
                if time.monotonic() - told >= STEP or covered + done == total:
                    yield "populate", covered + done, total
                    told = time.monotonic()
        covered += size


def _parts(buffer: Memory, runs: Sequence[Run]) -> list[tuple[int, int]]:
    """(offset, size) of what runs have of a buffer, as few as can be: all of it, but of a file what lies between is not
    wanted, and in a sparse one not there."""
    if buffer.source.kind != "file":
        return [(0, buffer.size)]
    parts: list[tuple[int, int]] = []
    for start, size in sorted((run.offset, run.size) for run in runs if run.memory is buffer):
        if parts and start <= sum(parts[-1]):
            begin = parts[-1][0]
            parts[-1] = (begin, max(sum(parts[-1]), start + size) - begin)
        else:
            parts.append((start, size))
    return parts


def _not_mapped(iova: int) -> NotFound:
    return NotFound(
        f"nothing is mapped at IOVA {format_iova(iova)}",
        hint="vfioctl memory list -c NAME shows what is",
        subject=format_iova(iova),
        code="not-mapped",
    )


def _cut(run: Run, iova: int) -> UsageError:
    begin = iova - (iova - run.iova) % run.chunk
    size = min(run.chunk, run.end - begin)
    return UsageError(
        f"IOVA {format_iova(iova)} is inside the mapping {format_iova(begin)}-{format_iova(begin + size - 1)}, and an"
        " IOMMU takes mappings back whole",
        hint=f"unmap it as it was made: --iova {format_iova(begin)} --size {size}",
        subject=format_iova(iova),
        code="mapping-cut",
    )


def _short(unmapped: int, wanted: int, where: str) -> KernelRefusal:
    return KernelRefusal(
        f"the kernel unmapped {unmapped} of {wanted} bytes {where}",
        code="unmap-short",
        hint="closing the container drops the rest; please report this",
    )
