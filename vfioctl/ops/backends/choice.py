"""Which address space a group is put into."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from vfioctl.errors import UsageError
from vfioctl.host import vfio
from vfioctl.host.iommufd import iommufd_path
from vfioctl.ops.backends import Backend, Member
from vfioctl.ops.backends.iommufd import Iommufd
from vfioctl.ops.backends.noiommu import NoIommu
from vfioctl.ops.backends.spapr import SpaprV1, SpaprV2
from vfioctl.ops.backends.type1 import ContainerBackend, IommufdGroup, Type1, open_container
from vfioctl.ops.explained import common, explained
from vfioctl.policy.refusals import no_iommu_backend
from vfioctl.policy.viability import is_vfio_bound

#: VFIO's own containers, by preference.
_CONTAINERS: Mapping[str, type[ContainerBackend]] = {
    "type1v2": Type1,
    "spapr-v2": SpaprV2,
    "spapr-v1": SpaprV1,
    "type1": Type1,
}

#: What ``--backend`` takes.
BACKENDS = ("auto", *_CONTAINERS, "iommufd", "iommufd-group", "noiommu")


def choose(wanted: str, members: Sequence[Member], dev: str, charge: str | None = None) -> Backend:
    """A backend with no group in it yet, for these groups: iommufd, where the devices have nodes of their own and the
    caller may open all that it takes, or else VFIO's container. Raises VfioctlError."""
    if wanted == "iommufd" or (wanted == "auto" and _may_use_iommufd(members, dev)):
        return Iommufd(dev, charge)
    if charge is not None:
        raise UsageError("who is charged can be chosen with iommufd only", hint="--backend iommufd")
    state = common(member.state for member in members)
    with explained(state):
        if wanted == "iommufd-group":
            return IommufdGroup(open_container(dev, iommufd_path(dev)), dev)
        container = open_container(dev)
        try:
            for name in _CONTAINERS if wanted == "auto" else (wanted,):
                kind = _CONTAINERS.get(name, NoIommu)
                if vfio.check_extension(container, kind.TYPES[name]):
                    return kind(name, container, dev)
        except BaseException:
            os.close(container)
            raise
    os.close(container)
    raise no_iommu_backend(state._replace(backend=None if wanted == "auto" else wanted))


def _may_use_iommufd(members: Sequence[Member], dev: str) -> bool:
    devices = [device for member in members for device in member.group.devices if is_vfio_bound(device)]
    nodes = [device.cdev.path if device.cdev is not None else None for device in devices]
    return bool(nodes) and all(node is not None and usable(node) for node in (iommufd_path(dev), *nodes))


def usable(path: str) -> bool:
    """Whether the caller could open a node."""
    return os.access(path, os.R_OK | os.W_OK, effective_ids=os.access in os.supports_effective_ids)
