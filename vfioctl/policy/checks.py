"""The checks of a self-test, and what they come to (floor 3, pure)."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import NamedTuple


class Verdict(Enum):
    """What came of a check. A test that was not made has neither passed nor failed."""

    OK = "ok"
    FAILED = "failed"
    NOT_TESTED = "not-tested"


class Check(NamedTuple):
    """A ``step`` tried on a ``subject`` (a group's number, a device's address), with what was found, or why it failed
    or could not be tried; ``cure`` of a failure, if there is one."""

    step: str
    subject: str
    verdict: Verdict
    detail: str
    cure: str | None = None


class Untested(Exception):
    """Why something could not be tried, in words."""


def passed(checks: Iterable[Check]) -> bool:
    """Nothing has failed."""
    return all(check.verdict is not Verdict.FAILED for check in checks)
