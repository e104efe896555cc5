"""No IOMMU at all: devices can be opened, and they reach all of the host's memory."""

from __future__ import annotations

from vfioctl.ops.backends.type1 import ContainerBackend
from vfioctl.uapi import vfio as uapi


class NoIommu(ContainerBackend):
    """drivers/vfio/container.c, vfio_noiommu_ops: nothing can be mapped, and nothing is pinned."""

    TYPES = {"noiommu": uapi.VFIO_NOIOMMU_IOMMU}
    accounting = None
