"""Map memory for groups, prove it and let go of everything; ask an IOMMU what it offers (floor 4)."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple

from vfioctl.errors import DeadlinePassed, KernelRefusal
from vfioctl.host import memory, vfio
from vfioctl.host.bounded import Expired
from vfioctl.host.ioctl import CallError
from vfioctl.host.vfio import GroupStatus
from vfioctl.ops.container import ask_extensions, attached, common, explained, node, opened_container
from vfioctl.policy import iova as planning
from vfioctl.policy.refusals import State, no_memory
from vfioctl.uapi import vfio as uapi

#: Transparent huge pages are of this size with 4K pages; a buffer that starts on one is pinned faster.
HUGE_PAGE = 2 << 20

#: What a mapping allows the device to do, by the names that people use.
PROTECTIONS = {
    "rw": uapi.VFIO_DMA_MAP_FLAG_READ | uapi.VFIO_DMA_MAP_FLAG_WRITE,
    "r": uapi.VFIO_DMA_MAP_FLAG_READ,
    "w": uapi.VFIO_DMA_MAP_FLAG_WRITE,
}

#: Called with the stage ("populate", "map"), the bytes done and the bytes in all.
Progress = Callable[[str, int, int], None]


class ContainerInfo(NamedTuple):
    """What a fresh container says without any group; None for an extension whose question failed."""

    api_version: int
    extensions: Mapping[str, bool | None]


class MappingRecord(NamedTuple):
    """A mapping that was made: bytes, and where the memory came from."""

    iova: int
    size: int
    prot: str
    source: str


class MapReport(NamedTuple):
    """What :func:`map_dma` did; ``page_sizes`` in bytes, ``dma_avail`` before the first mapping."""

    backend: str
    groups: tuple[int, ...]
    mappings: tuple[MappingRecord, ...]
    iova_ranges: tuple[tuple[int, int], ...] | None
    page_sizes: tuple[int, ...]
    dma_avail: int | None


class IommuReport(NamedTuple):
    """What :func:`probe_iommu` found out; None where the kernel does not tell."""

    api_version: int
    extensions: Mapping[str, bool | None]
    backend: str
    groups: tuple[int, ...]
    page_sizes: tuple[int, ...]
    iova_ranges: tuple[tuple[int, int], ...] | None
    dma_avail: int | None
    dirty_page_sizes: tuple[int, ...] | None


def group_status(
    group: int, state: State | None = None, dev: str = "/dev", timeout: float = 30.0
) -> GroupStatus:
    """Open the group's node, ask VFIO_GROUP_GET_STATUS, close it.

    While it is open nobody else can open the group. Raises VfioctlError, made from ``state``; DeadlinePassed after
    ``timeout`` seconds.
    """
    path = node(group, state, dev)
    try:
        with explained(state or State(group=group)):
            return vfio.group_status_of(path, timeout)
    except Expired as expired:
        raise DeadlinePassed(
            f"{path} has not answered within {timeout:g} s: {expired.place}", subject=path
        ) from expired


def probe_container(dev: str = "/dev") -> ContainerInfo:
    """Ask a fresh container for its version and extensions: touches no group. Raises VfioctlError."""
    with explained(State()), opened_container(dev) as container:
        return ContainerInfo(vfio.get_api_version(container), ask_extensions(container))


def probe_iommu(
    groups: Sequence[int],
    *,
    backend: str = "auto",
    states: Mapping[int, State] | None = None,
    dev: str = "/dev",
) -> IommuReport:
    """Attach the groups, ask everything that only an attached container answers, and detach.

    While this runs, DMA of all devices of the groups is blocked. Raises VfioctlError.
    """
    with attached(groups, backend=backend, states=states, dev=dev) as session:
        info = session.info
        return IommuReport(
            api_version=uapi.VFIO_API_VERSION,
            extensions=session.extensions,
            backend=session.backend,
            groups=tuple(groups),
            page_sizes=planning.page_sizes(info.page_sizes),
            iova_ranges=info.iova_ranges,
            dma_avail=info.dma_avail,
            dirty_page_sizes=None
            if info.dirty_page_sizes is None
            else planning.page_sizes(info.dirty_page_sizes),
        )


def map_dma(
    groups: Sequence[int],
    size: int,
    *,
    iova: int | None = None,
    chunk: int | None = None,
    prot: str = "rw",
    backend: str = "auto",
    states: Mapping[int, State] | None = None,
    reserved: Sequence[tuple[int, int, str]] = (),
    progress: Progress | None = None,
    while_mapped: Callable[[MapReport], None] | None = None,
    dev: str = "/dev",
) -> MapReport:
    """Map ``size`` bytes of anonymous memory for the groups' devices, and unmap them again.

    ``iova`` None chooses a place; ``chunk`` makes several mappings of that size; ``reserved`` are the groups'
    reserved regions as (first, last, type); ``while_mapped`` runs while the mappings stand. What came back
    from VFIO_IOMMU_UNMAP_DMA is compared with what was mapped. Raises VfioctlError.
    """
    flags = PROTECTIONS[prot]
    state = common(groups, states)._replace(size=size)
    with attached(groups, backend=backend, states=states, dev=dev) as session:
        info = session.info
        space = planning.Space(
            page_sizes=info.page_sizes or mmap.PAGESIZE,
            ranges=info.iova_ranges,
            reserved=reserved,
            entries=info.dma_avail,
        )
        pieces = planning.plan(space, size, iova, chunk)
        state = state._replace(page_size=space.granule)
        alignment = max(space.granule, HUGE_PAGE if size >= HUGE_PAGE else mmap.PAGESIZE)
        with explained(state), memory.make(memory.ANONYMOUS, size, alignment) as buffer:
            _prefault(buffer, state, progress)
            report = MapReport(
                backend=session.backend,
                groups=tuple(groups),
                mappings=tuple(MappingRecord(*piece, prot, "anonymous") for piece in pieces),
                iova_ranges=info.iova_ranges,
                page_sizes=planning.page_sizes(info.page_sizes),
                dma_avail=info.dma_avail,
            )
            with _mapped(session.container, buffer.address, pieces, flags, state, progress):
                if while_mapped is not None:
                    while_mapped(report)
    return report


@contextmanager
def _mapped(
    container: int,
    address: int,
    pieces: Sequence[planning.Piece],
    flags: int,
    state: State,
    progress: Progress | None,
) -> Iterator[None]:
    """The pieces mapped one after the other from ``address`` on, while the block runs."""
    total = sum(piece.size for piece in pieces)
    done: list[planning.Piece] = []
    try:
        for piece in pieces:
            offset = piece.iova - pieces[0].iova
            with explained(state._replace(iova=piece.iova, size=piece.size, wanted=total - offset)):
                vfio.iommu_map_dma(container, address + offset, piece.iova, piece.size, flags)
            done.append(piece)
            if progress is not None:
                progress("map", offset + piece.size, total)
        yield
    except BaseException:
        # The error that is on its way matters more; closing the container drops the mappings as well.
        for piece in reversed(done):
            with suppress(CallError):
                vfio.iommu_unmap_dma(container, piece.iova, piece.size)
        raise
    for piece in reversed(done):
        with explained(state._replace(iova=piece.iova, size=piece.size)):
            unmapped = vfio.iommu_unmap_dma(container, piece.iova, piece.size)
        if unmapped != piece.size:
            raise KernelRefusal(
                f"the kernel unmapped {unmapped} of {piece.size} bytes at IOVA {piece.iova:#x}",
                code="unmap-short",
                hint="nothing stays mapped: closing the container drops the rest; please report this",
            )


def _prefault(buffer: memory.Memory, state: State, progress: Progress | None) -> None:
    available = memory.available()
    if not memory.memlock().allows(buffer.size):
        # MAP_DMA will refuse after pinning up to the limit; populating everything first would be in vain.
        return
    if available is not None and buffer.size > available:
        raise no_memory(state)
    for done in buffer.prefault():
        if progress is not None:
            progress("populate", done, buffer.size)
