"""Takes the files of the list (see places.py) from a host."""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import os
import re
import stat
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

from vfioctl.host.archive.entry import FILE, BadArchive, Entry, Kind, checked, forbidden
from vfioctl.host.extent.excerpts import excerpt
from vfioctl.host.extent.places import DEVICES, HOST, NAMES, OF_A_DEVICE, WAKING, expanded
from vfioctl.host.files import names, read
from vfioctl.host.locked import PATIENCE
from vfioctl.host.survey import survey
from vfioctl.host.topology import sleeps

#: What is cut to an excerpt may be larger than what is kept.
_LIMIT = 2 * FILE
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.ELOOP)
#: Files that name block devices by their nodes, which may be links: /dev/mapper/vg-root.
_NAMING = ("proc/*/mountinfo", "proc/swaps", "sys/*/loop/backing_file")
_RESERVATIONS = "run/qemu-server/pci-id-reservations"


class Collected(NamedTuple):
    """``entries`` by path; ``forbidden``: paths that the caller may not read (absolute); ``silent``: files that did not
    answer, since the kernel holds a lock."""

    entries: dict[str, Entry]
    forbidden: list[str]
    silent: list[str]


def collect(root: str, timeout: float) -> Collected:
    """All that is on the list. Reading may wait for locks of devices: for ``timeout`` seconds at most.

    Links are taken as links, where sysfs has them; what a link leads to is taken only if it is below ``root`` and on
    the list itself.
    """
    walk = _Walk(root)
    for pattern in HOST:
        for parts in expanded(pattern):
            walk.take_all(parts)
    homes: dict[str, None] = {}
    for pattern in DEVICES:
        for parts in expanded(pattern):
            for path in walk.matches(parts):
                walk.take(path)
                if (home := walk.real(path)) is not None:
                    homes[home] = None
    attributes = [parts for pattern in OF_A_DEVICE for parts in expanded(pattern)]
    for home in homes:
        asleep = sleeps(walk.at(home))
        for parts in attributes:
            if not (asleep and parts[0] in WAKING):
                walk.take_all(parts, home)
        # A bridge that sleeps lets nobody below answer.
        walk.take(f"{os.path.dirname(home)}/power/runtime_status")
    silent = walk.read_files(timeout)
    walk.take_what_is_named()
    return Collected(walk.entries, sorted(f"/{path}" for path in walk.forbidden), silent)


class _Walk:
    def __init__(self, root: str) -> None:
        self.root = os.path.realpath(root)
        self.entries: dict[str, Entry] = {}
        self._files: list[str] = []
        self._names: dict[str, list[str]] = {}
        self._reals: dict[str, str | None] = {}

    @cached_property
    def _release(self) -> str:
        return read(self.at("proc/sys/kernel/osrelease")) or os.uname().release

    @property
    def forbidden(self) -> list[str]:
        return [path for path, entry in self.entries.items() if entry == forbidden(path)]

    def at(self, path: str) -> str:
        return os.path.join(self.root, path)

    def real(self, path: str) -> str | None:
        """Where a path really is, relative to the root; None when that is not below it."""
        if path not in self._reals:
            found = os.path.relpath(os.path.realpath(self.at(path)), self.root)
            self._reals[path] = None if found.split("/")[0] == ".." else found
        return self._reals[path]

    def take_all(self, parts: Sequence[str], below: str = "") -> None:
        for path in self.matches(parts, below):
            self.take(path)

    def matches(self, parts: Sequence[str], below: str = "") -> Iterator[str]:
        """The paths that fit a pattern; where none of its parts has a wildcard, the one path, be it there or not."""
        if not parts:
            yield below
            return
        part, *rest = parts
        if below in ("lib/modules", "boot"):
            part = part.replace("*", self._release)
        found = [part]
        if "*" in part:
            found = [name for name in self._entries(below) if fnmatch.fnmatchcase(name, part)]
        for name in found:
            yield from self.matches(rest, f"{below}/{name}" if below else name)

    def _entries(self, path: str) -> list[str]:
        if path not in self._names:
            self._names[path] = []
            try:
                self._names[path] = names(self.at(path))
            except PermissionError:
                self.add(forbidden(path))
            else:
                self.take(path)  # an empty directory is not an absent one
        return self._names[path]

    def take(self, path: str) -> None:
        """Takes what is at a path, if anything is. In sysfs a path leads through links to where the thing really is;
        elsewhere (/proc/self, /proc/net) it is taken by the path that it is known by."""
        parent, _, name = path.rpartition("/")
        if path.startswith("sys/"):
            where = self.real(parent)
            if where is None:
                return
            path = f"{where}/{name}"
        elif self.real(path) is None:
            return
        if path in self.entries:
            return
        try:
            status = os.lstat(self.at(path)) if path.startswith("sys/") else os.stat(self.at(path))
        except OSError as error:
            if error.errno in _FORBIDDEN:
                self.add(forbidden(path))
            return
        if stat.S_ISLNK(status.st_mode):
            self._take_link(path)
        elif stat.S_ISDIR(status.st_mode):
            self.add(Entry(path, Kind.DIRECTORY))
        else:  # of a device node an archive holds that it is there
            self.add(Entry(path, Kind.FILE))
            if stat.S_ISREG(status.st_mode) and not any(fnmatch.fnmatchcase(path, name) for name in NAMES):
                self._files.append(path)

    def add(self, entry: Entry) -> None:
        with contextlib.suppress(BadArchive):  # a name that no archive can have
            self.entries[entry.path] = checked(entry)

    def _take_link(self, path: str) -> None:
        target = os.readlink(self.at(path))
        try:
            self.entries[path] = checked(Entry(path, Kind.LINK, os.fsencode(target)))
        except BadArchive:
            self._take_straight(path)

    def _take_straight(self, path: str) -> None:
        """A link as one that leads straight to where it leads in the end; none that leads out of the root."""
        end = self.real(path)
        if end is not None and end != path:
            target = os.path.relpath(end, os.path.dirname(path))
            self.add(Entry(path, Kind.LINK, os.fsencode(target)))

    def read_files(self, timeout: float) -> list[str]:
        """Fills in what the files hold; those that do not answer are left out, and returned."""
        answers, silent = survey(self._content, self._files, min(PATIENCE, timeout), timeout)
        for path, answer in answers:
            if isinstance(answer, bytes):
                self.entries[path] = Entry(path, Kind.FILE, excerpt(path, answer)[:FILE])
            elif answer in _FORBIDDEN:
                self.entries[path] = forbidden(path)
            else:  # it has just gone, or its device cannot answer
                del self.entries[path]
        for path in silent:
            del self.entries[path]
        return [f"/{path}" for path in silent]

    def _content(self, path: str) -> bytes | int:
        try:
            fd = os.open(self.at(path), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        except OSError as error:
            return error.errno or errno.EIO
        try:
            data = b""
            while len(data) < _LIMIT and (more := os.read(fd, 1 << 16)):
                data += more
            return data
        except OSError as error:
            return error.errno or errno.EIO
        finally:
            os.close(fd)

    def take_what_is_named(self) -> None:
        """The directories that links lead to, as empty ones; the links among the nodes that are mounted or swapped to;
        the processes that a reservation is for."""
        for path in [path for path, entry in self.entries.items() if entry.kind is Kind.LINK]:
            end = self.real(path)
            if end is not None and end not in self.entries and os.path.isdir(self.at(end)):
                self.add(Entry(end, Kind.DIRECTORY))
        for path, entry in list(self.entries.items()):
            if any(fnmatch.fnmatchcase(path, pattern) for pattern in _NAMING):
                text = entry.data.decode(errors="surrogateescape")
                for node in re.findall(r"/(dev/[^\s,:=]+)", text):
                    name = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), node)
                    if os.path.islink(self.at(name)) and self.real(os.path.dirname(name)) == os.path.dirname(
                        name
                    ):
                        self._take_straight(name)
        reserved = self.entries.get(_RESERVATIONS)
        for number in re.findall(rb"pid:(\d{1,18})", reserved.data if reserved else b""):
            self.take(f"proc/{int(number)}")
