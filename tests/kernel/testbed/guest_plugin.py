"""Pytest inside a guest: run what the host selected and stream the reports to it, a JSON object a line."""

from __future__ import annotations

import faulthandler
import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.testbed.places import deadline_of

DIRECTORY = Path("/run/testbed")
RESULTS = DIRECTORY / "testbed.results"


class GuestPlugin:
    """Reports to the host; registered by tests/kernel/conftest.py."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.wanted: list[str] = json.loads((DIRECTORY / "items.json").read_text())
        self.stderr = os.dup(2)  # pytest puts a file of its own there while a test runs
        self.deadlines: dict[str, float] = {}
        # Unbuffered: what the kernel took is with the host even when the guest dies in the next moment.
        self.results = RESULTS.open("wb", buffering=0)

    def _send(self, **message: Any) -> None:
        rest = json.dumps(message).encode() + b"\n"
        while rest:  # the channel takes 32 KiB at a time
            rest = rest[self.results.write(rest) or 0 :]

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        by_id = {item.nodeid: item for item in items}
        items[:] = [by_id[nodeid] for nodeid in self.wanted if nodeid in by_id]
        self.deadlines = {item.nodeid: deadline_of(item) for item in items}
        uptime = float(Path("/proc/uptime").read_text().split()[0])
        self._send(collected=[item.nodeid for item in items], uptime=uptime)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._send(start=nodeid)
        # Into the output that the host shows when it ends a guest for being late.
        faulthandler.dump_traceback_later(self.deadlines[nodeid], file=self.stderr)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        data = self.config.hook.pytest_report_to_serializable(config=self.config, report=report)
        self._send(report=data)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        faulthandler.cancel_dump_traceback_later()
        self._send(finish=nodeid)

    def pytest_unconfigure(self) -> None:
        self.results.close()
