"""The cache directory: what is downloaded and built once, for all checkouts of one user."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def cache_directory() -> Path:
    """``${XDG_CACHE_HOME:-~/.cache}/vfioctl-tests``, made when it is not there."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    path = Path(base) / "vfioctl-tests"
    path.mkdir(parents=True, exist_ok=True)
    return path


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold the lock file ``path``, waiting for other processes and threads that hold it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextmanager
def new_directory(final: Path) -> Iterator[Path]:
    """A temporary directory which becomes ``final`` if the block succeeds, and vanishes otherwise.

    So an interrupted download or build never leaves something that looks complete.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{final.name}.", dir=final.parent))
    try:
        yield temporary
        temporary.chmod(0o755)
        temporary.rename(final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
