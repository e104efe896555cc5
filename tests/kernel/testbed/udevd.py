"""The real udev daemon in a guest, on demand."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

DAEMON = "/lib/systemd/systemd-udevd"
RULES = Path("/run/udev/rules.d")
SECONDS = 30.0


class Udevd:
    """systemd-udevd with the rules of the root file system and those given here."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._added: list[Path] = []

    def start(self) -> None:
        """Start the daemon and wait until it answers."""
        RULES.mkdir(parents=True, exist_ok=True)
        self._process = subprocess.Popen([DAEMON, "--children-max=4"], stdin=subprocess.DEVNULL)
        until = time.monotonic() + SECONDS
        while (
            subprocess.run(["udevadm", "control", "--ping"], check=False, capture_output=True).returncode != 0
        ):
            if self._process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"systemd-udevd did not start (status {self._process.poll()})")
            time.sleep(0.1)

    def add_rules(self, rules: Mapping[str, str]) -> None:
        """Add rule files (name to contents) in /run/udev/rules.d and have them read."""
        for name, text in rules.items():
            path = RULES / name
            path.write_text(text)
            self._added.append(path)
        self.reload()

    def reload(self) -> None:
        """Have the daemon read its rules again."""
        subprocess.run(["udevadm", "control", "--reload"], check=True)

    def trigger(self, *arguments: str) -> None:
        """``udevadm trigger`` with ``arguments``, and wait until all is done."""
        subprocess.run(["udevadm", "trigger", *arguments], check=True)
        self.settle()

    def settle(self) -> None:
        """Wait until the daemon has handled every event."""
        subprocess.run(["udevadm", "settle", f"--timeout={SECONDS:.0f}"], check=True)

    def stop(self) -> None:
        """End the daemon, remove the added rules and udev's memory of the devices."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(SECONDS)
        for path in self._added:
            path.unlink(missing_ok=True)
        self._added.clear()
        if os.path.isdir("/run/udev/data"):
            subprocess.run(["rm", "-rf", "/run/udev/data", "/run/udev/tags", "/run/udev/links"], check=True)
