"""Where the caller comes from: the SSH connections of this process and of those that started it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from vfioctl.host.files import read


def ssh_connections() -> tuple[tuple[str, str], ...]:
    """(client, server) addresses of SSH_CONNECTION, each once: from the environment of this process, and from those of
    its ancestors, for sudo and su drop it."""
    found = [os.environ.get("SSH_CONNECTION", ""), *_of_ancestors()]
    fields = (text.split() for text in found)
    return tuple(dict.fromkeys((f[0], f[2]) for f in fields if len(f) == 4))


def _of_ancestors() -> Iterator[str]:
    pid = os.getppid()
    seen: set[int] = set()
    while pid > 1 and pid not in seen:
        seen.add(pid)
        with contextlib.suppress(PermissionError, ProcessLookupError):
            for entry in (read(f"/proc/{pid}/environ") or "").split("\0"):
                if entry.startswith("SSH_CONNECTION="):
                    yield entry.partition("=")[2]
        # The name before the last parenthesis may hold blanks: "pid (name) state ppid".
        fields = (read(f"/proc/{pid}/stat") or "").rpartition(")")[2].split()
        pid = int(fields[1]) if len(fields) > 1 else 0
