"""``python -m vfioctl`` and the ``vfioctl`` script."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

INTERNAL_ERROR = 70  # EX_SOFTWARE of sysexits.h


def main(args: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit status."""
    if args is None:
        # A process that reads, prints and ends makes hardly any garbage in cycles, but a collector looks again and
        # again at all that was imported and read: with 10,000 devices a tenth of the time.
        gc.disable()
        args = sys.argv[1:]
    from vfioctl.cli.app import run

    if signal.getsignal(signal.SIGINT) == signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return run(args)


def program() -> NoReturn:
    """The whole life of the process. It ends without taking the interpreter apart, a sixth of the time of a short
    command: files are closed and synced where they are used, and nothing is left to atexit."""
    # Until there is something to put right, Ctrl-C ends us as it ends any program, and not with a traceback.
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as for a job in the background of a script
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    # Whoever called us may have it ignored, and then no child could be waited for.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        status = main()
    except Exception:  # noqa: BLE001  # a bug: the interpreter's status would be 1, and that is a clean "no"
        traceback.print_exc()
        status = INTERNAL_ERROR
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # closed by the caller (>&-)
            with contextlib.suppress(OSError):  # run() has reported it
                stream.flush()
    os._exit(status)


if __name__ == "__main__":
    program()
