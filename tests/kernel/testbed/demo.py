"""``tests/demo``: run tests/kernel/demo.sh in a throw-away machine, and show it live."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from pathlib import Path

from tests.kernel.testbed.errors import TestbedUnavailableError
from tests.kernel.testbed.guest import BOOT_SECONDS, REPOSITORY, Guest, GuestError, Job
from tests.kernel.testbed.guest_run import compile_bytecode
from tests.kernel.testbed.machine import STANDARD
from tests.kernel.testbed.rebuild import KERNELS, prepare

SCRIPT = Path("tests/kernel/demo.sh")
SECONDS_BETWEEN_OUTPUTS = 120.0
FAILED = 125  # the machine failed, not the script


def main() -> int:
    """Returns the script's exit status, or 125 when there was no machine to run it."""
    parser = argparse.ArgumentParser(
        prog="tests/demo", description="Show vfioctl at work in a virtual machine."
    )
    parser.add_argument("kernel", nargs="?", default="7.2", choices=KERNELS)
    name = parser.parse_args().kernel
    compile_bytecode(REPOSITORY / "vfioctl")
    try:
        return _show(name)
    except (TestbedUnavailableError, GuestError) as error:
        print(f"tests/demo: {error}", file=sys.stderr)
        return FAILED


def _show(name: str) -> int:
    print(f"preparing Linux {name} (the first time it is downloaded) ...", file=sys.stderr)
    kernel = prepare(name)
    print(f"booting Linux {kernel.release} in a virtual machine ...", file=sys.stderr)
    environment = {"TESTBED_PYTHON": sys.executable, "PYTHONPATH": str(REPOSITORY)}
    if sys.stdout.isatty():
        size = shutil.get_terminal_size()
        environment |= {
            "TERM": os.environ.get("TERM", "xterm-256color"),
            "TESTBED_TERMINAL": f"{size.lines}x{size.columns}",
        }
    if "NO_COLOR" in os.environ:
        environment["NO_COLOR"] = os.environ["NO_COLOR"]
    command = (sys.executable, "-m", "tests.kernel.testbed.in_terminal", "bash", str(REPOSITORY / SCRIPT))
    guest = Guest(STANDARD, kernel, Job(command, environment, {}))
    try:
        return _relay(guest)
    finally:
        guest.close()


def _relay(guest: Guest) -> int:
    patience = BOOT_SECONDS
    try:
        while (line := guest.line(time.monotonic() + patience)) is not None:
            message = json.loads(line)
            if "status" in message:
                return int(message["status"])
            sys.stdout.write(message["output"])
            sys.stdout.flush()
            patience = SECONDS_BETWEEN_OUTPUTS
        raise GuestError("the machine ended early")
    except GuestError as error:
        raise GuestError(f"{error}\n{guest.describe()}") from None


if __name__ == "__main__":
    sys.exit(main())
