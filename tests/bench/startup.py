"""How long ``vfioctl list-groups -J`` takes to start and answer, against importing click and json alone.

    python tests/bench/startup.py [RUNS]

Prints ratios of medians of interleaved runs with the same interpreter. The goal is 1.25 or less.
"""

from __future__ import annotations

import statistics
import sys
import sysconfig
import tempfile
import tomllib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.bench.measure import REPOSITORY, Cost, measure, median
from tests.bench.tree import build

GOAL = 1.25
WARM_UP = 2
BASE = "import click, json"


def script() -> str:
    """What pip writes for the entry point; stands in where vfioctl is not installed."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module, _, function = project["scripts"]["vfioctl"].partition(":")
    return f"import sys\nfrom {module} import {function}\nif __name__ == '__main__':\n    sys.exit({function}())\n"


def main(runs: int) -> int:
    """Measures and prints."""
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch, "host")
        tree.mkdir()
        build(str(tree), 50)
        stand_in = Path(scratch, "vfioctl")
        stand_in.write_text(script())
        installed = Path(sysconfig.get_path("scripts"), "vfioctl")
        program = str(installed if installed.exists() else stand_in)
        python, answer = sys.executable, ["list-groups", "-J"]
        commands = {
            BASE: [python, "-c", BASE],
            "vfioctl": [python, program, *answer],
            "vfioctl, 50 devices": [python, program, "--root", str(tree), *answer],
            "python -m vfioctl": [python, "-m", "vfioctl", *answer],
        }
        costs: dict[str, list[Cost]] = {name: [] for name in commands}
        for run in range(WARM_UP + runs):
            for name, command in commands.items():
                cost = measure(command)
                if run >= WARM_UP:
                    costs[name].append(cost)
    base = median(costs[BASE])
    for name, found in costs.items():
        middle = median(found)
        ratios = [ours.cpu / theirs.cpu for ours, theirs in zip(found, costs[BASE], strict=True)]
        low, _, high = statistics.quantiles(ratios, n=4)
        print(
            f"{name:20} {middle.wall * 1e3:6.1f} ms wall, {middle.cpu * 1e3:5.1f} ms cpu;"
            f" ratio: wall {middle.wall / base.wall:.2f}, cpu {middle.cpu / base.cpu:.2f}"
            f" (half of the runs: {low:.2f} to {high:.2f})"
        )
    print(f"goal: {GOAL} or less; the script {'is the installed one' if installed.exists() else 'stands in'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 40))
