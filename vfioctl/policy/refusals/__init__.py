"""What a failed VFIO call means to an administrator: (call, errno, state) -> cause and cure (floor 3, pure).

The meanings are those of drivers/vfio and drivers/iommu as read in Linux 5.10 to 7.3; where they changed, the
release stands next to the rule. An errno that is not in the table keeps its name and the code ``kernel``.
"""

from __future__ import annotations

import os

from vfioctl.errors import KernelRefusal, VfioctlError, errno_name
from vfioctl.policy.refusals import cdev, containers, device_calls, devices, iommufd, mappings, nodes, spapr
from vfioctl.policy.refusals.containers import no_iommu_backend, not_viable
from vfioctl.policy.refusals.mappings import memlock_refusal, no_memory
from vfioctl.policy.refusals.state import Refusal, State, Table

__all__ = ["TABLE", "State", "explain", "memlock_refusal", "no_iommu_backend", "no_memory", "not_viable"]

#: Every failure that has words of its own.
TABLE: Table = {
    **nodes.REFUSALS,
    **containers.REFUSALS,
    **mappings.REFUSALS,
    **devices.REFUSALS,
    **device_calls.REFUSALS,
    **iommufd.REFUSALS,
    **cdev.REFUSALS,
    **spapr.REFUSALS,
}

#: Failures that mean something else with sPAPR.
ON_SPAPR: Table = spapr.ON_SPAPR


def explain(call: str, number: int, state: State, path: str | None = None) -> VfioctlError:
    """The error to raise for a ``call`` (``open`` or an ioctl's C name) that failed with errno ``number``.

    ``path`` is the file that could not be opened.
    """
    if call == "open":
        call = f"open {_node(path or '')}"
    on_backend = ON_SPAPR if (state.backend or "").startswith("spapr") else {}
    say = on_backend.get((call, number)) or TABLE.get((call, number), _unknown)
    error = say(Refusal(call, number, state, path))
    error.errno = number
    if error.subject is None and call.startswith("VFIO_DEVICE_"):
        error.subject = state.device
    if error.subject is None and state.group is not None:
        error.subject = str(state.group)
    return error


def _node(path: str) -> str:
    """What kind of node a path is."""
    if path.endswith("vfio/vfio"):
        return "container"
    if path.endswith("/iommu"):
        return "iommufd"
    return "device" if "/vfio/devices/" in path else "group"


def _unknown(refusal: Refusal) -> VfioctlError:
    call = "open" if refusal.call.startswith("open ") else refusal.call
    what = f"{call} {refusal.path}" if refusal.path is not None else call
    whom = refusal.state.device if refusal.state.device and refusal.state.group is None else refusal.group
    return KernelRefusal(
        f"{what} failed for {whom}: {errno_name(refusal.number)} ({os.strerror(refusal.number)})",
        code="kernel",
        hint="the kernel log (dmesg) may say why",
    )
