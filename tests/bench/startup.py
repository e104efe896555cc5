"""How long ``vfioctl list-groups -J`` takes to start and answer, against importing click and json alone.

    python tests/bench/startup.py [RUNS]

Prints ratios of medians of interleaved runs with the same interpreter. The goal is 1.25 or less.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

GOAL = 1.25
ANSWER = ["list-groups", "-J"]
#: What pip writes for an entry point; stands in where vfioctl is not installed.
SCRIPT = "import sys\nfrom vfioctl.__main__ import main\nif __name__ == '__main__':\n    sys.exit(main())\n"


def seconds(command: list[str]) -> float:
    """The wall-clock time of one run of ``command`` that must succeed."""
    start = time.perf_counter()
    subprocess.run(command, check=True, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def main(runs: int) -> int:
    """Measures and prints."""
    from tests.bench.tree import build

    os.environ["PYTHONPATH"] = str(REPOSITORY)
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch, "host")
        tree.mkdir()
        build(str(tree), 50)
        script = Path(scratch, "vfioctl")
        script.write_text(SCRIPT)
        installed = Path(sysconfig.get_path("scripts"), "vfioctl")
        entry = installed if installed.exists() else script
        python = sys.executable
        commands = {
            "click and json": [python, "-c", "import click, json"],
            "python -m vfioctl": [python, "-m", "vfioctl", *ANSWER],
            f"script ({'installed' if entry is installed else 'as pip writes it'})": [
                python,
                str(entry),
                *ANSWER,
            ],
            "script, 50 devices": [python, str(entry), "--root", str(tree), *ANSWER],
        }
        times: dict[str, list[float]] = {name: [] for name in commands}
        for run in range(runs + 2):
            for name, command in commands.items():
                taken = seconds(command)
                if run >= 2:  # the first ones fill caches
                    times[name].append(taken)
    base = statistics.median(times["click and json"])
    for name, taken_by_name in times.items():
        low, middle, high = statistics.quantiles(taken_by_name, n=4)
        print(
            f"{name:28} {middle * 1e3:6.1f} ms (quartiles {low * 1e3:.1f} to {high * 1e3:.1f})"
            f"  ratio {middle / base:.2f}"
        )
    print(f"goal: a ratio of {GOAL} or less")
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 40))
