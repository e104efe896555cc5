"""What fills the gaps in the words for a refusal: what is known, or neutral words for it (floor 3, pure)."""

from __future__ import annotations

import os
from collections.abc import Mapping

from vfioctl.errors import errno_name
from vfioctl.policy.buses import BUS_DRIVERS
from vfioctl.policy.refusals.state import Refusal, State
from vfioctl.policy.sizes import format_iova, format_size

#: What stands for the path of a node that is not known.
_NODES = {
    "open container": "/dev/vfio/vfio",
    "open group": "/dev/vfio/GROUP",
    "open iommufd": "/dev/iommu",
    "open device": "/dev/vfio/devices/vfioN",
}
_CONTAINER_CALLS = ("VFIO_GROUP_SET_CONTAINER", "VFIO_SET_IOMMU")


def gaps(refusal: Refusal) -> Mapping[str, str]:
    """All gaps by name. Those in capitals are arguments of commands and parts of paths, the others are words."""
    call, number, state, path, data = refusal
    group = "the group" if state.group is None else f"group {state.group}"
    wanted = state.wanted or state.size
    need = None if wanted is None or state.memlock_locked is None else state.memlock_locked + wanted
    if state.memlock_limit is None:
        need = None
    return {
        "call": "open" if call.startswith("open ") else call,
        "opened": f" {path}" if path else "",
        "error": f"{errno_name(number)} ({os.strerror(number)})",
        "strerror": os.strerror(number),
        "group": group,
        "GROUP": "GROUP" if state.group is None else str(state.group),
        "device": state.device or "the device",
        "DEVICE": state.device or "DEVICE",
        "SUBJECT": state.device or ("GROUP" if state.group is None else str(state.group)),
        "whom": state.device if state.device and state.group is None else group,
        "path": path or _NODES.get(call, "the file" if call.startswith("write") else "the node"),
        "data": repr(data.strip()) if data else "'...'",
        "said": data or "what modprobe says",
        "place": place(state),
        "who": f"user {state.user}" if state.user else "the caller",
        "NAME": state.user or "NAME",
        "holders": f": {', '.join(state.holders)}" if state.holders else "",
        "ownership": _ownership(state),
        "blocked": _blocked(state),
        # Who claims the device asks: the container's backend, or iommufd when a device is opened or bound.
        "claimer": "vfio_iommu_type1" if call in _CONTAINER_CALLS else "iommufd",
        "type": f" of type {state.backend}" if state.backend else "",
        "page_size": "" if state.page_size is None else f" {format_size(state.page_size)}",
        "file_system": state.file_system or "a file system",
        "buffer": "the buffer" if state.size is None else format_size(state.size),
        "memory": "the memory" if wanted is None else format_size(wanted),
        "pinner": _pinner(state),
        "limit": _limit(state, need),
        "BYTES": "BYTES" if need is None else str(need),
        "KIBIBYTES": "KIBIBYTES" if need is None else str(-(-need // 1024)),
        "PID": "PID" if state.process is None else str(state.process),
        "process": "self" if state.process is None else str(state.process),
        "processes": "*" if state.per_user else "self" if state.process is None else str(state.process),
        **_of_write(state),
    }


def place(state: State) -> str:
    """Where a mapping is."""
    if state.iova is None:
        return "the range"
    if state.size is None:
        return f"IOVA {format_iova(state.iova)}"
    return f"IOVA {format_iova(state.iova)}-{format_iova(state.iova + state.size - 1)}"


def _ownership(state: State) -> str:
    facts = {"owner": state.node_owner, "mode": state.node_mode}
    known = ", ".join(f"{name} {value}" for name, value in facts.items() if value is not None)
    return f" ({known})" if known else ""


def _blocked(state: State) -> str:
    if not state.blocking:
        return "a host driver holds a member, or somebody else owns the group"
    return "a host driver still holds " + ", ".join(f"{name} ({driver})" for name, driver in state.blocking)


def _pinner(state: State) -> str:
    if state.per_user:
        return "the processes of this user together"
    return "this process" if state.process is None else f"process {state.process}"


def _limit(state: State, need: int | None) -> str:
    if state.memlock_limit is None or state.memlock_locked is None:
        return ""
    said = (
        f": the limit is {format_size(state.memlock_limit)}, {format_size(state.memlock_locked)} are locked"
    )
    return said if need is None else f"{said}, {format_size(need)} are needed in all"


def _of_write(state: State) -> Mapping[str, str]:
    about, driver = state.about, state.driver
    variant = driver is not None and "vfio" in driver and driver not in BUS_DRIVERS.values()
    return {
        "driver": driver or "the driver",
        "DRIVER": driver or "DRIVER",
        "module": (driver or "MODULE").replace("-", "_"),
        "bound": (about.driver if about else None) or "another driver",
        "its_driver": (about.driver if about else None) or "its driver",
        "override": (about.driver_override if about else None) or "another driver",
        "ids": f"{about.pci.vendor}:{about.pci.device}" if about and about.pci else "VENDOR:DEVICE",
        "numvfs": "" if state.numvfs is None else f"{state.numvfs} ",
        "sysfs": f"/sys/bus/{about.bus}/devices/{about.address}"
        if about
        else f"/sys/bus/*/devices/{state.device or 'DEVICE'}",
        "or_plain": "\nwithout migration the device works with --driver vfio-pci" if variant else "",
    }
