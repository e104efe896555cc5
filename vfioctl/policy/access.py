"""What a node is to have when somebody is let in. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from vfioctl.model import Access


class NamedAccess(NamedTuple):
    """An entry of an access control list: ``kind`` u or g, the uid or gid, and permission bits (4 read, 2 write)."""

    kind: str
    id: int
    bits: int


class AccessWish(NamedTuple):
    """Owner (uid), group (gid) and mode of nodes; what is None stays as it is. Further users and groups are ``named``;
    a list that was there before does not stay, for it would let in others than those who were asked for."""

    uid: int | None = None
    gid: int | None = None
    mode: int | None = None
    named: tuple[NamedAccess, ...] = ()

    def applied_to(self, now: Access) -> Access:
        """What a node that is ``now`` shall be."""
        mode = _own_mode(now) if self.mode is None else self.mode
        acl = None
        if self.named:
            entries = {(entry.kind, entry.id): entry.bits for entry in self.named}
            own_group = mode >> 3 & 7
            mask = own_group
            for bits in entries.values():
                mask |= bits
            parts = [f"u::{_letters(mode >> 6)}"]
            parts += [
                f"u:{id_}:{_letters(bits)}" for (kind, id_), bits in sorted(entries.items()) if kind == "u"
            ]
            parts.append(f"g::{_letters(own_group)}")
            parts += [
                f"g:{id_}:{_letters(bits)}" for (kind, id_), bits in sorted(entries.items()) if kind == "g"
            ]
            parts += [f"m::{_letters(mask)}", f"o::{_letters(mode)}"]
            acl = ",".join(parts)
            mode = (
                mode & ~0o070 | mask << 3
            )  # with a list, the mode shows the mask where the group was (acl(5))
        return Access(
            now.uid if self.uid is None else self.uid, now.gid if self.gid is None else self.gid, mode, acl
        )


def same_node(path: str, keys: Collection[str], members: Mapping[str, Collection[str]]) -> str | None:
    """The node that stands now, by ``members`` (node to devices), for the devices ``keys`` as ``path`` did: numbers of
    cdevs, and of groups of virtual functions, are given anew. None when there is none."""
    kind = path.rpartition("/")[0]
    alike = [
        node for node, found in members.items() if node.rpartition("/")[0] == kind and set(found) & set(keys)
    ]
    return path if path in alike else next(iter(alike), None)


#: What the kernel makes a node: root's alone.
KERNELS_OWN = AccessWish(0, 0, 0o600)


def _own_mode(now: Access) -> int:
    """The mode without a list: the owning group's bits are in the list, where there is one."""
    for entry in (now.acl or "").split(","):
        if entry.startswith("g::"):
            bits = sum(bit for bit, letter in ((4, "r"), (2, "w"), (1, "x")) if letter in entry[3:])
            return now.mode & ~0o070 | bits << 3
    return now.mode


def _letters(bits: int) -> str:
    return "".join(letter if bits & bit else "-" for bit, letter in ((4, "r"), (2, "w"), (1, "x")))
