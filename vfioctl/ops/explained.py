"""Failed calls of the ioctl backend, told as what they mean here."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from vfioctl.host import memory
from vfioctl.host.evidence import look_at
from vfioctl.host.holders import holders_of_node
from vfioctl.host.ioctl import CallError
from vfioctl.model import Evidence
from vfioctl.policy.refusals import State, explain

_MAPPING_CALLS = (
    "VFIO_IOMMU_MAP_DMA",
    "IOMMU_IOAS_MAP",
    "VFIO_IOMMU_SPAPR_REGISTER_MEMORY",
    "VFIO_IOMMU_SPAPR_TCE_CREATE",
    "VFIO_IOMMU_ENABLE",
)


@contextmanager
def explained(state: State) -> Iterator[None]:
    """Turns a failed call into what it means, with the limit of locked memory and the holders of a node as they are at
    that moment. Raises VfioctlError."""
    try:
        yield
    except CallError as error:
        number = error.errno or 0
        if error.call in _MAPPING_CALLS and number == errno.ENOMEM:
            now = memory.memlock()
            state = state._replace(
                memlock_limit=None if now.cap_ipc_lock else now.limit,
                memlock_locked=memory.pinned_by(os.geteuid()) if state.per_user else now.locked,
            )
        if error.call == "open" and number == errno.EBUSY and isinstance(error.filename, str):
            holders = holders_of_node(error.filename)
            state = state._replace(
                holders=tuple(map(str, holders)),
                seen=tuple(Evidence(error.filename, f"open in {holder}") for holder in holders),
            )
        path = error.filename if isinstance(error.filename, str) else None
        raise explain(error.call, number, state, path, look_at) from error


def common(states: Iterable[State]) -> State:
    """What is known when a call concerns the container: of its one group, or of all of them."""
    known = list(states)
    if len(known) == 1:
        return known[0]
    return State(
        kernel=next((state.kernel for state in known), None),
        user=next((state.user for state in known), None),
        direct_region=any(state.direct_region for state in known),
    )
