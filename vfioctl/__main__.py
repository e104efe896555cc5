"""``python -m vfioctl`` and the ``vfioctl`` script."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(args: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit status."""
    from vfioctl.cli.app import run

    return run(sys.argv[1:] if args is None else args)


if __name__ == "__main__":
    sys.exit(main())
