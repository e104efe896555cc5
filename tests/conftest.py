"""For all tests: the variable that makes a skip a failure, so that a full run has run everything; and how many cases
the sweeps have had."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Generator

import pytest

NO_SKIP_VARIABLE = "VFIOCTL_TESTS_NO_SKIP"
#: A test that tries many cases records a property so called: where it did, and how many.
CASES = "cases"


def pytest_configure() -> None:
    """What is started from nohup, or in the background of a script, has signals ignored, and so has all that it
    starts: vfioctl leaves them ignored then, as every program should."""
    for number, handler in (
        (signal.SIGHUP, signal.SIG_DFL),
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGQUIT, signal.SIG_DFL),
        (signal.SIGTERM, signal.SIG_DFL),
    ):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


def no_skip() -> bool:
    return os.environ.get(NO_SKIP_VARIABLE, "") not in ("", "0")


def forbid_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Make ``report`` a failure when it is a skip and none is allowed. An expected failure is no skip."""
    if no_skip() and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{reason}\n({NO_SKIP_VARIABLE} is set: a skipped test is a failed one)"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    forbid_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    forbid_skip(report)
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    cases: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", None) == "call":
                for name, value in report.user_properties:
                    if name == CASES:
                        where, number = value
                        cases[where] += number
    if cases:
        terminalreporter.section("cases of the sweeps")
        for where, number in sorted(cases.items()):
            terminalreporter.line(f"{where}: {number}")
