"""What a run of a program costs."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).resolve().parents[2]


class Cost(NamedTuple):
    """Of one run, or the medians of several: seconds, and KiB at the peak."""

    wall: float
    cpu: float
    peak: float


def environment() -> dict[str, str]:
    """Runs this tree, and lets the first run compile it, as installing it does."""
    variables = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    variables.pop("PYTHONDONTWRITEBYTECODE", None)
    return variables


def measure(command: list[str]) -> Cost:
    """Runs ``command``, which must succeed, in the repository, with its output thrown away."""
    variables = environment()
    start = time.perf_counter()
    child = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=REPOSITORY, env=variables
    )
    _, status, usage = os.wait4(child.pid, 0)
    wall = time.perf_counter() - start
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, command)
    return Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss)


def median(costs: list[Cost]) -> Cost:
    """Each cost's median."""
    return Cost(*(statistics.median(column) for column in zip(*costs, strict=True)))
