"""What mapping costs beside a C program that makes the same calls, on a real kernel in a virtual machine.

    python tests/bench/mapping.py [KERNEL [RUNS]]

Boots a guest and measures both in turn, in one run: 65,535 mappings of a page, and one of 1 GiB. The goals: at most
2 times, and at most 1.1 times. What is compared is what a container's keeper does between a request and its answer
(plan, get memory and populate it, map it, remember it) with the C program's mmap, populating and mapping loop. The time
of the whole command is told too: it adds the start of Python, which has a benchmark of its own (startup.py).
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

PAGE = 4096
NAME = "bench"


class Case(NamedTuple):
    """Memory to map, in bytes, and how many times the C program's time is allowed."""

    name: str
    size: int
    chunk: int
    goal: float


CASES = (Case("65,535 pages", 65535 * PAGE, PAGE, 2), Case("1 GiB at once", 1 << 30, 1 << 30, 1.1))


class Times(NamedTuple):
    """Seconds: the C program's memory and loop, the keeper's answer, the whole command."""

    memory: float
    loop: float
    keeper: float
    command: float


def main(kernel: str, runs: int) -> int:
    """On the host: boots the guest and shows what it prints."""
    from tests.kernel.testbed.guest import BOOT_SECONDS, Guest, Job
    from tests.kernel.testbed.guest_run import compile_bytecode
    from tests.kernel.testbed.machine import MACHINES
    from tests.kernel.testbed.rebuild import prepare

    compile_bytecode(REPOSITORY / "vfioctl")
    command = (
        sys.executable,
        "-m",
        "tests.kernel.testbed.in_terminal",
        sys.executable,
        __file__,
        "inside",
        str(runs),
    )
    environment = {"TESTBED_PYTHON": sys.executable, "PYTHONPATH": str(REPOSITORY)}
    guest = Guest(MACHINES["standard"], prepare(kernel), Job(command, environment, {}))
    patience: float = BOOT_SECONDS
    try:
        while (line := guest.line(time.monotonic() + patience)) is not None:
            message = json.loads(line)
            if "status" in message:
                return int(message["status"])
            sys.stdout.write(message["output"])
            sys.stdout.flush()
            patience = 600
    finally:
        guest.close()
    return 1


def inside(runs: int) -> int:
    """In the guest: measures."""
    from tests.kernel.guest.sysfs import group_of
    from tests.kernel.testbed.roles import write_roles

    print(f"Linux {os.uname().release}, {runs} runs", flush=True)  # it runs: what follows takes minutes
    address = write_roles()["edu"]
    vfioctl("bind", address)
    group = str(group_of(address))
    with tempfile.TemporaryDirectory() as scratch:
        program = f"{scratch}/mapping"
        source = str(Path(__file__).with_suffix(".c"))
        subprocess.run(["cc", "-O2", "-Wall", "-Wextra", "-o", program, source], check=True)
        return max(report(case, [once(case, program, group) for _ in range(runs)]) for case in CASES)


def once(case: Case, program: str, group: str) -> Times:
    """Both, one after the other."""
    output = subprocess.run(
        [program, group, str(case.size), str(case.chunk)], check=True, capture_output=True
    )
    memory, loop = map(float, output.stdout.split())
    vfioctl("container", "open", NAME, group)
    keeper = in_keeper(case)
    vfioctl("unmap", "-c", NAME, "--all")
    began = time.monotonic()
    vfioctl("map", "-c", NAME, "--size", case.size, "--chunk", case.chunk)
    command = time.monotonic() - began
    vfioctl("container", "close", NAME)
    return Times(memory, loop, keeper, command)


def in_keeper(case: Case) -> float:
    """From the request to the answer."""
    from vfioctl.host.machine import Machine
    from vfioctl.ops.keeper import named
    from vfioctl.policy.mapping import Want

    with named.connected(Machine(timeout=600), NAME) as client:
        began = time.monotonic()
        client.call("map", {"wants": [list(Want(case.size, chunk=case.chunk))]})
        return time.monotonic() - began


def vfioctl(*arguments: object) -> None:
    """Runs a command that must succeed."""
    command = [sys.executable, "-m", "vfioctl", *map(str, arguments)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=REPOSITORY)


def report(case: Case, times: list[Times]) -> int:
    """Prints the medians and the verdict; 0 when the goal is met."""
    middle = Times(*(statistics.median(column) for column in zip(*times, strict=True)))
    ratios = sorted(each.keeper / (each.memory + each.loop) for each in times)
    ratio = statistics.median(ratios)
    print(
        f"{case.name}: C {middle.memory:.3f} s memory + {middle.loop:.3f} s mapping; keeper {middle.keeper:.3f} s; "
        f"whole command {middle.command:.3f} s (with the start of Python); ratio {ratio:.2f}, "
        f"{ratios[0]:.2f} to {ratios[-1]:.2f} in {len(times)} runs; goal {case.goal}: "
        f"{'met' if ratio <= case.goal else 'NOT MET'}",
        flush=True,
    )
    return 0 if ratio <= case.goal else 1


if __name__ == "__main__":
    os.chdir(REPOSITORY)
    if sys.argv[1:2] == ["inside"]:
        sys.exit(inside(int(sys.argv[2])))
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "7.2", int(sys.argv[2]) if len(sys.argv) > 2 else 5))
