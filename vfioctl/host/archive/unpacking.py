"""Unpacks an archive into a private directory."""

from __future__ import annotations

import os
import stat
from io import FileIO

from vfioctl.host.archive.entry import ARCHIVE, BadArchive, Entry, Kind
from vfioctl.host.archive.streams import decompressed
from vfioctl.host.archive.tar import entries


def unpack(path: str, directory: str, timeout: float) -> None:
    """Unpacks the archive ``path`` into ``directory``, an empty one that nobody else can write to.

    Links are made last: while files are, nothing is there that could lead elsewhere. Raises BadArchive, or OSError when
    the archive cannot be read or the directory is full; what has been unpacked by then is left to the caller.
    """
    with _opened(path) as file, decompressed(file, timeout) as stream:
        tree = _Tree(directory)
        for entry in entries(stream):
            tree.add(entry)
        stream.finish()
    tree.make_links()


def _opened(path: str) -> FileIO:
    """The archive, which is a regular file of a bearable size."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    # zstd gets the descriptor, and reads from where it stands.
    file = open(fd, "rb", buffering=0)  # noqa: SIM115
    status = os.fstat(file.fileno())
    if stat.S_ISREG(status.st_mode) and status.st_size <= ARCHIVE:
        return file
    file.close()
    raise BadArchive(
        "it is no regular file" if status.st_size <= ARCHIVE else "it is larger than any snapshot"
    )


class _Tree:
    """What is being unpacked: every path has one meaning, and what is above a path is a directory."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        #: True for directories that were only named on the way to something in them.
        self._implied: dict[str, bool] = {}
        self._taken: set[str] = set()
        self._links: dict[str, str] = {}

    def add(self, entry: Entry) -> None:
        self._make_parents(entry.path)
        if entry.kind is Kind.DIRECTORY and self._implied.get(entry.path):
            self._implied[entry.path] = False
            return
        if entry.path in self._taken or entry.path in self._implied:
            raise BadArchive(f"it has {entry.path!r} twice")
        if entry.kind is Kind.DIRECTORY:
            self._make_directory(entry.path, implied=False)
            return
        self._taken.add(entry.path)
        if entry.kind is Kind.LINK:
            self._links[entry.path] = entry.target
            return
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(self._at(entry.path), flags, 0o600), "wb") as file:
            file.write(entry.data)

    def make_links(self) -> None:
        for path, target in self._links.items():
            os.symlink(target, self._at(path))

    def _at(self, path: str) -> str:
        return os.path.join(self._directory, path)

    def _make_parents(self, path: str) -> None:
        parent = path.rpartition("/")[0]
        if parent and parent not in self._implied:
            self._make_parents(parent)
            if parent in self._taken:
                raise BadArchive(f"it has something below {parent!r}, which is no directory")
            self._make_directory(parent, implied=True)

    def _make_directory(self, path: str, *, implied: bool) -> None:
        os.mkdir(self._at(path), 0o700)
        self._implied[path] = implied
