"""The guards of a change: what must not be taken from the host unless it is allowed by name. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from vfioctl.errors import GuardRefusal
from vfioctl.model import Use

#: Uses of a device by the host.
IN_USE_GUARDS = ("root-disk", "mounted-disk", "swap", "default-route")
#: What --allow takes. Other guards (a bridge, an unfinished change) protect what cannot work and are never passed.
ALLOWABLE_GUARDS = (*IN_USE_GUARDS, "new-id-match", "not-a-vfio-driver")


def refuse_in_use(uses: Mapping[str, Sequence[Use]], allow: Collection[str]) -> None:
    """Raises GuardRefusal when the host uses one of the devices (by address) in a way that is not allowed."""
    found = [(address, use) for address, of_it in uses.items() for use in of_it if use.guard not in allow]
    if not found:
        return
    guards = list(dict.fromkeys(use.guard for _, use in found))
    raise GuardRefusal(
        "the host uses " + "; ".join(f"{address}: {use.evidence}" for address, use in found),
        hint="take it out of use first (umount, swapoff, another route)\n"
        "or, to take it away from the host all the same: " + " ".join(f"--allow {guard}" for guard in guards),
        subject=found[0][0],
        code=guards[0],
    )
