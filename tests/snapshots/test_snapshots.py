"""What is answered on snapshots of real kernels stays what it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.snapshots import answered, archive, names, recorded
from vfioctl.host.archive import unpack


def test_there_are_some() -> None:
    assert len(names()) >= 4


@pytest.mark.parametrize("name", names())
def test_answers(name: str, tmp_path: Path) -> None:
    unpack(str(archive(name)), str(tmp_path), 60)
    document = json.loads(recorded(name).read_text())
    found = answered(tmp_path, document["subjects"])
    assert found == document["answers"], "if that is wanted: python -m tests.snapshots"


@pytest.mark.parametrize("name", names())
def test_they_are_small_and_without_secrets(name: str) -> None:
    assert archive(name).stat().st_size < 100_000
