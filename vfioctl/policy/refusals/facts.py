"""What is known of a group, for explaining a refusal that concerns it (floor 3, pure)."""

from __future__ import annotations

import re

from vfioctl.model import Kernel
from vfioctl.policy.refusals.state import State
from vfioctl.policy.viability import Viability


def state_of(
    verdict: Viability, kernel: Kernel, user: str | None = None, holders: tuple[str, ...] = ()
) -> State:
    """The :class:`State` of a judged group; ``user`` is who calls, ``holders`` who has the node open, in words."""
    group = verdict.group
    codes = {problem.code for problem in verdict.problems}
    return State(
        group=group.id,
        kernel=release_of(kernel),
        viable=verdict.viable,
        blocking=tuple((m.device.address, m.device.driver or "-") for m in verdict.members if m.blocking),
        direct_region="direct-region" in codes,
        interrupts_isolated=kernel.interrupts_isolated,
        noiommu=group.is_noiommu,
        node_owner=f"{group.node.uid}:{group.node.gid}" if group.node else None,
        node_mode=f"{group.node.mode:04o}" if group.node else None,
        user=user,
        holders=holders,
    )


def release_of(kernel: Kernel) -> tuple[int, int] | None:
    """The release as (major, minor); None when it is not known."""
    release = re.match(r"(\d+)\.(\d+)", kernel.release or "")
    return (int(release[1]), int(release[2])) if release else None
