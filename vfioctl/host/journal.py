"""What vfioctl writes down of a host, and its form as JSON: the journal of a change, and the home drivers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from vfioctl.errors import GuardRefusal, VfioctlError
from vfioctl.host.acl import encode
from vfioctl.model import Access, Binding, DynamicId, State

VERSION = 1
_BROKEN = (KeyError, TypeError, ValueError, AttributeError)


class Home(NamedTuple):
    """Where a device was before vfioctl took it; ``identity`` (its modalias) guards against another device at
    the same address."""

    identity: str | None
    binding: Binding


class Journal(NamedTuple):
    """What was there before a change that has not been finished, ids that the change may have added, the record of
    home drivers as it was, and the devices' identities (modalias), for another one may come to the same address.
    ``members``: by node, the devices (keys) that it is of, for group numbers are given again too."""

    command: str
    before: State
    dynamic_ids: tuple[DynamicId, ...] = ()
    homes: Mapping[str, Home] = {}
    identities: Mapping[str, str | None] = {}
    members: Mapping[str, tuple[str, ...]] = {}


def journal_to_json(journal: Journal) -> dict[str, Any]:
    """The journal as it stands in its file."""
    return {
        "version": VERSION,
        "command": journal.command,
        "before": {key: binding._asdict() for key, binding in journal.before.bindings.items()},
        "nodes": {path: access._asdict() for path, access in journal.before.access.items()},
        "dynamic_ids": [dynamic._asdict() for dynamic in journal.dynamic_ids],
        "homes": _home_entries(journal.homes),
        "identities": dict(journal.identities),
        "members": {path: list(keys) for path, keys in journal.members.items()},
    }


def journal_from_json(data: Mapping[str, Any], path: str) -> Journal:
    """The inverse of :func:`journal_to_json`. Raises VfioctlError, which names ``path``."""
    try:
        return Journal(
            str(data["command"]),
            State(
                {_key(key): _binding(entry) for key, entry in data["before"].items()},
                {_node(path): _access(entry) for path, entry in data["nodes"].items()},
            ),
            tuple(map(_dynamic_id, data["dynamic_ids"])),
            _homes(data["homes"]),
            {_key(key): identity for key, identity in data["identities"].items()},
            {path: tuple(map(_key, keys)) for path, keys in data.get("members", {}).items()},
        )
    except _BROKEN as error:
        raise unreadable(path, _why(error)) from error


def homes_to_json(homes: Mapping[str, Home]) -> dict[str, Any]:
    """The record of home drivers as it stands in its file."""
    return {"version": VERSION, "homes": _home_entries(homes)}


def homes_from_json(data: Mapping[str, Any], path: str) -> dict[str, Home]:
    """The inverse of :func:`homes_to_json`. Raises VfioctlError, which names ``path``."""
    try:
        return _homes(data["homes"])
    except _BROKEN as error:
        raise unreadable(path, _why(error)) from error


def unreadable(path: str, why: str) -> VfioctlError:
    """The error for a record, in the file ``path``, that makes no sense."""
    return VfioctlError(
        f"{path} cannot be understood: {why}",
        hint="look at it, put its devices right by hand, then remove it",
        subject=path,
        code="journal-unreadable",
        status=GuardRefusal.status,
    )


def _why(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)


def _home_entries(homes: Mapping[str, Home]) -> dict[str, Any]:
    return {key: {"identity": home.identity, **home.binding._asdict()} for key, home in homes.items()}


def _homes(entries: Mapping[str, Any]) -> dict[str, Home]:
    return {_key(key): Home(entry["identity"], _binding(entry)) for key, entry in entries.items()}


def _key(text: str) -> str:
    """A device's key becomes a part of paths. Raises ValueError."""
    if text.count("/") != 1 or ".." in text:
        raise ValueError(f"{text!r} is no device")
    return text


def _binding(entry: Mapping[str, Any]) -> Binding:
    """Raises ValueError for a driver's name that would be a path."""
    names = entry["driver"], entry["driver_override"]
    for name in names:
        if name is not None:
            _driver(name)
    numvfs = entry.get("numvfs")  # not there in what an older vfioctl has left
    return Binding(*names, None if numvfs is None else int(numvfs))


def _driver(name: Any) -> str:
    """It becomes a part of paths. Raises ValueError."""
    if not isinstance(name, str) or "/" in name or name in ("", ".", ".."):
        raise ValueError(f"{name!r} is no driver")
    return name


def _dynamic_id(entry: Mapping[str, Any]) -> DynamicId:
    """Raises ValueError for what no driver could have been given."""
    fields = str(entry["fields"])
    if re.fullmatch("[0-9a-f ]+", fields) is None:
        raise ValueError(f"{fields!r} is no id")
    return DynamicId(_driver(entry["driver"]), fields)


def _node(path: str) -> str:
    """Nothing but a node of VFIO's ever gets another owner. Raises ValueError."""
    if not path.startswith("/dev/vfio/") or ".." in path:
        raise ValueError(f"{path!r} is no node of VFIO's")
    return path


def _access(entry: Mapping[str, Any]) -> Access:
    """Raises ValueError for an access control list that is none."""
    acl = entry.get("acl")
    if acl is not None:
        encode(acl)
    return Access(int(entry["uid"]), int(entry["gid"]), int(entry["mode"]), acl)
