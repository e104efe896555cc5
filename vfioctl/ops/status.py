"""Questions to the kernel that change nothing: the status of a group, the extensions of a container."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from vfioctl.errors import DeadlinePassed
from vfioctl.host import vfio
from vfioctl.host.bounded import Expired
from vfioctl.host.vfio import GroupStatus
from vfioctl.ops.backends.type1 import group_node, offered
from vfioctl.ops.explained import explained
from vfioctl.policy.refusals import State
from vfioctl.uapi import vfio as uapi


class ContainerInfo(NamedTuple):
    """What a fresh container says without any group; None for an extension whose question failed."""

    api_version: int
    extensions: Mapping[str, bool | None]


def group_status(
    group: int, state: State | None = None, dev: str = "/dev", timeout: float = 30.0
) -> GroupStatus:
    """Open the group's node, ask VFIO_GROUP_GET_STATUS, close it.

    While it is open nobody else can open the group. Raises VfioctlError, made from ``state``; DeadlinePassed after
    ``timeout`` seconds.
    """
    path = group_node(group, state, dev)
    try:
        with explained(state or State(group=group)):
            return vfio.group_status_of(path, timeout)
    except Expired as expired:
        raise DeadlinePassed(
            f"{path} has not answered within {timeout:g} s: {expired.place}", subject=path
        ) from expired


def probe_container(dev: str = "/dev") -> ContainerInfo:
    """Ask a fresh container for its version and extensions: touches no group. Raises VfioctlError."""
    return ContainerInfo(uapi.VFIO_API_VERSION, offered(dev))
