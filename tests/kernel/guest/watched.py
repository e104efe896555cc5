"""A ``vfioctl watch`` beside a test."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.kernel.guest.conftest import Vfioctl
from tests.kernel.testbed.command import Running

SECONDS = 60.0


def listening(running: Running) -> Running:
    """The same, when it (called with -v) sees what happens."""
    until = time.monotonic() + SECONDS
    while "+ listening" not in running.printed("stderr"):
        assert running.alive() and time.monotonic() < until, running.printed("stderr")
        time.sleep(0.02)
    return running


class Watch:
    """``vfioctl watch -J ARGUMENT...`` that listens."""

    def __init__(self, vfioctl: Vfioctl, *arguments: object, **setting: object) -> None:
        self.running = listening(vfioctl.start("-v", "watch", "-J", *arguments, **setting))

    def events(self) -> list[dict[str, Any]]:
        """What it has told up to now."""
        return [json.loads(line) for line in self.running.printed().splitlines()]

    def find(self, kind: str, **values: object) -> dict[str, Any]:
        """The first event of a kind with these values; it may still have to come."""
        until = time.monotonic() + SECONDS
        while True:
            for event in self.events():
                if event["event"] == kind and all(event[key] == value for key, value in values.items()):
                    return event
            assert time.monotonic() < until, (kind, values, self.events())
            time.sleep(0.02)


@contextmanager
def watch(vfioctl: Vfioctl, *arguments: object, **setting: object) -> Iterator[Watch]:
    """A watch for the block; it is ended by SIGTERM."""
    found = Watch(vfioctl, *arguments, **setting)
    try:
        yield found
    finally:
        os.kill(found.running.pid, signal.SIGTERM)
        result = found.running.wait()
    assert result.status == -signal.SIGTERM, result.stderr
    assert "Traceback" not in result.stderr
