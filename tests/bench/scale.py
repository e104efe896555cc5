"""How ``vfioctl list-groups -J`` grows with the host, against a C program that reads the same files.

    python tests/bench/scale.py [RUNS]

Builds synthetic hosts of up to 10,000 devices in 6,000 groups on tmpfs, checks that scale.c and vfioctl print the
same bytes, and prints ratios of medians of interleaved runs. The goals: at most 3 times the C program's time plus
start-up, linear in the devices, at most 64 MiB.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.bench.measure import REPOSITORY, Cost, measure, median
from tests.bench.tree import build

SIZES = (2500, 5000, 10000)
GOAL, GOAL_MIB = 3, 64


def check_same(vfioctl: list[str], c: list[str]) -> None:
    """Both programs must print the same bytes, or the comparison means nothing."""
    answers = [
        subprocess.run(command, check=True, capture_output=True, cwd=REPOSITORY).stdout
        for command in (vfioctl, c)
    ]
    if answers[0] != answers[1]:
        sys.exit("scale.c and vfioctl do not print the same: bring scale.c in step with the reader")


def main(runs: int) -> int:
    """Builds, measures and prints."""
    tmpfs = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    if tmpfs is None:
        print("no tmpfs at /dev/shm: the file system of temporary files stands in")
    with tempfile.TemporaryDirectory(dir=tmpfs) as scratch:
        program = f"{scratch}/scale"
        source = Path(__file__).with_suffix(".c")
        subprocess.run(["cc", "-O2", "-Wall", "-Wextra", "-o", program, source], check=True)
        commands: dict[tuple[str, int], list[str]] = {}
        for size in (0, *SIZES):
            tree = f"{scratch}/{size}"
            os.mkdir(tree)
            build(tree, size)
            commands["vfioctl", size] = [sys.executable, "-m", "vfioctl", "--root", tree, "list-groups", "-J"]
            commands["c", size] = [program, tree]
            check_same(commands["vfioctl", size], commands["c", size])
        costs: dict[tuple[str, int], list[Cost]] = {key: [] for key in commands}
        for _ in range(runs):
            for key, command in commands.items():
                costs[key].append(measure(command))
    report({key: median(found) for key, found in costs.items()})
    spread = sorted(
        a.cpu / b.cpu for a, b in zip(costs["vfioctl", SIZES[-1]], costs["c", SIZES[-1]], strict=True)
    )
    print(f"spread of the cpu ratio at {SIZES[-1]} devices: {spread[0]:.2f} to {spread[-1]:.2f}, {runs} runs")
    return 0


def report(cost: dict[tuple[str, int], Cost]) -> None:
    """Prints a line for each size, then the verdicts on the goals."""
    start = cost["vfioctl", 0]
    print(f"start-up (an empty host): {start.wall * 1e3:.0f} ms wall, {start.cpu * 1e3:.0f} ms cpu")
    for size in SIZES:
        ours, theirs = cost["vfioctl", size], cost["c", size]
        print(
            f"{size:6} devices: vfioctl {ours.wall * 1e3:4.0f} ms wall, {ours.cpu * 1e3:4.0f} ms cpu; "
            f"C {theirs.wall * 1e3:4.0f} ms wall, {theirs.cpu * 1e3:4.0f} ms cpu; "
            f"ratio beyond start-up: wall {(ours.wall - start.wall) / theirs.wall:.2f}, "
            f"cpu {(ours.cpu - start.cpu) / theirs.cpu:.2f}; peak {ours.peak / 1024:.0f} MiB"
        )
    small, large = SIZES[0], SIZES[-1]
    growth = (cost["vfioctl", large].cpu - start.cpu) / (cost["vfioctl", small].cpu - start.cpu)
    print(f"{large // small} times the devices take {growth:.2f} times the cpu beyond start-up")
    print(f"goals: ratios of {GOAL} or less, growth of about {large // small}, {GOAL_MIB} MiB or less")


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 11))
