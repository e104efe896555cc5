"""The ways to an address space: a module for each kind of the kernel's, all with the methods of ``Backend``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol
from uuid import UUID

from vfioctl.model import IommuGroup
from vfioctl.policy.refusals import State


class Member(NamedTuple):
    """A group that is to be in a container, and what is known for explaining refusals; ``tokens``: the VF tokens with
    which devices of it are opened, by name."""

    group: IommuGroup
    state: State
    tokens: Mapping[str, UUID] = {}


#: A mapping to be made, in bytes: (vaddr, iova, size). A bare tuple, for there may be many.
Piece = tuple[int, int, int]


class Offer(NamedTuple):
    """What an address space takes: a bitmap of page sizes (0: not told), IOVA ranges (first, last) with the last
    included (None: not told), and how many mappings more (None: not told). ``pages`` are the page sizes of the ranges,
    one each, where each has its own; ``charge`` is what is charged next whatever is mapped (None: what is mapped)."""

    page_sizes: int
    ranges: tuple[tuple[int, int], ...] | None = None
    entries: int | None = None
    pages: tuple[int, ...] | None = None
    charge: int | None = None


class Backend(Protocol):
    """An address space with groups in it. The methods raise CallError or VfioctlError; nothing is changed then."""

    #: As ``--backend`` takes it.
    name: str
    #: Whether a group's devices are open as soon as it has joined.
    opens_devices: bool

    @property
    def accounting(self) -> str | None:
        """The charge for mapped memory: "process" (VmLck) or "user"; None when nothing is pinned."""

    def join(self, member: Member) -> None:
        """Takes a group in; the first one sets the IOMMU."""

    def leave(self, group: int) -> None:
        """Lets a group go, whose devices are closed. With the last one go all mappings."""

    def offer(self) -> Offer | None:
        """What it takes now; None where nothing can be mapped."""

    def details(self) -> Mapping[str, Any]:
        """What this kind alone has to tell, by the names of the JSON record."""

    def prepare(self, vaddr: int, size: int) -> None:
        """Before anything of a buffer is mapped: what the kernel wants to know of it."""

    def release(self, vaddr: int, size: int) -> None:
        """The opposite, after everything of the buffer is unmapped; nothing to do for one that was not prepared."""

    def map(self, pieces: Iterable[Piece], prot: str) -> None:
        """Maps one after the other. ``prot``: what devices may do, r, w or rw. Raises Refused with the one that fails;
        those before it are mapped."""

    def unmap(self, iova: int, size: int) -> int:
        """Unmaps the mappings in a range; the bytes unmapped."""

    def unmap_all(self) -> int | None:
        """Unmaps everything in one call; the bytes unmapped, None when there is no such call."""

    def dirty_start(self) -> int:
        """Begins to note which pages devices write; the size of a page."""

    def dirty_read(self, iova: int, size: int, page_size: int) -> bytes:
        """What was written in a range since it was read last: page n is bit n % 8 of byte n // 8."""

    def dirty_stop(self) -> None:
        """Ends it."""

    def open_device(self, group: int, name: str) -> int:
        """A descriptor of a device of a group, which resets it."""

    def close_device(self, name: str, fd: int) -> None:
        """Closes a descriptor that ``open_device`` gave."""

    def descriptors(self) -> dict[str, int]:
        """Its descriptors but for the devices': ``container`` or ``iommufd``, and ``group-N``."""

    def close(self) -> None:
        """Lets everything go."""
