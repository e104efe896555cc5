"""A host as files."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes.uses import Host


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(str(tmp_path))
