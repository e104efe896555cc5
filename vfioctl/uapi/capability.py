"""Capability chains of the ``*_INFO`` structs: ``struct vfio_info_cap_header`` (floor 1)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, TypeVar

from vfioctl.uapi.cstruct import CStruct
from vfioctl.uapi.vfio import vfio_info_cap_header

Item = TypeVar("Item", bound=CStruct)


class Capability(NamedTuple):
    """A capability; ``data`` runs from its header to the end of the info buffer (it states no length)."""

    id: int
    version: int
    data: memoryview


def walk(info: bytes | bytearray, cap_offset: int) -> Iterator[Capability]:
    """The capabilities of an info buffer, in chain order; ``cap_offset`` is the info struct's own.

    Offsets count from the start of the info struct, not from the header, and 0 ends the chain. Headers are
    not assumed to be aligned: up to Linux 6.4 capabilities were packed back to back. A header that does not
    fit into the buffer, or that was seen before, ends the walk: whatever lies behind it cannot be trusted.
    """
    view = memoryview(info)
    seen: set[int] = set()
    offset = cap_offset
    while offset and offset not in seen and offset + vfio_info_cap_header.size_of <= len(view):
        seen.add(offset)
        header = vfio_info_cap_header.unpack(view, offset)
        yield Capability(header.id, header.version, view[offset:])
        offset = header.next


def find(info: bytes | bytearray, cap_offset: int, id: int, kind: type[CStruct]) -> memoryview | None:
    """The first capability ``id`` that is long enough for ``kind``; None when there is none."""
    for capability in walk(info, cap_offset):
        if capability.id == id and len(capability.data) >= kind.size_of:
            return capability.data
    return None


def items(data: memoryview, offset: int, kind: type[Item], count: int) -> list[Item]:
    """Up to ``count`` structs from ``offset`` on: as many as the buffer really holds."""
    count = min(count, (len(data) - offset) // kind.size_of)
    return [kind.unpack(data, offset + index * kind.size_of) for index in range(count)]
