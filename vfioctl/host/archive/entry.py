"""A member of an archive, and what one may be: directories, files and links that stay inside."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from vfioctl.errors import UsageError

#: What a snapshot may hold, written or read: members, bytes of one file, of all headers and files (1024 and more for
#: a file of one byte), of the archive itself; bytes of a name, parts of a path.
MEMBERS = 250_000
FILE = 8 << 20
TOTAL = 384 << 20
ARCHIVE = 64 << 20
NAME, PART, DEPTH = 1024, 255, 64
#: Compressed, headers of tar with files of a few bytes shrink a hundredfold; a bomb does a thousandfold and more.
RATIO, RATIO_FLOOR = 300, 32 << 20


class Kind(Enum):
    """As words, for messages."""

    DIRECTORY = "directory"
    FILE = "file"
    LINK = "link"


class Entry(NamedTuple):
    """``path`` is relative to the root; ``data`` are the bytes of a file, or the target of a link.

    A link to itself stands for a file or directory that its reader was forbidden: opening it fails, for everybody.
    """

    path: str
    kind: Kind
    data: bytes = b""

    @property
    def target(self) -> str:
        """Where a link leads."""
        return self.data.decode(errors="surrogateescape")


class BadArchive(UsageError):
    """What was given as an archive is none, is damaged, or has something in it that no snapshot has."""

    code = "archive"

    def __init__(self, message: str) -> None:
        super().__init__(
            message,
            hint="vfioctl snapshot makes archives; a directory is taken as it is, once it is unpacked",
        )


def forbidden(path: str) -> Entry:
    """The mark for what may not be read."""
    return Entry(path, Kind.LINK, path.rpartition("/")[2].encode(errors="surrogateescape"))


def checked(entry: Entry) -> Entry:
    """The entry itself. Raises BadArchive for one that could reach out of the directory that it is unpacked into."""
    parts = entry.path.split("/")
    data = entry.path.encode(errors="surrogateescape")
    if len(data) > NAME or len(parts) > DEPTH:
        raise BadArchive(f"a name in it is too long: {entry.path[:60]!r}...")
    if any(not _is_plain(part) for part in parts):
        raise BadArchive(f"it has a name that leads elsewhere: {entry.path!r}")
    if entry.kind is Kind.LINK and not _stays_inside(entry.target, len(parts) - 1):
        raise BadArchive(f"it has a link that leads out of it: {entry.path!r} -> {entry.target[:200]!r}")
    return entry


def _is_plain(part: str) -> bool:
    return (
        part not in ("", ".", "..")
        and "\0" not in part
        and len(part.encode(errors="surrogateescape")) <= PART
    )


def _stays_inside(target: str, depth: int) -> bool:
    """Whether a link in a directory ``depth`` parts below the root stays below it. Steps up come first, as in sysfs:
    then they are steps from the link's own directory, which is a real one, and not from where another link leads."""
    parts = target.split("/")
    up = next((index for index, part in enumerate(parts) if part != ".."), len(parts))
    return up <= depth and len(parts) <= DEPTH and (up > 0 or bool(parts)) and all(map(_is_plain, parts[up:]))
