"""What a failed VFIO call or sysfs write means to an administrator: (call, errno, state) -> cause, evidence and cure
(floor 3, pure).

The meanings are those of drivers/vfio and drivers/iommu as read in Linux 5.10 to 7.3; where they changed, the
release stands next to the rule. An errno that is not in the table keeps its name and the code ``kernel``. The tables
are data: "ERRORS OF THE KERNEL" in the manual is made from them.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase

from vfioctl.errors import VfioctlError
from vfioctl.model import Evidence, Look
from vfioctl.policy.refusals import (
    attributes,
    cdev,
    containers,
    device_calls,
    devices,
    drivers,
    iommufd,
    mappings,
    nodes,
    spapr,
    writes,
)
from vfioctl.policy.refusals.evidence import known
from vfioctl.policy.refusals.gaps import gaps
from vfioctl.policy.refusals.state import Refusal, State
from vfioctl.policy.refusals.words import Meanings, Table, meant, says

__all__ = [
    "TABLE",
    "State",
    "explain",
    "explain_access",
    "explain_module",
    "explain_write",
    "memlock_refusal",
    "no_iommu_backend",
    "no_memory",
    "not_viable",
]

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
    **drivers.REFUSALS,
    **attributes.REFUSALS,
    **writes.REFUSALS,
}

#: Failures that mean something else with sPAPR.
ON_SPAPR: Table = spapr.ON_SPAPR

#: Looks at files that are not known yet. Raises nothing.
Reader = Callable[[Look], Iterable[Evidence]]

_UNKNOWN = says(
    "{call}{opened} failed for {whom}: {error}", code="kernel", hint="the kernel log (dmesg) may say why"
)
#: They are said of the group, whatever device was to be opened.
_OF_THE_GROUP = ("not-viable", "no-iommu-backend")


def explain(
    call: str, number: int, state: State, path: str | None = None, read: Reader = lambda look: ()
) -> VfioctlError:
    """The error to raise for a ``call`` (``open`` or an ioctl's C name) that failed with errno ``number``.

    ``path`` is the file that could not be opened. ``read`` reads what proves the cause and is not known yet.
    """
    if call == "open":
        call = f"open {_node(path or '')}"
    on_backend = ON_SPAPR if (state.backend or "").startswith("spapr") else {}
    meanings = on_backend.get((call, number)) or TABLE.get((call, number), _UNKNOWN)
    return _told(meanings, Refusal(call, number, state, path), read)


def explain_write(
    path: str, data: str, number: int, state: State, read: Reader = lambda look: ()
) -> VfioctlError:
    """The error for a write of ``data`` to the sysfs file ``path``; ``state.device`` is the device concerned."""
    call = f"write {path.rpartition('/')[2]}"
    tried = (f"{call} {state.driver}", call, "write to sysfs")
    meanings = next((TABLE[each, number] for each in tried if (each, number) in TABLE), writes.UNKNOWN)
    return _told(meanings, Refusal(call, number, state, path, data), read)


def explain_access(path: str, number: int, state: State, read: Reader = lambda look: ()) -> VfioctlError:
    """The error for an owner, mode or list that the node ``path`` was not given."""
    meanings = TABLE.get(("set access", number), writes.UNKNOWN_ACCESS)
    return _told(meanings, Refusal("set access", number, state, path), read)


def explain_module(name: str, words: str, read: Reader = lambda look: ()) -> VfioctlError | None:
    """The error for a module that modprobe has not loaded, by its own ``words``; None when they are unknown."""
    said = {os.strerror(number): number for call, number in TABLE if call == "load module"}
    said["not found in directory"] = errno.ENOENT
    number = next((said[text] for text in said if text in words), None)
    if number is None:
        return None
    refusal = Refusal("load module", number, State(driver=name), None, words)
    return _told(TABLE["load module", number], refusal, read)


def not_viable(state: State) -> VfioctlError:
    """The refusal of a group whose members are not all out of their host drivers' hands."""
    return _told(containers.not_viable, Refusal("VFIO_GROUP_SET_CONTAINER", 0, state))


def no_iommu_backend(state: State) -> VfioctlError:
    """The refusal when no loaded IOMMU backend offers the type that is wanted."""
    return _told(containers.no_backend, Refusal("VFIO_SET_IOMMU", 0, state))


def memlock_refusal(state: State) -> VfioctlError:
    """The refusal when more memory would be locked than may be."""
    return _told(mappings.memlock, Refusal("", errno.ENOMEM, state))


def no_memory(state: State) -> VfioctlError:
    """The refusal when memory itself is short, not the limit of locked memory."""
    return _told(mappings.no_memory, Refusal("", errno.ENOMEM, state))


def _told(meanings: Meanings, refusal: Refusal, read: Reader = lambda look: ()) -> VfioctlError:
    meaning = meant(meanings, refusal)
    error = meaning.error(refusal)
    state = refusal.state
    of_device = refusal.call.startswith(("VFIO_DEVICE_", "write ")) and meaning.code not in _OF_THE_GROUP
    if of_device and state.device is not None:
        error.subject = state.device
    elif refusal.call in ("set access", "load module"):
        error.subject = refusal.path or state.driver
    elif state.group is not None:
        error.subject = str(state.group)
    seen = [each for look in meaning.looks for each in _evidence(look, refusal, read)]
    if seen:
        error.details = {"evidence": [each._asdict() for each in seen]}
    return error


def _evidence(look: Look, refusal: Refusal, read: Reader) -> Iterable[Evidence]:
    look = look._replace(file=look.file.format_map(gaps(refusal)))
    return [each for each in known(refusal) if fnmatchcase(each.file, look.file)] or read(look)


def _node(path: str) -> str:
    """What kind of node a path is."""
    if path.endswith("vfio/vfio"):
        return "container"
    if path.endswith("/iommu"):
        return "iommufd"
    return "device" if "/vfio/devices/" in path else "group"
