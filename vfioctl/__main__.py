"""``python -m vfioctl`` and the ``vfioctl`` script."""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence


def main(args: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit status."""
    if args is None:
        # A process that reads, prints and ends makes hardly any garbage in cycles, but a collector looks again and
        # again at all that was imported and read: with 10,000 devices a third of the time.
        gc.disable()
        args = sys.argv[1:]
    from vfioctl.cli.app import run

    return run(args)


if __name__ == "__main__":
    sys.exit(main())
