"""Reading small kernel files, relative to a directory file descriptor where one is at hand.

A device can vanish between any two reads: ENOENT, ENODEV and ENXIO are the answer None ("not there").
A file that is there and forbidden raises PermissionError: absent, empty and forbidden are three answers. In a snapshot
a link to itself stands for what was forbidden: it is so for root, too.
"""

from __future__ import annotations

import errno
import os

GONE = frozenset({errno.ENOENT, errno.ENODEV, errno.ENXIO, errno.ENOTDIR})
#: sysfs attributes end below a page; procfs files do not, and a read of one ends where the next line would not fit.
_PAGE = 4096


def read(path: str, dir_fd: int | None = None) -> str | None:
    """The whole text of ``path`` without its trailing newline, or None when it is not there.

    Undecodable bytes become surrogates; rendering makes them visible.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=dir_fd)
    except OSError as error:
        if error.errno in GONE:
            return None
        raise forbidden(error) from None
    try:
        data = os.read(fd, _PAGE)
        if dir_fd is None or len(data) == _PAGE:
            while more := os.read(fd, 16 * _PAGE):
                data += more
    except OSError as error:
        if error.errno in GONE:
            return None
        raise
    finally:
        os.close(fd)
    return data.decode(errors="surrogateescape").rstrip("\n")


def is_there(name: str, dir_fd: int) -> bool:
    """Whether the directory has an entry: for one that mostly is missing, much cheaper than an exception."""
    return os.access(name, os.F_OK, dir_fd=dir_fd)


def link_name(path: str, dir_fd: int | None = None) -> str | None:
    """The last component of a symbolic link's target (``driver`` -> driver name), or None."""
    try:
        return os.readlink(path, dir_fd=dir_fd).rpartition("/")[2]
    except OSError as error:
        if error.errno in GONE or error.errno == errno.EINVAL:
            return None
        raise


def names(path: str, dir_fd: int | None = None) -> list[str]:
    """The sorted entries of a directory; empty when it is not there."""
    try:
        if dir_fd is None:
            return sorted(os.listdir(path))
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=dir_fd)
    except OSError as error:
        if error.errno in GONE:
            return []
        raise forbidden(error) from None
    try:
        return sorted(os.listdir(fd))
    finally:
        os.close(fd)


def forbidden(error: OSError) -> OSError:
    """The error of opening something, as it was where a snapshot was taken: of its marks (ELOOP) a PermissionError."""
    if error.errno != errno.ELOOP:
        return error
    return PermissionError(errno.EACCES, "it was forbidden to whoever took the snapshot", error.filename)
