"""Which address space a group is put into."""

from __future__ import annotations

import os
from collections.abc import Sequence

from vfioctl.host import vfio
from vfioctl.ops.backends import Backend, Member
from vfioctl.ops.backends.type1 import Type1, open_container
from vfioctl.ops.explained import common, explained
from vfioctl.policy.refusals import no_iommu_backend
from vfioctl.uapi import vfio as uapi

#: What ``--backend`` takes.
BACKENDS = ("auto", "type1v2", "type1")

#: The IOMMU types by preference.
_TYPES = {"type1v2": uapi.VFIO_TYPE1v2_IOMMU, "type1": uapi.VFIO_TYPE1_IOMMU}


def choose(wanted: str, members: Sequence[Member], dev: str) -> Backend:
    """A backend with no group in it yet, for these groups. Raises VfioctlError."""
    state = common(member.state for member in members)
    with explained(state):
        container = open_container(dev)
        try:
            for name in _TYPES if wanted == "auto" else (wanted,):
                if vfio.check_extension(container, _TYPES[name]):
                    return Type1(name, container, dev)
        except BaseException:
            os.close(container)
            raise
    os.close(container)
    raise no_iommu_backend(state._replace(backend=None if wanted == "auto" else wanted))


def usable(path: str) -> bool:
    """Whether the caller could open a node."""
    return os.access(path, os.R_OK | os.W_OK, effective_ids=os.access in os.supports_effective_ids)
