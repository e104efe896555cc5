"""For all tests: the variable that makes a skip a failure, so that a full run has run everything."""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest

NO_SKIP_VARIABLE = "VFIOCTL_TESTS_NO_SKIP"


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
