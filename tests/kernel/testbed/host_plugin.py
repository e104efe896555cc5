"""Pytest on the host: tests under tests/kernel/guest run in virtual machines, and count as ordinary tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import forbid_skip
from tests.kernel.testbed.guest import REPOSITORY
from tests.kernel.testbed.guest_run import GuestRun, compile_bytecode
from tests.kernel.testbed.places import Place, deadline_of

GUEST_TESTS = Path(__file__).resolve().parents[1] / "guest"


class HostPlugin:
    """Starts the guests before the first test, so that they work beside the host's own tests."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        # Pytest's own form of the test files, too, is for the guests, which take twenty times as long to make it.
        sys.dont_write_bytecode = False
        self.runs: dict[Place, GuestRun] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Iterator[None]:
        if not session.config.option.collectonly and not session.testsfailed:
            self._start(session.items)
        try:
            return (yield)
        finally:
            for run in self.runs.values():
                run.stop()

    def _start(self, items: list[pytest.Item]) -> None:
        work: dict[Place, dict[str, float]] = {}
        for item in items:
            place = _place(item)
            if place is not None:
                work.setdefault(place, {})[item.nodeid] = deadline_of(item)
        if work:
            for directory in ("vfioctl", "tests"):
                compile_bytecode(REPOSITORY / directory)
        # Those with most to do first, so that none of them is left to run alone at the end.
        for place, deadlines in sorted(work.items(), key=lambda each: -len(each[1])):
            self.runs[place] = GuestRun(place, deadlines, self._options())
            self.runs[place].start()

    def _options(self) -> list[str]:
        """Those of the host's options that shape a report."""
        option = self.config.option
        options = [f"--tb={option.tbstyle}"]
        if option.showlocals:
            options.append("--showlocals")
        return options + ["-v"] * max(0, option.verbose)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> bool | None:
        place = _place(item)
        if place is None:
            return None
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        for report in self._reports(self.runs[place], item):
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True

    def _reports(self, run: GuestRun, item: pytest.Item) -> list[pytest.TestReport]:
        reports = run.reports(item.nodeid)
        if reports:
            return [self._revive(data) for data in reports]
        if run.unavailable is not None:
            return [_made_up(item, skipped=f"no test guest: {run.unavailable}")]
        if run.failed_in in (None, item.nodeid):
            return [_made_up(item, failed=run.failure or "the guest sent no report of this test")]
        return [_made_up(item, failed=f"not run: the guest failed before, in {run.failed_in}")]

    def _revive(self, data: dict[str, Any]) -> pytest.TestReport:
        report: pytest.TestReport = self.config.hook.pytest_report_from_serializable(
            config=self.config, data=data
        )
        if isinstance(report.longrepr, list):  # the (file, line, reason) of a skip: JSON knows no tuples
            path, line, reason = report.longrepr
            report.longrepr = (path, line, reason)
        return report

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.runs:
            terminalreporter.section("kernel guests")
            for run in self.runs.values():
                terminalreporter.line(run.summary or f"{run.place}: not booted")


def _place(item: pytest.Item) -> Place | None:
    """Where ``item`` runs, or None for the host."""
    if not isinstance(item, pytest.Function) or GUEST_TESTS not in item.path.parents:
        return None
    place = item.callspec.params["machine"]
    if not isinstance(place, Place):
        raise TypeError(f"{item.nodeid}: the parameter machine is {place!r}, not a place")
    return place


def _made_up(item: pytest.Item, *, failed: str = "", skipped: str = "") -> pytest.TestReport:
    """The report of a test that did not run."""
    report = pytest.TestReport(
        nodeid=item.nodeid,
        location=item.location,
        keywords=dict.fromkeys(item.keywords, 1),
        outcome="skipped" if skipped else "failed",
        longrepr=(str(item.path), item.location[1] or 0, skipped) if skipped else failed,
        when="setup",
    )
    forbid_skip(report)
    return report
