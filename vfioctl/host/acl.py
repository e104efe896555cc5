"""POSIX access control lists of device nodes, as text: ``u::rw-,u:1000:rw-,g::---,m::rw-,o::---``, ids as numbers."""

from __future__ import annotations

import errno
import os
import struct

_XATTR = "system.posix_acl_access"
#: <linux/posix_acl_xattr.h>, posix_acl_xattr_header and posix_acl_xattr_entry: little-endian on every machine.
_HEADER = struct.Struct("<I")
_ENTRY = struct.Struct("<HHI")
_VERSION = 2
_NOBODY = 0xFFFFFFFF
_TAGS = {0x01: "u", 0x02: "u", 0x04: "g", 0x08: "g", 0x10: "m", 0x20: "o"}
_NAMED = {0x02, 0x08}
_LETTERS = ((4, "r"), (2, "w"), (1, "x"))


def read_acl(path: str) -> str | None:
    """The list of a node, or None when it has none beyond its mode (or its file system knows none)."""
    try:
        data = os.getxattr(path, _XATTR, follow_symlinks=False)
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.ENOTSUP, errno.ENOENT):
            return None
        raise
    return decode(data)


def write_acl(path: str, acl: str) -> None:
    """Replaces the list of a node; its mode changes with it. Raises OSError."""
    os.setxattr(path, _XATTR, encode(acl), follow_symlinks=False)


def remove_acl(path: str) -> None:
    """Leaves the node its mode alone. Raises OSError."""
    try:
        os.removexattr(path, _XATTR, follow_symlinks=False)
    except OSError as error:
        if error.errno not in (errno.ENODATA, errno.ENOTSUP):
            raise


def decode(data: bytes) -> str:
    """Text of the kernel's form. Raises ValueError for another version or a broken one."""
    if len(data) < _HEADER.size or _HEADER.unpack_from(data)[0] != _VERSION or (len(data) - 4) % _ENTRY.size:
        raise ValueError("an access control list of an unknown form")
    entries = []
    for tag, bits, number in _ENTRY.iter_unpack(data[_HEADER.size :]):
        who = str(number) if tag in _NAMED else ""
        entries.append(f"{_TAGS[tag]}:{who}:{''.join(c if bits & bit else '-' for bit, c in _LETTERS)}")
    return ",".join(entries)


def encode(text: str) -> bytes:
    """The kernel's form of the text. Raises ValueError."""
    data = _HEADER.pack(_VERSION)
    for entry in text.split(","):
        letter, who, word = entry.split(":")
        tag = next((tag for tag, c in _TAGS.items() if c == letter and (tag in _NAMED) == bool(who)), None)
        if tag is None:
            raise ValueError(f"{entry!r} is no entry of an access control list")
        bits = sum(bit for bit, c in _LETTERS if c in word)
        data += _ENTRY.pack(tag, bits, int(who) if who else _NOBODY)
    return data
