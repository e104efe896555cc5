"""``python -m tests.edu GROUP ADDRESS``: prove DMA on an edu device, a line for each thing proven."""

from __future__ import annotations

import sys

from tests.edu.edu import EduTimeout
from tests.edu.proof import prove


def main(arguments: list[str]) -> int:
    """0 when all was proven, 1 when something failed, 2 for wrong arguments."""
    if len(arguments) != 2 or not arguments[0].isdecimal():
        print("usage: python -m tests.edu GROUP ADDRESS", file=sys.stderr)
        return 2
    failed = False
    try:
        for verdict in prove(int(arguments[0]), arguments[1]):
            print(f"{'ok  ' if verdict.passed else 'FAIL'}  {verdict.text}", flush=True)
            failed |= not verdict.passed
    except (OSError, EduTimeout, ValueError) as error:
        print(f"FAIL  {error}", flush=True)
        return 1
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
