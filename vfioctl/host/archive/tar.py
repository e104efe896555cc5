"""Reads tar: the formats ustar, pax and GNU, as far as a snapshot needs them.

The standard library's tarfile is not made for hostile input: headers have kept it busy without end (CVE-2024-6232,
CVE-2025-8194), not every Python 3.11 has the repairs, and its filters (PEP 706) set no limits.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

from vfioctl.host.archive.entry import FILE, MEMBERS, BadArchive, Entry, Kind, checked

_BLOCK = 512
_LONG = 1 << 16
_KINDS = {b"0": Kind.FILE, b"\0": Kind.FILE, b"5": Kind.DIRECTORY, b"2": Kind.LINK}
_OTHERS = {
    b"1": "a hard link", b"3": "a device node", b"4": "a device node", b"6": "a fifo", b"7": "a contiguous file",
    b"S": "a sparse file",
}  # fmt: skip


class Source(Protocol):
    """Where the bytes come from: ``take`` raises BadArchive when there are not as many."""

    def take(self, size: int) -> bytes: ...


class _Header(NamedTuple):
    name: str
    size: int
    type: bytes
    target: bytes


def entries(source: Source) -> Iterator[Entry]:
    """The members, checked one by one. Raises BadArchive."""
    names: dict[str, str] = {}
    for _ in range(MEMBERS):
        header = _header(source.take(_BLOCK))
        if header is None:
            return
        if header.type in (b"x", b"g", b"L", b"K"):
            if header.size > _LONG:
                raise BadArchive("a header in it is too long")
            data = _content(source, header.size)
            if header.type == b"x":
                names |= _records(data)
            elif header.type != b"g":
                names["path" if header.type == b"L" else "linkpath"] = _text(data)
            continue
        entry = _entry(source, header, names)
        names = {}
        if entry is not None:
            yield entry
    raise BadArchive(f"it has more than {MEMBERS} members")


def _entry(source: Source, header: _Header, names: dict[str, str]) -> Entry | None:
    """The member that a header begins; None for the top directory itself."""
    path = names.get("path", header.name)
    kind = _KINDS.get(header.type)
    if kind is None:
        what = _OTHERS.get(header.type, "something unknown")
        raise BadArchive(f"it has {what} in it: {path[:200]!r}")
    if header.size > (FILE if kind is Kind.FILE else 0):
        raise BadArchive(f"{path[:200]!r} in it is too large")
    data = _content(source, header.size)
    if kind is Kind.LINK:
        data = names["linkpath"].encode(errors="surrogateescape") if "linkpath" in names else header.target
    if kind is Kind.DIRECTORY:
        path = path.removesuffix("/")
        if path == ".":
            return None
    return checked(Entry(path.removeprefix("./"), kind, data))


def _header(block: bytes) -> _Header | None:
    if not block.strip(b"\0"):
        return None
    if _number(block[148:156]) != sum(block[:148]) + 8 * 0x20 + sum(block[156:]):
        raise BadArchive("it is no tar archive, or damaged")
    name = _text(block[:100])
    if block[257:263] == b"ustar\0" and block[345]:
        name = f"{_text(block[345:500])}/{name}"
    return _Header(name, _number(block[124:136]), block[156:157], block[157:257].partition(b"\0")[0])


def _content(source: Source, size: int) -> bytes:
    return source.take(-(-size // _BLOCK) * _BLOCK)[:size]


def _number(field: bytes) -> int:
    digits = field.strip(b" \0")
    if not all(digit in b"01234567" for digit in digits):
        raise BadArchive("it is no tar archive, or damaged")
    return int(digits or b"0", 8)


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode(errors="surrogateescape")


def _records(data: bytes) -> dict[str, str]:
    """The names among the records ``LENGTH KEY=VALUE\\n`` of a pax header."""
    found = {}
    while data:
        digits, _, rest = data.partition(b" ")
        if not digits.isdigit() or len(digits) > 6:
            raise BadArchive("it is damaged: a pax header is malformed")
        end = int(digits) - len(digits) - 1
        key, _, value = rest[: max(0, end - 1)].partition(b"=")
        if end < 1 or rest[end - 1 : end] != b"\n":
            raise BadArchive("it is damaged: a pax header is malformed")
        if key == b"size" or key.startswith(b"GNU.sparse"):
            raise BadArchive("it has a sparse or huge file in it")
        if key in (b"path", b"linkpath"):
            found[key.decode()] = value.decode(errors="surrogateescape")
        data = rest[end:]
    return found
