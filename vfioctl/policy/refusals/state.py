"""What is known around a failed call, and how it is worded (floor 3, pure)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from vfioctl.errors import VfioctlError
from vfioctl.policy.sizes import format_iova


class State(NamedTuple):
    """What the caller knows around a failed call; None and empty stand for "not known".

    ``kernel`` is the release as (major, minor). ``viable`` is what the kernel said or, failing that, what was
    predicted; ``blocking`` names (address, driver) of the members in the way. Sizes are in bytes: ``size`` of
    the mapping at hand, ``wanted`` of all that are still to be made. ``memlock_limit`` is None for unlimited and,
    together with ``memlock_locked``, for unknown; ``per_user``: they count for all processes of the user. ``process``
    is the pid of who maps where it is not the caller; ``file_system`` is that of a file that is mapped for writing.
    """

    group: int | None = None
    kernel: tuple[int, int] | None = None
    viable: bool | None = None
    blocking: tuple[tuple[str, str], ...] = ()
    direct_region: bool | None = None
    interrupts_isolated: bool | None = None
    noiommu: bool = False
    container_set: bool | None = None
    node_owner: str | None = None
    node_mode: str | None = None
    user: str | None = None
    holders: tuple[str, ...] = ()
    backend: str | None = None
    iova: int | None = None
    size: int | None = None
    page_size: int | None = None
    wanted: int | None = None
    memlock_limit: int | None = None
    memlock_locked: int | None = None
    per_user: bool = False
    file_system: str | None = None
    process: int | None = None
    device: str | None = None


class Refusal(NamedTuple):
    """A call that failed with errno ``number``; ``path`` is the file that could not be opened."""

    call: str
    number: int
    state: State
    path: str | None

    @property
    def group(self) -> str:
        return "the group" if self.state.group is None else f"group {self.state.group}"

    @property
    def argument(self) -> str:
        return "GROUP" if self.state.group is None else str(self.state.group)

    def before(self, major: int, minor: int) -> bool:
        """Whether the kernel is known to be older than a release."""
        return self.state.kernel is not None and self.state.kernel < (major, minor)


def ownership(state: State) -> str:
    facts = {"owner": state.node_owner, "mode": state.node_mode}
    known = ", ".join(f"{name} {value}" for name, value in facts.items() if value is not None)
    return f" ({known})" if known else ""


def place(state: State) -> str:
    if state.iova is None:
        return "the range"
    if state.size is None:
        return f"IOVA {format_iova(state.iova)}"
    return f"IOVA {format_iova(state.iova)}-{format_iova(state.iova + state.size - 1)}"


#: Makes the error of a refusal.
Say = Callable[[Refusal], VfioctlError]

#: What to say, by (call, errno).
Table = dict[tuple[str, int], Say]
