"""The initial RAM file system's archive format ("newc" cpio), as the kernel reads it.

Linux, Documentation/driver-api/early-userspace/buffer-format.rst.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping

ALIGNMENT = 4


def archive(files: Mapping[str, bytes], executable: frozenset[str] = frozenset()) -> bytes:
    """An uncompressed archive of ``files`` (relative path to contents) and the directories they need."""
    directories = sorted({parent for path in files for parent in _parents(path)})
    parts = [_member(path, stat.S_IFDIR | 0o755, b"") for path in directories]
    for path, data in files.items():
        mode = 0o755 if path in executable else 0o644
        parts.append(_member(path, stat.S_IFREG | mode, data))
    parts.append(_member("TRAILER!!!", 0, b""))
    return b"".join(parts)


def _parents(path: str) -> list[str]:
    pieces = path.split("/")[:-1]
    return ["/".join(pieces[: n + 1]) for n in range(len(pieces))]


def _member(path: str, mode: int, data: bytes) -> bytes:
    name = path.encode() + b"\0"
    # inode, mode, uid, gid, nlink, mtime, size, device and rdevice numbers, name size, check
    fields = (0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name), 0)
    header = b"070701" + b"".join(b"%08X" % field for field in fields)
    return _padded(header + name) + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % ALIGNMENT)
