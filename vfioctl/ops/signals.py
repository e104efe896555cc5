"""Signals while devices are being changed."""

from __future__ import annotations

import signal
from typing import Any

from vfioctl.errors import Restored


class Interrupted(Restored):
    """A signal asked the process to end while it was changing devices."""

    code = "interrupted"

    def __init__(self, number: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}")


class Signals:
    """While ``armed``, SIGTERM, SIGHUP and SIGINT become exceptions, the first of them only, so that a change is put
    back before the process ends; afterwards they are ignored, for half-way is the one place not to end."""

    def __init__(self) -> None:
        self.armed = True
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Signals:
        for name in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            if signal.getsignal(name) is not signal.SIG_IGN:  # nohup, or a job in the background of a script
                self._previous[name] = signal.signal(name, self._handle)
        return self

    def __exit__(self, *error: object) -> None:
        for name, handler in self._previous.items():
            signal.signal(name, handler)

    def _handle(self, number: int, frame: object) -> None:
        if self.armed:
            self.armed = False
            raise Interrupted(number)
