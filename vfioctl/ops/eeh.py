"""EEH: the partitionable endpoint of a container's group as the kernel sees it, frozen, reset and brought back."""

from __future__ import annotations

import errno

from vfioctl.host import spapr
from vfioctl.ops.backends.type1 import ContainerBackend
from vfioctl.ops.container import Container
from vfioctl.ops.explained import explained
from vfioctl.policy.refusals import explain
from vfioctl.uapi import spapr as uapi

#: VFIO_EEH_PE_* that need nothing else, by name.
OPERATIONS = {
    "disable": uapi.VFIO_EEH_PE_DISABLE,
    "enable": uapi.VFIO_EEH_PE_ENABLE,
    "unfreeze-io": uapi.VFIO_EEH_PE_UNFREEZE_IO,
    "unfreeze-dma": uapi.VFIO_EEH_PE_UNFREEZE_DMA,
    "state": uapi.VFIO_EEH_PE_GET_STATE,
    "deactivate": uapi.VFIO_EEH_PE_RESET_DEACTIVATE,
    "hot": uapi.VFIO_EEH_PE_RESET_HOT,
    "fundamental": uapi.VFIO_EEH_PE_RESET_FUNDAMENTAL,
    "configure": uapi.VFIO_EEH_PE_CONFIGURE,
}

#: VFIO_EEH_PE_STATE_*, by number.
STATES = {
    uapi.VFIO_EEH_PE_STATE_NORMAL: "normal",
    uapi.VFIO_EEH_PE_STATE_RESET: "reset",
    uapi.VFIO_EEH_PE_STATE_STOPPED: "stopped",
    uapi.VFIO_EEH_PE_STATE_STOPPED_DMA: "stopped_dma",
    uapi.VFIO_EEH_PE_STATE_UNAVAIL: "unavail",
}


def operate(container: Container, name: str) -> str | None:
    """Does one of OPERATIONS to every group, up to the first that it fails for. The state where that is asked: of
    several groups, that of the first which is not normal. Raises VfioctlError."""
    fd = _descriptor(container)
    with explained(container.state):
        result = spapr.eeh_pe_op(fd, OPERATIONS[name])
    return STATES.get(result, str(result)) if name == "state" else None


def inject(container: Container, bits: int, function: str, address: int, mask: int) -> None:
    """Lets a PCI error of ``bits`` (32 or 64) happen. Raises VfioctlError."""
    fd = _descriptor(container)
    kind = uapi.EEH_ERR_TYPE_64 if bits == 64 else uapi.EEH_ERR_TYPE_32
    with explained(container.state):
        spapr.eeh_inject_error(fd, kind, uapi.EEH_ERR_FUNC.index(function), address, mask)


def _descriptor(container: Container) -> int:
    space = container.space
    if not isinstance(space, ContainerBackend):
        raise explain("VFIO_EEH_PE_OP", errno.ENOTTY, container.state)
    return space.container
