"""What the README shows works: its first line installs and runs, its examples are understood."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.cli.examples import assert_parses
from vfioctl.errors import ExitStatus

REPOSITORY = Path(__file__).parent.parent
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_the_first_line_installs_and_lists_groups(tmp_path: Path) -> None:
    """On a copy of the tree, into a directory of its own instead of /opt and /usr/local, and without sudo."""
    line = BLOCKS[0].strip()
    assert line.startswith("sudo sh -c '") and line.endswith("&& vfioctl list-groups")
    here = (
        line.removeprefix("sudo ")
        .replace("/opt/", f"{tmp_path}/opt/")
        .replace("/usr/local/bin", f"{tmp_path}/bin")
    )
    tree = tmp_path / "tree"
    (tmp_path / "bin").mkdir()
    shutil.copytree(
        REPOSITORY, tree, ignore=shutil.ignore_patterns(".git", "build", "*.egg-info", ".*_cache")
    )
    environment = {
        name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")
    }
    environment["PATH"] = f"{tmp_path}/bin:{environment['PATH']}"
    done = subprocess.run(
        ["sh", "-c", here],
        cwd=tree,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout.startswith("GROUP ") or "no IOMMU groups" in done.stderr
    assert (tmp_path / "bin" / "vfioctl").exists()


@pytest.mark.parametrize(
    "line", [line for block in BLOCKS[2:] for line in block.splitlines() if line.strip()], ids=str.strip
)
def test_examples_are_understood(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_parses(line.partition("  #")[0], monkeypatch)


def test_the_two_commands_are_there() -> None:
    for name in ("tests/demo", "tests/run"):
        assert name in BLOCKS[1]
        assert os.access(REPOSITORY / name, os.X_OK)


def test_every_exit_status_is_in_the_table() -> None:
    listed = {int(number) for number in re.findall(r"^\| (\d+) \|", README, re.MULTILINE)}
    assert listed == {int(status) for status in ExitStatus}
