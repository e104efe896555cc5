"""Notes every path that is asked for: what strace would tell, without strace."""

from __future__ import annotations

import builtins
import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from vfioctl.host.extent import Collected

#: Functions of os that look at a path. One that lstat alone is asked about counts only if it is a link: else it was one
#: part of a longer path, or one of many entries of which some are links.
_FUNCTIONS = ("open", "stat", "lstat", "readlink", "access", "listdir", "scandir")


class Reads:
    """``paths`` that were asked for, absolute ones, also by processes that were forked."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._readlink = os.readlink

    @property
    def paths(self) -> set[str]:
        data = os.pread(self._fd, os.fstat(self._fd).st_size, 0)
        asked = [os.fsdecode(line).partition(" ") for line in data.split(b"\0") if line]
        return {path for name, _, path in asked if name != "lstat" or os.path.islink(path)}

    def note(self, name: str, path: Any, dir_fd: int | None) -> None:
        if isinstance(path, int):
            path = self._readlink(f"/proc/self/fd/{path}")
        text = os.fsdecode(path)
        if not text.startswith("/"):
            above = os.getcwd() if dir_fd is None else self._readlink(f"/proc/self/fd/{dir_fd}")
            text = f"{above}/{text}"
        os.write(self._fd, os.fsencode(f"{name} {text}") + b"\0")


@contextmanager
def noted() -> Iterator[Reads]:
    """What is asked for while the block runs."""
    with tempfile.NamedTemporaryFile() as file:
        reads = Reads(file.name)

        def wrap(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
            def asked(path: Any = ".", *args: Any, dir_fd: int | None = None, **more: Any) -> Any:
                reads.note(name, path, dir_fd)
                if dir_fd is not None:
                    more["dir_fd"] = dir_fd
                return function(path, *args, **more)

            return asked

        with contextlib.ExitStack() as patches:
            for name in _FUNCTIONS:
                patches.enter_context(mock.patch.object(os, name, wrap(name, getattr(os, name))))
            patches.enter_context(mock.patch.object(builtins, "open", wrap("open", builtins.open)))
            yield reads


def missing(reads: Reads, root: str, collected: Collected) -> set[str]:
    """What was asked for below ``root``, is there, and is neither in the snapshot nor named as not to be had."""
    top = os.path.realpath(root)
    known = {*collected.entries, *(path[1:] for path in collected.silent)}
    for path in list(known):
        while path := path.rpartition("/")[0]:
            known.add(path)
    found = set()
    for path in reads.paths:
        above, name = os.path.split(os.path.normpath(path))
        if path.startswith((f"{top}/sys/", "/sys/" if top == "/" else top)):
            above = os.path.realpath(above)
        relative = os.path.relpath(os.path.join(above, name), top)
        if (
            not relative.startswith("..")
            and relative != "."
            and os.path.lexists(path)
            and relative not in known
        ):
            found.add(relative)
    return found
