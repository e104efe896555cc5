"""For tests that look at the descriptors of their process, in which threads that run guests may be at work."""

from __future__ import annotations

import contextlib
import functools
import os
import traceback
from collections.abc import Callable
from typing import ParamSpec

Arguments = ParamSpec("Arguments")


def targets() -> dict[int, str]:
    """What each descriptor leads to; one that another thread closes meanwhile is passed over."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
    return found


def alone(test: Callable[Arguments, None]) -> Callable[Arguments, None]:
    """Runs ``test`` in a copy of this process that has no other threads: those open and close descriptors at any time.
    The traceback of a failure comes back as the message of one."""

    @functools.wraps(test)
    def run(*arguments: Arguments.args, **keywords: Arguments.kwargs) -> None:
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                test(*arguments, **keywords)
            except BaseException:  # noqa: BLE001  # whatever it is, it is told
                os.write(writer, traceback.format_exc().encode())
                os._exit(1)
            os._exit(0)
        os.close(writer)
        with open(reader, encoding="utf-8") as stream:
            told = stream.read()
        _, status = os.waitpid(pid, 0)
        assert status == 0, told

    return run
