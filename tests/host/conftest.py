"""A host as files, and a kernel that answers as it is told."""

from __future__ import annotations

import fcntl
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fakes.uses import Host
from tests.host.answers import Answer, Answers


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(str(tmp_path))


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Answers]:
    """Prepares answers (see tests/host/answers.py) for whatever makes an ioctl."""

    def prepare(*answers: Answer, result: int = 0) -> Answers:
        stand_in = Answers(*answers, result=result)
        monkeypatch.setattr(fcntl, "ioctl", stand_in)
        return stand_in

    return prepare
