"""``python -m vfioctl`` and the ``vfioctl`` script."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Sequence
from typing import NoReturn


def main(args: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit status."""
    if args is None:
        # A process that reads, prints and ends makes hardly any garbage in cycles, but a collector looks again and
        # again at all that was imported and read: with 10,000 devices a tenth of the time.
        gc.disable()
        args = sys.argv[1:]
    from vfioctl.cli.app import run

    return run(args)


def program() -> NoReturn:
    """The whole life of the process. It ends without taking the interpreter apart, a sixth of the time of a short
    command: files are closed and synced where they are used, and nothing is left to atexit."""
    status = main()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # closed by the caller (>&-)
            with contextlib.suppress(OSError):  # run() has reported it
                stream.flush()
    os._exit(status)


if __name__ == "__main__":
    program()
