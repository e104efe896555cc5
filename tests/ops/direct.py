"""A container in this process, without a keeper: what the tests of the ioctl backend work on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from vfioctl.host import vfio
from vfioctl.host.vfio import IommuInfo
from vfioctl.model import IommuGroup, ReservedRegion
from vfioctl.ops.backends import Member
from vfioctl.ops.backends.type1 import EXTENSIONS, PROTECTIONS, Type1
from vfioctl.ops.container import Container
from vfioctl.ops.status import group_status, probe_container
from vfioctl.policy.iova import page_sizes, split
from vfioctl.policy.mapping import Want
from vfioctl.policy.refusals import State

__all__ = [
    "EXTENSIONS",
    "PROTECTIONS",
    "attached",
    "group_status",
    "map_dma",
    "probe_container",
    "probe_iommu",
]

Progress = Callable[[str, int, int], None]


class Attached(NamedTuple):
    """A container with an IOMMU, and the group descriptors in it."""

    container: int
    backend: str
    groups: tuple[int, ...]
    info: IommuInfo


class MappingRecord(NamedTuple):
    """A mapping that was made, in bytes."""

    iova: int
    size: int
    prot: str
    source: str


class Report(NamedTuple):
    """What an address space offered, and what was mapped."""

    backend: str
    groups: tuple[int, ...]
    mappings: tuple[MappingRecord, ...]
    iova_ranges: tuple[tuple[int, int], ...] | None
    page_sizes: tuple[int, ...]
    dma_avail: int | None
    dirty_page_sizes: tuple[int, ...] | None


@contextmanager
def _container(
    groups: Sequence[int],
    backend: str = "auto",
    states: Mapping[int, State] | None = None,
    dev: str = "/dev",
    reserved: Sequence[tuple[int, int, str]] = (),
) -> Iterator[tuple[Container, Type1]]:
    regions = tuple(ReservedRegion(*each) for each in reserved)
    known = states or {}
    members = [
        Member(IommuGroup(number, reserved_regions=regions), known.get(number, State(group=number)))
        for number in groups
    ]
    with Container(dev, backend) as container:
        container.add(members)
        space = container.space
        assert isinstance(space, Type1)
        yield container, space


@contextmanager
def attached(
    groups: Sequence[int],
    *,
    backend: str = "auto",
    states: Mapping[int, State] | None = None,
    dev: str = "/dev",
) -> Iterator[Attached]:
    """A container with all of ``groups`` and an IOMMU set, while the block runs."""
    with _container(groups, backend, states, dev) as (_, space):
        yield Attached(
            space.container, space.name, tuple(space.groups.values()), vfio.iommu_get_info(space.container)
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
    progress: Progress = lambda stage, done, total: None,
    while_mapped: Callable[[Report], None] = lambda report: None,
    dev: str = "/dev",
) -> Report:
    """Maps anonymous memory, and lets go of everything."""
    with _container(groups, backend, states, dev, reserved) as (container, space):
        for step in container.mappings.map([Want(size, iova, prot, chunk=chunk)]):
            progress(*step)
        report = _report(container, space, groups)
        while_mapped(report)
        for _ in container.mappings.unmap_all():
            pass
    return report


def probe_iommu(
    groups: Sequence[int],
    *,
    backend: str = "auto",
    states: Mapping[int, State] | None = None,
    dev: str = "/dev",
) -> Report:
    """What an address space with these groups offers."""
    with _container(groups, backend, states, dev) as (container, space):
        return _report(container, space, groups)


def _report(container: Container, space: Type1, groups: Sequence[int]) -> Report:
    offer = space.offer()
    dirty = space.details()["dirty_page_sizes"]
    return Report(
        space.name,
        tuple(groups),
        tuple(
            MappingRecord(*piece, run.prot, run.source)
            for run in container.mappings.runs
            for piece in split(run.iova, run.size, run.chunk)
        ),
        offer.ranges,
        page_sizes(offer.page_sizes),
        offer.entries,
        None if dirty is None else page_sizes(dirty),
    )
