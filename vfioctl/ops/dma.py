"""Attach groups to a container, map memory, prove it and let go of everything (floor 4).

No device is opened, so none is reset. Whatever happens, everything is closed in reverse order: closing the
container and its groups is what finally drops mappings, pinned pages and DMA ownership.
"""

from __future__ import annotations

import errno
import mmap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import NamedTuple

from vfioctl.errors import KernelRefusal, UsageError
from vfioctl.host import memory, vfio
from vfioctl.host.ioctl import CallError
from vfioctl.host.vfio import GroupStatus, IommuInfo
from vfioctl.policy import iova as planning
from vfioctl.policy.refusals import State, explain, no_iommu_backend, no_memory, not_viable
from vfioctl.uapi import vfio as uapi

#: Transparent huge pages are of this size with 4K pages; a buffer that starts on one is pinned faster.
HUGE_PAGE = 2 << 20

#: The extensions that ``iommu-info`` reports, by their C names.
EXTENSIONS = {
    "VFIO_TYPE1_IOMMU": uapi.VFIO_TYPE1_IOMMU,
    "VFIO_SPAPR_TCE_IOMMU": uapi.VFIO_SPAPR_TCE_IOMMU,
    "VFIO_TYPE1v2_IOMMU": uapi.VFIO_TYPE1v2_IOMMU,
    "VFIO_DMA_CC_IOMMU": uapi.VFIO_DMA_CC_IOMMU,
    "VFIO_EEH": uapi.VFIO_EEH,
    "VFIO_TYPE1_NESTING_IOMMU": uapi.VFIO_TYPE1_NESTING_IOMMU,
    "VFIO_SPAPR_TCE_v2_IOMMU": uapi.VFIO_SPAPR_TCE_v2_IOMMU,
    "VFIO_NOIOMMU_IOMMU": uapi.VFIO_NOIOMMU_IOMMU,
    "VFIO_UNMAP_ALL": uapi.VFIO_UNMAP_ALL,
    "VFIO_UPDATE_VADDR": uapi.VFIO_UPDATE_VADDR,
}

#: Backends by name with the argument of VFIO_SET_IOMMU, the preferred one first.
BACKENDS = {"type1v2": uapi.VFIO_TYPE1v2_IOMMU, "type1": uapi.VFIO_TYPE1_IOMMU}

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


class Attached(NamedTuple):
    """A container with an IOMMU, and the group descriptors in it."""

    container: int
    backend: str
    groups: tuple[int, ...]
    info: IommuInfo
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


def group_status(group: int, state: State | None = None, dev: str = "/dev") -> GroupStatus:
    """Open the group's node, ask VFIO_GROUP_GET_STATUS, close it.

    While it is open nobody else can open the group. Raises VfioctlError, made from ``state``.
    """
    with _explained(state or State(group=group)), vfio.opened(_node(group, state, dev)) as fd:
        return vfio.group_get_status(fd)


def probe_container(dev: str = "/dev") -> ContainerInfo:
    """Ask a fresh container for its version and extensions: touches no group. Raises VfioctlError."""
    with _explained(State()), _container(dev) as container:
        return ContainerInfo(vfio.get_api_version(container), _extensions(container))


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
    state = _common(groups, states)._replace(size=size)
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
        with _explained(state), memory.Buffer(size, alignment) as buffer:
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
def attached(
    groups: Sequence[int],
    *,
    backend: str = "auto",
    states: Mapping[int, State] | None = None,
    dev: str = "/dev",
) -> Iterator[Attached]:
    """A container with all of ``groups`` and an IOMMU set, while the block runs. Raises VfioctlError.

    ``states`` says what is known of each group, for explaining refusals.
    """
    if not groups or len(set(groups)) != len(groups):
        raise UsageError("at least one group is needed, and none twice", code="groups-invalid")
    states = states or {}
    with ExitStack() as stack:
        with _explained(_common(groups, states)):
            container = stack.enter_context(_container(dev))
            name, iommu_type = _choose(container, backend, _common(groups, states))
        members = tuple(
            stack.enter_context(_joined(group, container, states.get(group, State(group=group)), dev))
            for group in groups
        )
        with _explained(_common(groups, states)._replace(backend=name)):
            vfio.set_iommu(container, iommu_type)
            info = vfio.iommu_get_info(container)
        yield Attached(container, name, members, info, _extensions(container))


@contextmanager
def _container(dev: str) -> Iterator[int]:
    with vfio.opened(vfio.container_path(dev)) as container:
        version = vfio.get_api_version(container)
        if version != uapi.VFIO_API_VERSION:
            raise KernelRefusal(
                f"VFIO speaks version {version} of its interface, and vfioctl knows {uapi.VFIO_API_VERSION} only",
                code="api-version",
                hint="Use a vfioctl made for this kernel.",
            )
        yield container


@contextmanager
def _joined(group: int, container: int, state: State, dev: str) -> Iterator[int]:
    """The descriptor of a group that is in the container while the block runs."""
    with ExitStack() as stack:
        with _explained(state):
            fd = stack.enter_context(vfio.opened(_node(group, state, dev)))
            status = vfio.group_get_status(fd)
            state = state._replace(viable=status.viable, container_set=status.container_set)
        with _explained(state):
            vfio.group_set_container(fd, container)
            if not status.viable:
                # Up to Linux 5.18 the kernel lets such a group in and refuses its devices later.
                raise not_viable(state)
        try:
            yield fd
        except BaseException:
            # The error that is on its way matters more; closing the group takes it out as well.
            with suppress(CallError):
                vfio.group_unset_container(fd)
            raise
        with _explained(state):
            vfio.group_unset_container(fd)


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
            with _explained(state._replace(iova=piece.iova, size=piece.size, wanted=total - offset)):
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
        with _explained(state._replace(iova=piece.iova, size=piece.size)):
            unmapped = vfio.iommu_unmap_dma(container, piece.iova, piece.size)
        if unmapped != piece.size:
            raise KernelRefusal(
                f"the kernel unmapped {unmapped} of {piece.size} bytes at IOVA {piece.iova:#x}",
                code="unmap-short",
                hint="Nothing stays mapped: closing the container drops the rest. Please report this.",
            )


def _prefault(buffer: memory.Buffer, state: State, progress: Progress | None) -> None:
    available = memory.available()
    if not memory.memlock().allows(buffer.size):
        # MAP_DMA will refuse after pinning up to the limit; populating everything first would be in vain.
        return
    if available is not None and buffer.size > available:
        raise no_memory(state)
    buffer.prefault(None if progress is None else lambda done: progress("populate", done, buffer.size))


def _choose(container: int, backend: str, state: State) -> tuple[str, int]:
    wanted = BACKENDS if backend == "auto" else {backend: BACKENDS[backend]}
    for name, iommu_type in wanted.items():
        if vfio.check_extension(container, iommu_type):
            return name, iommu_type
    raise no_iommu_backend(state._replace(backend=None if backend == "auto" else backend))


def _extensions(container: int) -> dict[str, bool | None]:
    answers: dict[str, bool | None] = {}
    for name, number in EXTENSIONS.items():
        try:
            answers[name] = vfio.check_extension(container, number)
        except CallError:
            # iommufd in the place of VFIO's container answers ENODEV to what needs an address space.
            answers[name] = None
    return answers


@contextmanager
def _explained(state: State) -> Iterator[None]:
    """Turn a failed call into what it means, with the limit of locked memory as it is at that moment."""
    try:
        yield
    except CallError as error:
        number = error.errno or 0
        if error.call == "VFIO_IOMMU_MAP_DMA" and number == errno.ENOMEM:
            now = memory.memlock()
            state = state._replace(
                memlock_limit=None if now.cap_ipc_lock else now.limit, memlock_locked=now.locked
            )
        path = error.filename if isinstance(error.filename, str) else None
        raise explain(error.call, number, state, path) from error


def _common(groups: Sequence[int], states: Mapping[int, State] | None) -> State:
    """What to say when a call concerns the container: about the one group, or about all of them."""
    known = [(states or {}).get(group, State(group=group)) for group in groups]
    if len(known) == 1:
        return known[0]
    return State(
        kernel=next((state.kernel for state in known), None),
        user=next((state.user for state in known), None),
        direct_region=any(state.direct_region for state in known),
    )


def _node(group: int, state: State | None, dev: str) -> str:
    return vfio.group_path(f"noiommu-{group}" if state is not None and state.noiommu else group, dev)
