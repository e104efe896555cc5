"""What a snapshot has recorded that no file of the host tells: owners of nodes, who held devices, what the kernel was
asked. It stands in one JSON file at the top of the tree, and takes the place of asking when that tree is looked at.

The file may have been written by an attacker: what is not of the form expected is refused, and text is made fit to be
shown.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, Literal, NamedTuple, TypeVar

from vfioctl.errors import UsageError, visible
from vfioctl.host.files import read
from vfioctl.host.holders.holder import Found, Holder
from vfioctl.host.reader import RECORD
from vfioctl.model import LockLimit, Node

VERSION = 1
T = TypeVar("T")


class Recorded(NamedTuple):
    """``version`` is vfioctl's, ``euid`` that of who took the snapshot, ``byteorder`` its machine's, ``time`` when, in
    seconds since 1970.

    ``connections``: the caller's (client, server) addresses by SSH. ``addresses``: an IPv4 address by interface, as
    SIOCGIFADDR tells it. ``claimed``: disks that could not be opened exclusively. ``api_version`` and ``extensions``: a
    fresh container's, None without /dev/vfio/vfio. ``names``: properties of the hardware database by modalias.
    ``lock``: how much memory the caller may lock.
    """

    version: str
    euid: int
    byteorder: Literal["little", "big"]
    time: int
    redacted: bool
    nodes: Mapping[str, Node]
    holders: Found
    connections: tuple[tuple[str, str], ...]
    addresses: Mapping[str, str]
    claimed: frozenset[str]
    api_version: int | None
    extensions: Mapping[str, bool | None]
    names: Mapping[str, Mapping[str, str]]
    lock: LockLimit


def recorded(root: str) -> Recorded | None:
    """The record of the tree ``root``; None for the running host, and for a tree without one. Raises UsageError when
    it is malformed."""
    path = os.path.join(root, RECORD)
    return _load(path) if root != "/" and os.path.exists(path) else None


def holders_of(record: Recorded, keys: Iterable[str]) -> Found:
    """Who held the devices ``keys`` (bus/address)."""
    wanted = set(keys)
    return record.holders._replace(
        holders=tuple(holder for holder in record.holders.holders if holder.key in wanted)
    )


def to_json(record: Recorded) -> bytes:
    """The file's contents."""
    document = {
        "snapshot_version": VERSION,
        **record._asdict(),
        "nodes": {path: [node.uid, node.gid, node.mode] for path, node in sorted(record.nodes.items())},
        "holders": [holder._asdict() for holder in record.holders.holders],
        "unseen": record.holders.unseen,
        "claimed": sorted(record.claimed),
        "lock": record.lock._asdict(),
    }
    return json.dumps(document, indent=1).encode() + b"\n"


@lru_cache(maxsize=2)
def _load(path: str) -> Recorded:
    try:
        return from_json(read(path) or "")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError(
            f"the snapshot's {RECORD} cannot be understood: {error}",
            hint="it was made by a newer vfioctl, or has been changed",
            subject=RECORD,
            code="archive",
        ) from error


def from_json(text: str) -> Recorded:
    """The record. Raises ValueError, KeyError, TypeError or RecursionError."""
    document = json.loads(text)
    if _is(dict, document).get("snapshot_version") != VERSION:
        raise ValueError(f"its version is not {VERSION}")
    return Recorded(
        _text(document["version"]),
        _is(int, document["euid"]),
        _byteorder(document["byteorder"]),
        _is(int, document["time"]),
        _is(bool, document["redacted"]),
        _mapping(document["nodes"], lambda path, fields: Node(path, *(_is(int, field) for field in fields))),
        Found(tuple(map(_holder, _is(list, document["holders"]))), _or_none(_number, document["unseen"])),
        tuple((_text(client), _text(server)) for client, server in _is(list, document["connections"])),
        _mapping(document["addresses"], lambda _, address: _text(address)),
        frozenset(map(_text, _is(list, document["claimed"]))),
        _or_none(_number, document["api_version"]),
        _mapping(document["extensions"], lambda _, answer: _or_none(_flag, answer)),
        _mapping(document["names"], lambda _, names: _mapping(names, lambda _, name: _text(name))),
        _lock(_is(dict, document["lock"])),
    )


def _lock(fields: Any) -> LockLimit:
    return LockLimit(
        *(_text(fields["who"]), _or_none(_number, fields["soft"]), _or_none(_number, fields["hard"])),
        *(_text(fields["path"]), _text(fields["value"])),
        charged=_number(fields["charged"]),
        exempt=_flag(fields["exempt"]),
    )


def _holder(fields: Any) -> Holder:
    texts = ("command", "user", "unit", "container", "node", "what")
    return Holder(
        **{name: _or_none(_text, fields[name]) for name in texts},
        pid=_or_none(_number, fields["pid"]),
        uid=_or_none(_number, fields["uid"]),
        certain=_flag(fields["certain"]),
        bus=_text(fields["bus"]),
        address=_text(fields["address"]),
        kind=_text(fields["kind"]),
    )


def _is(kind: type[T], value: Any) -> T:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise TypeError(f"{str(value)[:40]!r} is not of the type {kind.__name__}")
    return value


def _byteorder(value: Any) -> Literal["little", "big"]:
    if value not in ("little", "big"):
        raise ValueError("there is no such byte order")
    return "big" if value == "big" else "little"


def _number(value: Any) -> int:
    return _is(int, value)


def _flag(value: Any) -> bool:
    return _is(bool, value)


def _text(value: Any) -> str:
    return visible(_is(str, value))


def _or_none(check: Callable[[Any], T], value: Any) -> T | None:
    return None if value is None else check(value)


def _mapping(value: Any, check: Callable[[str, Any], T]) -> dict[str, T]:
    return {_text(key): check(key, item) for key, item in _is(dict, value).items()}
