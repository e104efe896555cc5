"""A container with groups in it and an IOMMU set, for as long as a block runs (floor 4).

No device is opened, so none is reset. Whatever happens, everything is closed in reverse order: closing the
container and its groups is what finally drops mappings, pinned pages and DMA ownership.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import NamedTuple

from vfioctl.errors import KernelRefusal, UsageError
from vfioctl.host import memory, vfio
from vfioctl.host.holders import holders_of_node
from vfioctl.host.ioctl import CallError
from vfioctl.host.vfio import IommuInfo
from vfioctl.policy.refusals import State, explain, no_iommu_backend, not_viable
from vfioctl.uapi import vfio as uapi

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


class Attached(NamedTuple):
    """A container with an IOMMU, and the group descriptors in it."""

    container: int
    backend: str
    groups: tuple[int, ...]
    info: IommuInfo
    extensions: Mapping[str, bool | None]


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
        with explained(common(groups, states)):
            container = stack.enter_context(opened_container(dev))
            name, iommu_type = _choose(container, backend, common(groups, states))
        members = tuple(
            stack.enter_context(_joined(group, container, states.get(group, State(group=group)), dev))
            for group in groups
        )
        with explained(common(groups, states)._replace(backend=name)):
            vfio.set_iommu(container, iommu_type)
            info = vfio.iommu_get_info(container)
        yield Attached(container, name, members, info, ask_extensions(container))


@contextmanager
def opened_container(dev: str) -> Iterator[int]:
    """The descriptor of a fresh container whose interface vfioctl knows, while the block runs."""
    with vfio.opened(vfio.container_path(dev)) as container:
        version = vfio.get_api_version(container)
        if version != uapi.VFIO_API_VERSION:
            raise KernelRefusal(
                f"VFIO speaks version {version} of its interface, and vfioctl knows {uapi.VFIO_API_VERSION} only",
                code="api-version",
                hint="use a vfioctl made for this kernel",
            )
        yield container


@contextmanager
def _joined(group: int, container: int, state: State, dev: str) -> Iterator[int]:
    """The descriptor of a group that is in the container while the block runs."""
    with ExitStack() as stack:
        with explained(state):
            fd = stack.enter_context(vfio.opened(node(group, state, dev)))
            status = vfio.group_get_status(fd)
            state = state._replace(viable=status.viable, container_set=status.container_set)
        with explained(state):
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
        with explained(state):
            vfio.group_unset_container(fd)


def _choose(container: int, backend: str, state: State) -> tuple[str, int]:
    wanted = BACKENDS if backend == "auto" else {backend: BACKENDS[backend]}
    for name, iommu_type in wanted.items():
        if vfio.check_extension(container, iommu_type):
            return name, iommu_type
    raise no_iommu_backend(state._replace(backend=None if backend == "auto" else backend))


def ask_extensions(container: int) -> dict[str, bool | None]:
    """The answers to all of EXTENSIONS; some change once an IOMMU is set. None: the question failed."""
    answers: dict[str, bool | None] = {}
    for name, number in EXTENSIONS.items():
        try:
            answers[name] = vfio.check_extension(container, number)
        except CallError:
            # iommufd in the place of VFIO's container answers ENODEV to what needs an address space.
            answers[name] = None
    return answers


@contextmanager
def explained(state: State) -> Iterator[None]:
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
        if error.call == "open" and number == errno.EBUSY and isinstance(error.filename, str):
            state = state._replace(holders=tuple(map(str, holders_of_node(error.filename))))
        path = error.filename if isinstance(error.filename, str) else None
        raise explain(error.call, number, state, path) from error


def common(groups: Sequence[int], states: Mapping[int, State] | None) -> State:
    """What to say when a call concerns the container: about the one group, or about all of them."""
    known = [(states or {}).get(group, State(group=group)) for group in groups]
    if len(known) == 1:
        return known[0]
    return State(
        kernel=next((state.kernel for state in known), None),
        user=next((state.user for state in known), None),
        direct_region=any(state.direct_region for state in known),
    )


def node(group: int, state: State | None, dev: str) -> str:
    """The path of a group's node."""
    return vfio.group_path(f"noiommu-{group}" if state is not None and state.noiommu else group, dev)
