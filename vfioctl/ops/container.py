"""A container: groups in an address space, memory that is mapped for their devices, and the devices that are open.

It belongs to the process that made it: memory is pinned for that process, and all ends with it.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import NamedTuple, Self

from vfioctl.errors import Busy, KernelRefusal, NotFound, UsageError
from vfioctl.host import memory
from vfioctl.host.ioctl import CallError
from vfioctl.host.memory import ANONYMOUS, Memory, Source
from vfioctl.model import Device
from vfioctl.ops.backends import Backend, Member
from vfioctl.ops.backends.choice import choose
from vfioctl.ops.explained import common, explained
from vfioctl.policy import iova as planning
from vfioctl.policy.refusals import State, no_memory
from vfioctl.policy.sizes import format_iova

#: Transparent huge pages are of this size with 4K pages; a buffer that starts on one is pinned faster.
HUGE_PAGE = 2 << 20

#: Mappings that are made between two steps of a long request.
BATCH = 512

#: What a long request yields: the stage ("populate", "map", "unmap"), what is done of it, and how much it is in all.
Progress = tuple[str, int, int]


class Mapped(NamedTuple):
    """What devices reach at ``iova``: ``size`` bytes of ``memory`` from ``offset`` on."""

    iova: int
    size: int
    prot: str
    source: str
    memory: Memory
    offset: int


class Container:
    """Groups that share an address space. The methods raise VfioctlError, and have changed nothing then."""

    def __init__(self, dev: str = "/dev", wanted: str = "auto") -> None:
        self.dev = dev
        self.wanted = wanted
        self.backend: Backend | None = None
        self.members: dict[int, Member] = {}
        #: By IOVA.
        self.mappings: dict[int, Mapped] = {}
        #: Descriptors of open devices, by name.
        self.devices: dict[str, int] = {}
        #: The page size while dirty pages are tracked.
        self.dirty_page: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def space(self) -> Backend:
        """Raises UsageError while there is none, since no group is in the container."""
        if self.backend is None:
            raise UsageError("no group is in the container", code="groups-invalid")
        return self.backend

    @property
    def state(self) -> State:
        """What is known when a call concerns the whole container."""
        state = common(member.state for member in self.members.values())
        return state if self.backend is None else state._replace(backend=self.backend.name)

    # --- groups ----------------------------------------------------------------------------------

    def add(self, members: Sequence[Member]) -> None:
        """Takes groups in: all of them, or none."""
        numbers = [member.group.id for member in members]
        if not numbers or len(set(numbers)) != len(numbers):
            raise UsageError("at least one group is needed, and none twice", code="groups-invalid")
        backend = self.backend or choose(self.wanted, members, self.dev)
        joined: list[int] = []
        try:
            for member in members:
                if member.group.id in self.members:
                    raise Busy(f"group {member.group.id} is in the container already", code="group-busy")
                backend.join(member)
                joined.append(member.group.id)
        except BaseException:
            if self.backend is None:
                backend.close()
            else:
                for number in reversed(joined):
                    backend.leave(number)
            raise
        self.backend = backend
        self.members |= {member.group.id: member for member in members}

    def remove(self, number: int) -> None:
        """Lets a group go, and closes its devices; with the last one go all mappings."""
        member = self.member(number)
        for name in [d.address for d in member.group.devices if d.address in self.devices]:
            self.close_device(name)
        self.space.leave(number)
        del self.members[number]
        if not self.members and self.backend is not None:
            self.backend.close()  # the kernel has forgotten its IOMMU, too
            self.backend = self.dirty_page = None
            self._forget()

    def member(self, number: int) -> Member:
        """Raises NotFound."""
        if number not in self.members:
            raise NotFound(
                f"group {number} is not in the container", subject=str(number), code="not-in-container"
            )
        return self.members[number]

    # --- devices ---------------------------------------------------------------------------------

    def find_device(self, name: str) -> tuple[int, Device]:
        """The group and the record of a device in the container. Raises NotFound."""
        for number, member in self.members.items():
            for device in member.group.devices:
                if device.address == name:
                    return number, device
        raise NotFound(f"{name} is not in the container", subject=name, code="not-in-container")

    def open_device(self, name: str) -> int:
        """A descriptor of a device; the container's own, which stays open. Opening resets the device."""
        if name not in self.devices:
            number, _ = self.find_device(name)
            self.devices[name] = self.space.open_device(number, name)
        return self.devices[name]

    def close_device(self, name: str) -> None:
        """Closes what ``open_device`` gave."""
        self.space.close_device(name, self.devices.pop(name))

    # --- mappings --------------------------------------------------------------------------------

    def plan_space(self) -> planning.Space:
        """The address space as it is now."""
        offer = self.space.offer()
        regions = [region for member in self.members.values() for region in member.group.reserved_regions]
        return planning.Space(
            page_sizes=offer.page_sizes or mmap.PAGESIZE,
            ranges=offer.ranges,
            reserved=[(region.start, region.end, region.type) for region in regions],
            mappings=tuple((each.iova, each.size) for each in self.mappings.values()),
            entries=offer.entries,
        )

    def map(
        self,
        size: int,
        iova: int | None = None,
        chunk: int | None = None,
        prot: str = "rw",
        source: Source = ANONYMOUS,
    ) -> Iterator[Progress]:
        """Maps ``size`` bytes of ``source``, in pieces of ``chunk`` bytes, at ``iova`` or where they fit. All of it, or
        nothing. The new mappings are the last of ``mappings``."""
        space = self.plan_space()
        pieces = planning.plan(space, size, iova, chunk)
        state = self.state._replace(size=size, page_size=space.granule)
        alignment = max(space.granule, HUGE_PAGE if size >= HUGE_PAGE else mmap.PAGESIZE)
        with explained(state):
            buffer = memory.make(source, size, alignment)
        done: list[planning.Piece] = []
        try:
            with explained(state):
                yield from _populate(buffer, state)
            yield from self._map(buffer, pieces, prot, state, done)
        except BaseException:
            # The error that is on its way matters more.
            for piece in reversed(done):
                with suppress(CallError):
                    self.space.unmap(piece.iova, piece.size)
            buffer.close()
            raise
        for piece in pieces:
            offset = piece.iova - pieces[0].iova
            self.mappings[piece.iova] = Mapped(piece.iova, piece.size, prot, source.kind, buffer, offset)

    def _map(
        self,
        buffer: Memory,
        pieces: Sequence[planning.Piece],
        prot: str,
        state: State,
        done: list[planning.Piece],
    ) -> Iterator[Progress]:
        first, total = pieces[0].iova, sum(piece.size for piece in pieces)
        mapped = self.space.map(((buffer.address + p.iova - first, p.iova, p.size) for p in pieces), prot)
        covered = 0
        while len(done) < len(pieces):
            try:
                for _, iova, size in islice(mapped, BATCH):
                    done.append(planning.Piece(iova, size))
                    covered += size
            except CallError as error:
                failed = pieces[len(done)]
                with explained(state._replace(iova=failed.iova, size=failed.size, wanted=total - covered)):
                    raise error
            yield "map", covered, total

    def unmap(self, iova: int, size: int | None = None) -> Iterator[Progress]:
        """Unmaps whole mappings in a range; without ``size``, the one that begins at ``iova``. Raises NotFound when
        nothing is mapped there, UsageError when the range would cut a mapping."""
        end = iova + (size if size is not None else 1)
        found = [m for m in self.mappings.values() if m.iova < end and iova < m.iova + m.size]
        if not found:
            raise NotFound(
                f"nothing is mapped at IOVA {format_iova(iova)}",
                hint="vfioctl container show NAME lists the mappings",
                subject=format_iova(iova),
                code="not-mapped",
            )
        cut = [m for m in found if m.iova < iova or (size is not None and m.iova + m.size > end)]
        if cut:
            raise UsageError(
                f"the range cuts the mapping at IOVA {format_iova(cut[0].iova)}, of {cut[0].size} bytes",
                hint="an IOMMU takes mappings back as they were made: give its IOVA alone",
                subject=format_iova(iova),
                code="mapping-cut",
            )
        yield from self._unmap(found)

    def unmap_all(self) -> Iterator[Progress]:
        """Unmaps everything: in one call where the kernel has one."""
        everything = list(self.mappings.values())
        total = sum(each.size for each in everything)
        if everything:
            with explained(self.state):
                unmapped = self.space.unmap_all()
            if unmapped is not None:
                if unmapped < total:  # it is more when others have mapped too
                    raise _short(unmapped, total, "in all")
                self._forget()
                return
        yield from self._unmap(everything)

    def _unmap(self, mappings: Iterable[Mapped]) -> Iterator[Progress]:
        mappings = list(mappings)
        total = sum(each.size for each in mappings)
        covered = 0
        for number, each in enumerate(reversed(mappings), 1):
            with explained(self.state._replace(iova=each.iova, size=each.size)):
                unmapped = self.space.unmap(each.iova, each.size)
            if unmapped != each.size:
                raise _short(unmapped, each.size, f"at IOVA {format_iova(each.iova)}")
            del self.mappings[each.iova]
            covered += each.size
            if number % BATCH == 0:
                yield "unmap", covered, total
        self._close_unused(mappings)

    def _close_unused(self, gone: Iterable[Mapped]) -> None:
        used = {id(each.memory) for each in self.mappings.values()}
        for buffer in {id(each.memory): each.memory for each in gone if id(each.memory) not in used}.values():
            buffer.close()

    def _forget(self) -> None:
        """The kernel has dropped all mappings."""
        gone = list(self.mappings.values())
        self.mappings.clear()
        self._close_unused(gone)

    # --- memory ----------------------------------------------------------------------------------

    def read(self, iova: int, size: int) -> bytes:
        """Bytes of mapped memory. Raises NotFound for what is not mapped."""
        return b"".join(each.memory.read(offset, count) for each, offset, count in self._parts(iova, size))

    def write(self, iova: int, data: bytes) -> None:
        """Stores bytes in mapped memory. Raises NotFound for what is not mapped."""
        done = 0
        for each, offset, count in self._parts(iova, len(data)):
            each.memory.write(offset, data[done : done + count])
            done += count

    def _parts(self, iova: int, size: int) -> list[tuple[Mapped, int, int]]:
        found = []
        while size > 0:
            each = self.mappings.get(iova) or next(
                (m for m in self.mappings.values() if m.iova <= iova < m.iova + m.size), None
            )
            if each is None:
                raise NotFound(
                    f"nothing is mapped at IOVA {format_iova(iova)}",
                    hint="vfioctl container show NAME lists the mappings",
                    subject=format_iova(iova),
                    code="not-mapped",
                )
            inside = iova - each.iova
            count = min(size, each.size - inside)
            found.append((each, each.offset + inside, count))
            iova, size = iova + count, size - count
        return found

    # --- dirty pages -----------------------------------------------------------------------------

    def dirty_start(self) -> None:
        """Begins to note which pages devices write. Raises Busy when that is done already."""
        if self.dirty_page is not None:
            raise Busy(
                "dirty pages are tracked already", hint="vfioctl dirty stop ends it", code="dirty-tracking"
            )
        self.dirty_page = self.space.dirty_start()

    def dirty_read(self) -> list[tuple[int, int]]:
        """(iova, size) of what devices have written since it was asked for last. Raises UsageError when nothing has
        been started."""
        page = self._dirty_page()
        found: list[tuple[int, int]] = []
        for each in sorted(self.mappings.values(), key=lambda mapped: mapped.iova):
            bitmap = int.from_bytes(self.space.dirty_read(each.iova, each.size, page), "little")
            found += [
                (each.iova + first * page, min(count * page, each.size - first * page))
                for first, count in planning.runs(bitmap)
            ]
        return found

    def dirty_stop(self) -> None:
        """Ends it."""
        self._dirty_page()
        self.space.dirty_stop()
        self.dirty_page = None

    def _dirty_page(self) -> int:
        if self.dirty_page is None:
            raise UsageError(
                "dirty pages are not tracked", hint="vfioctl dirty start begins it", code="dirty-tracking"
            )
        return self.dirty_page

    # --- the end ---------------------------------------------------------------------------------

    def close(self) -> None:
        """Lets everything go, in reverse order. Closing drops mappings, pinned pages and the ownership of DMA."""
        for name in list(self.devices):
            self.close_device(name)
        if self.backend is not None:
            self.backend.close()
            self.backend = None
        self.members.clear()
        self._forget()


def _short(unmapped: int, wanted: int, where: str) -> KernelRefusal:
    return KernelRefusal(
        f"the kernel unmapped {unmapped} of {wanted} bytes {where}",
        code="unmap-short",
        hint="closing the container drops the rest; please report this",
    )


def _populate(buffer: Memory, state: State) -> Iterator[Progress]:
    """Gives all pages memory, unless pinning them will be refused anyway. Raises KernelRefusal."""
    available = memory.available()
    if not memory.memlock().allows(buffer.size):
        # Mapping will refuse after pinning up to the limit; populating everything first would be in vain.
        return
    if available is not None and buffer.size > available:
        raise no_memory(state)
    for done in buffer.prefault():
        yield "populate", done, buffer.size
