"""Redacted snapshots of the test-bed's machines, with what every looking command answered on them.

Made anew, archives and answers, by

    VFIOCTL_TESTS_SNAPSHOTS=1 tests/run tests/kernel/guest/test_snapshot.py --junitxml=results.xml
    python -m tests.snapshots results.xml

and the answers alone, when a command is to answer otherwise, by

    python -m tests.snapshots
"""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.looking import answers, command_lines
from tests.fakes.command import run_command

HERE = Path(__file__).parent


def names() -> list[str]:
    """The machines of which there is a snapshot."""
    return sorted(path.name.removesuffix(".tar.gz") for path in HERE.glob("*.tar.gz"))


def archive(name: str) -> Path:
    return HERE / f"{name}.tar.gz"


def recorded(name: str) -> Path:
    return HERE / f"{name}.json"


def answered(root: Path, subjects: list[str]) -> dict[str, list[object]]:
    """The exit status and the document (or None) of each looking command, with and without each subject."""
    lines = command_lines(subjects, more=False)
    found = answers(lambda *line: run_command(None, "--root", root, *line), lines)
    return {line: [status, json.loads(out) if out else None] for line, (status, out) in found.items()}
