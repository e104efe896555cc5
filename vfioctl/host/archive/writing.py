"""Writes archives."""

from __future__ import annotations

import gzip
import io
import subprocess
import tarfile
from collections.abc import Sequence

from vfioctl.errors import DeadlinePassed, UsageError
from vfioctl.host.archive.entry import ARCHIVE, FILE, MEMBERS, TOTAL, Entry, Kind, checked
from vfioctl.host.archive.streams import zstd

_SUFFIXES = {".tar.gz": "gzip", ".tgz": "gzip", ".tar.zst": "zstd", ".tzst": "zstd"}
_TYPES = {Kind.DIRECTORY: tarfile.DIRTYPE, Kind.FILE: tarfile.REGTYPE, Kind.LINK: tarfile.SYMTYPE}


def compression_of(name: str) -> str:
    """How a file of this name is compressed. Raises UsageError for another name, and without the program zstd."""
    found = next((kind for suffix, kind in _SUFFIXES.items() if name.endswith(suffix)), None)
    if found is None:
        raise UsageError(
            f"{name!r} does not say what it is", hint=f"end it in {', '.join(_SUFFIXES)}", subject=name
        )
    if found == "zstd" and zstd() is None:
        raise UsageError(
            "zstd is not installed here", hint="install it, or end the name in .tar.gz", subject=name
        )
    return found


def pack(entries: Sequence[Entry], compression: str, timeout: float) -> bytes:
    """The archive, with the entries in their order; the same entries give the same bytes. Raises UsageError when it is
    larger than what is unpacked, DeadlinePassed when zstd does not end within ``timeout`` seconds."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT, errors="surrogateescape") as tar:
        for entry in entries:
            _add(tar, checked(entry))
    data = file.getbuffer()
    if len(entries) >= MEMBERS // 2 or len(data) > TOTAL:  # a long name takes a member of its own
        raise _too_large(f"{len(entries)} files of {len(data)} bytes")
    packed = gzip.compress(data, 6, mtime=0) if compression == "gzip" else _zstd(data, timeout)
    if len(packed) > ARCHIVE:
        raise _too_large(f"{len(packed)} bytes")
    return packed


def _add(tar: tarfile.TarFile, entry: Entry) -> None:
    member = tarfile.TarInfo(entry.path)
    member.type = _TYPES[entry.kind]
    member.mode = 0o755 if entry.kind is Kind.DIRECTORY else 0o644
    if entry.kind is Kind.LINK:
        member.linkname = entry.target
    if entry.kind is not Kind.FILE:
        tar.addfile(member)
        return
    if len(entry.data) > FILE:
        raise _too_large(f"{entry.path} has {len(entry.data)} bytes")
    member.size = len(entry.data)
    tar.addfile(member, io.BytesIO(entry.data))


def _zstd(data: memoryview, timeout: float) -> bytes:
    program = zstd()
    assert program is not None, "compression_of has looked"
    try:
        done = subprocess.run(
            [program, "-cq"],
            input=data,
            stdout=subprocess.PIPE,
            timeout=timeout,
            check=True,
        )
    except subprocess.TimeoutExpired as error:
        raise DeadlinePassed(f"zstd has not ended within {timeout:g} s") from error
    return done.stdout


def _too_large(what: str) -> UsageError:
    return UsageError(
        f"a snapshot of this host is too large: {what}",
        hint="it could not be unpacked again; please report how many devices the host has",
        code="too-large",
    )
