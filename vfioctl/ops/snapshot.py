"""Taking a snapshot: what the looking commands read, and what no file tells, with or without secrets."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable
from typing import NamedTuple

from vfioctl.errors import VfioctlError
from vfioctl.host.archive.entry import Entry, Kind
from vfioctl.host.extent import ask, collect
from vfioctl.host.holders.holder import Holder
from vfioctl.host.reader import RECORD, read_snapshot
from vfioctl.host.recorded import Recorded, recorded, to_json
from vfioctl.ops.status import ContainerInfo, probe_container
from vfioctl.policy.redaction import Files, Tokens
from vfioctl.uapi.vfio import VFIO_API_VERSION

#: Where systemd and distributions let people's uids begin, and end (systemd, docs/UIDS-GIDS.md).
_PEOPLE = range(1000, 60000)


class Taken(NamedTuple):
    """``redacted``: how many secrets of each kind have been replaced; None when all were to stay. ``forbidden`` and
    ``silent``: files that could not be read, or did not answer."""

    entries: tuple[Entry, ...]
    redacted: dict[str, int] | None
    forbidden: list[str]
    silent: list[str]


def take(root: str, timeout: float, *, redact: bool) -> Taken:
    """A snapshot of the host at ``root``; of one that is a snapshot itself with what that has recorded."""
    collected = collect(root, timeout)
    entries = collected.entries
    record = recorded(root)
    if root == "/":
        # Older kernels do not have it, and below another root no system call tells.
        entries.setdefault(
            "proc/sys/kernel/arch", _file("proc/sys/kernel/arch", f"{os.uname().machine}\n".encode())
        )
        container = _container()
        devices = read_snapshot(root, ungrouped=True, named=_on_buses(entries)).devices
        extensions = container and container.extensions
        record = ask(collected, devices, extensions, VFIO_API_VERSION, timeout)
    counts = None
    found: Iterable[Entry] = entries.values()
    if redact:
        tokens = Tokens(os.urandom(32), _words(record))
        found, record = _redacted(list(found), record, tokens)
        counts = tokens.counts
    listed = sorted(found, key=lambda entry: entry.path)
    if record is not None:
        listed.insert(0, _file(RECORD, to_json(record)))
    return Taken(tuple(listed), counts, collected.forbidden, collected.silent)


def _file(path: str, data: bytes) -> Entry:
    return Entry(path, Kind.FILE, data)


def _container() -> ContainerInfo | None:
    try:
        return probe_container()
    except VfioctlError:  # VFIO is not there, or not for the caller: iommu-info says so by null
        return None


def _on_buses(entries: Iterable[str]) -> list[str]:
    found = (re.fullmatch(r"sys/bus/([^/]+)/devices/([^/]+)", path) for path in entries)
    return [f"{match[1]}/{match[2]}" for match in found if match is not None]


def _words(record: Recorded | None) -> list[str]:
    """Names of the host and of people, as far as they are known."""
    host = os.uname().nodename
    people = [holder.user for holder in (record.holders.holders if record else ()) if _is_person(holder)]
    callers = [os.environ.get(name) for name in ("SUDO_USER", "USER", "LOGNAME")]
    return [word for word in (host, host.partition(".")[0], *people, *callers) if word and word != "root"]


def _is_person(holder: Holder) -> bool:
    return holder.uid is not None and (holder.uid in _PEOPLE or holder.uid > 65535)


def _redacted(
    entries: list[Entry], record: Recorded | None, tokens: Tokens
) -> tuple[list[Entry], Recorded | None]:
    disks = {entry.path.rpartition("/")[2] for entry in entries if entry.path.startswith("sys/class/block/")}
    files = Files(tokens, disks, record.byteorder if record else sys.byteorder)
    found = []
    for entry in entries:
        data = entry.data
        if entry.kind is Kind.LINK:
            data = os.fsencode(files.target(entry.path, entry.target))
        elif entry.kind is Kind.FILE:
            data = files.data(entry.path, data)
        found.append(Entry(files.path(entry.path), entry.kind, data))
    return found, record and _redacted_record(record, tokens)


def _redacted_record(record: Recorded, tokens: Tokens) -> Recorded:
    holders = tuple(_redacted_holder(holder, tokens) for holder in record.holders.holders)
    return record._replace(
        redacted=True,
        holders=record.holders._replace(holders=holders),
        connections=tuple(
            (tokens.address(client), tokens.address(server)) for client, server in record.connections
        ),
        addresses={tokens.text(name): tokens.address(address) for name, address in record.addresses.items()},
    )


def _redacted_holder(holder: Holder, tokens: Tokens) -> Holder:
    """Without the names of people, and without those of containers and virtual machines."""
    unit = holder.unit and tokens.prose(holder.unit)
    if holder.unit and holder.container:
        unit = f"{tokens.name(holder.unit)}.{holder.unit.rpartition('.')[2]}"
    kind, _, name = (holder.container or "").partition(":")
    return holder._replace(
        command=holder.command and tokens.prose(holder.command),
        user=tokens.name(holder.user, "user") if holder.user and _is_person(holder) else holder.user,
        unit=unit,
        container=holder.container and f"{kind}:{tokens.name(name)}",
        address=tokens.text(holder.address),
        node=holder.node and tokens.text(holder.node),
    )
