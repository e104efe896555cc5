"""What the commands of EEH have in common."""

from __future__ import annotations

from vfioctl.cli import messages
from vfioctl.cli.session import Session


def operate(session: Session, container: str, *operations: str) -> str | None:
    """Does operations (``vfioctl.ops.eeh.OPERATIONS``) one after the other to the groups of an open container; the
    state, where the last asks for it. Raises VfioctlError."""
    from vfioctl.ops.keeper import named

    with named.connected(session.machine, container) as client:
        for operation in operations:
            answer = client.call("eeh", {"operation": operation}).fields
    groups = answer["groups"]
    if operations[-1] == "state" and len(groups) > 1 and answer["state"] != "normal":
        messages.note(
            f"the container has groups {', '.join(map(str, groups))}, and the kernel tells the state of the first that "
            "is not normal, without saying which"
        )
    return answer["state"]  # type: ignore[no-any-return]
