"""One guest running the selected tests of its place, in a thread of the host's pytest."""

from __future__ import annotations

import compileall
import json
import os
import sys
import sysconfig
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.kernel.testbed.architecture import Architecture
from tests.kernel.testbed.errors import TestbedUnavailableError
from tests.kernel.testbed.guest import BOOT_SECONDS, REPOSITORY, Guest, GuestDeadlineError, GuestError, Job
from tests.kernel.testbed.machine import MACHINES
from tests.kernel.testbed.places import GUEST_VARIABLE, Place
from tests.kernel.testbed.rebuild import prepare

GRACE = 15.0  # seconds after a test's deadline, in which the guest prints where it hangs
CONCURRENT_GUESTS = threading.Semaphore(2)


class GuestRun(threading.Thread):
    """Boots the guest, runs ``items`` (node id to deadline in seconds) in it and keeps their reports.

    After the end ``unavailable`` or ``failure`` says why there are reports missing.
    """

    def __init__(self, place: Place, items: Mapping[str, float], options: Sequence[str]) -> None:
        super().__init__(name=f"guest {place}", daemon=True)
        self.place = place
        self.items = dict(items)
        self.options = list(options)
        self.unavailable: TestbedUnavailableError | None = None
        self.failure: str | None = None
        self.failed_in: str | None = None
        self.summary = ""
        self._changed = threading.Condition()
        self._reports: dict[str, list[dict[str, Any]]] = {}
        self._finished: set[str] = set()
        self._ended = False
        self._stopped = False
        self._guest: Guest | None = None

    def reports(self, nodeid: str) -> list[dict[str, Any]] | None:
        """The serialized reports of a test, waiting for it to finish; None when it never will."""
        with self._changed:
            self._changed.wait_for(lambda: nodeid in self._finished or self._ended)
            return self._reports.get(nodeid, []) if nodeid in self._finished else None

    def stop(self) -> None:
        """End the guest: nobody waits for the rest of its tests."""
        with self._changed:
            self._stopped = True
            if self._guest is not None:
                self._guest.process.kill()
        self.join(timeout=10)

    def run(self) -> None:
        try:
            with CONCURRENT_GUESTS:
                self._work()
        except TestbedUnavailableError as error:
            self.unavailable = error
        except GuestError as error:
            self.failure = str(error)
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _work(self) -> None:
        began = time.monotonic()
        machine = MACHINES[self.place.machine]
        kernel = prepare(self.place.kernel, machine.board.architecture)
        booting = time.monotonic()
        with self._changed:
            if self._stopped:
                return
            self._guest = guest = Guest(machine, kernel, self._job(machine.board.architecture))
        try:
            self._listen(guest)
        finally:
            guest.close()
            self.summary = (
                f"{self.place}: Linux {kernel.release}, {self.summary or 'no test begun'}; "
                f"kernel prepared in {booting - began:.1f} s, guest ran {time.monotonic() - booting:.1f} s"
            )

    def _listen(self, guest: Guest) -> None:
        booting = time.monotonic()
        deadline = booting + BOOT_SECONDS
        current: str | None = None
        try:
            while (line := guest.line(deadline)) is not None:
                message = json.loads(line)
                if "collected" in message:
                    self.summary = f"first test after {time.monotonic() - booting:.1f} s"
                    missing = sorted(set(self.items) - set(message["collected"]))
                    if missing:
                        raise GuestError(f"the guest did not find {missing[0]} ({len(missing)} in all)")
                elif "start" in message:
                    current = message["start"]
                    deadline = time.monotonic() + self.items[current] + GRACE
                elif "report" in message:
                    self._reports.setdefault(message["report"]["nodeid"], []).append(message["report"])
                elif "finish" in message:
                    self._finish(message["finish"])
                    current = None
                    deadline = time.monotonic() + BOOT_SECONDS
                # 1 is pytest's "some tests failed", which their reports say better.
                elif message.get("status", 0) not in (0, 1):
                    raise GuestError(f"pytest in the guest ended with status {message['status']}")
            if len(self._finished) < len(self.items) and not self._stopped:
                raise GuestError("the guest ended early")
        except GuestDeadlineError:
            self.failed_in = current
            late = "no answer in time"
            if current is not None:
                late = f"not finished {self.items[current] + GRACE:.0f} s after its start"
            raise GuestError(f"{late}\n{guest.describe()}") from None
        except GuestError as error:
            self.failed_in = current
            raise GuestError(f"{error}\n{guest.describe()}") from None

    def _finish(self, nodeid: str) -> None:
        with self._changed:
            self._finished.add(nodeid)
            self._changed.notify_all()

    def _job(self, architecture: Architecture) -> Job:
        files = sorted({nodeid.split("::", 1)[0] for nodeid in self.items})
        environment = {name: value for name, value in os.environ.items() if name.startswith("VFIOCTL_")}
        paths = [str(REPOSITORY), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
        python = sys.executable
        if not architecture.native:
            python = "/usr/bin/python3"
            paths.append(sysconfig.get_path("purelib"))  # what it needs is there without C, too
        environment |= {
            "PYTHONPATH": os.pathsep.join(dict.fromkeys(os.path.abspath(path) for path in paths if path)),
            GUEST_VARIABLE: str(self.place),
            "TESTBED_PYTHON": python,
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # importing what is not needed costs seconds there
        }
        command = (python, "-m", "pytest", "-p", "no:cacheprovider", *self.options, *files)
        return Job(command, environment, {"items.json": json.dumps(list(self.items)).encode()})


def compile_bytecode(directory: Path) -> None:
    """Byte-compiles what is in it here, where it is quick and stays; a guest cannot keep what it compiles."""
    compileall.compile_dir(directory, quiet=2)
