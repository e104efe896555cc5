"""Completion in real shells, and the scripts in step with their generator. Needs bash, zsh and fish."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.tree import build
from tests.cli import shells
from tests.fakes.command import run_command
from vfioctl.cli import completions
from vfioctl.cli.registry import children


@pytest.fixture
def host(tmp_path: Path) -> str:
    """A host with the devices 0000:00:00.0, .1, .2, .3 and 0000:01:00.0 to 0000:04:00.1, in groups 0 to 5."""
    root = tmp_path / "host"
    root.mkdir()
    build(str(root), 10)
    return str(root)


def need(shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")


def test_scripts_are_in_step() -> None:
    names = completions.stale(shells.COMPLETIONS)
    assert not names, f"{names}: run python -m vfioctl.cli.completions --write completions"


#: vfioctl, and at the end which of its command modules it has imported.
ASKED = """
import atexit, sys
from vfioctl.__main__ import main
atexit.register(lambda: print(*(n for n in sys.modules if n.startswith("vfioctl.cli.commands.")), file=sys.stderr))
sys.exit(main())
"""


def ask(words: str, number: int) -> tuple[list[str], list[str]]:
    """What bash is answered, and the command modules that were imported for it."""
    answer = subprocess.run(
        [sys.executable, "-c", ASKED],
        env={
            **os.environ,
            "PYTHONPATH": str(shells.REPOSITORY),
            "_VFIOCTL_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(number),
        },
        capture_output=True,
        text=True,
        check=True,
    )
    return answer.stdout.split(), answer.stderr.split()


def test_command_names_import_no_command() -> None:
    assert ask("vfioctl", 1) == ([f"plain,{name}" for name in children("")], [])


def test_options_import_that_command_only() -> None:
    answer, imported = ask("vfioctl map --", 2)
    assert "plain,--iova" in answer
    assert imported == ["vfioctl.cli.commands.map"]


def test_devices_in_an_archive_and_no_archive(tmp_path: Path, host: str) -> None:
    archive = tmp_path / "host.tar.gz"
    assert run_command(None, "--root", host, "snapshot", "-o", archive).status == 0
    assert ask(f"vfioctl --root {archive} show 0000:01", 4)[0] == ["plain,0000:01:00.0"]
    assert ask(f"vfioctl --root {archive} show 02:", 4)[0] == ["plain,02:00.0", "plain,02:00.1"]
    archive.write_bytes(b"cut off")
    assert ask(f"vfioctl --root {archive} show 0000:01", 4)[0] == []


#: What is typed before TAB, and the line after it; @ is the host's directory.
BASH = [
    ("vfioctl list-g", "vfioctl list-groups "),
    ("vfioctl bind --meth", "vfioctl bind --method "),
    ("vfioctl bind --method n", "vfioctl bind --method new-id "),
    ("vfioctl list-groups --format js", "vfioctl list-groups --format json "),
    ("vfioctl list-groups --format=js", "vfioctl list-groups --format=json "),
    ("vfioctl --color al", "vfioctl --color always "),
    ("vfioctl --root @ show 0000:01", "vfioctl --root @ show 0000:01:00.0 "),
    ("vfioctl --root @ show 0000:01:", "vfioctl --root @ show 0000:01:00.0 "),
    ("vfioctl --root @ show 0000:01:00.", "vfioctl --root @ show 0000:01:00.0 "),
    ("vfioctl --root @ show 01:", "vfioctl --root @ show 01:00.0 "),
    ("vfioctl --root=@ show 0000:03:0", "vfioctl --root=@ show 0000:03:00.0 "),
    (
        "vfioctl --root @ bind 0000:01:00.0 --group 0000:03:0",
        "vfioctl --root @ bind 0000:01:00.0 --group 0000:03:00.0 ",
    ),
    ("vfioctl --root @ check-viable 5", "vfioctl --root @ check-viable 5 "),
    ("vfioctl --root @/sys/cl", "vfioctl --root @/sys/class/"),
    ("vfioctl --root @ run 0000:01", "vfioctl --root @ run 0000:01:00.0 "),
    ("vfioctl --root @ run 5 -- @/sys/cl", "vfioctl --root @ run 5 -- @/sys/class/"),
    ("vfioctl no-such-command ", "vfioctl no-such-command "),
]


@pytest.mark.parametrize(("typed", "completed"), BASH)
def test_bash(tmp_path: Path, host: str, typed: str, completed: str) -> None:
    need("bash")
    assert shells.bash(tmp_path, typed.replace("@", host)) == completed.replace("@", host)


def test_bash_shows_all_candidates(tmp_path: Path, host: str) -> None:
    need("bash")
    line = f"vfioctl --root {host} show 0000:0"
    start = line.removesuffix("0")
    shown = shells.bash(tmp_path, line, shells.ALL)
    assert shown.startswith(start)
    assert shown.removeprefix(start).split() == [
        *(f"00:00.{n}" for n in range(4)),
        *("01:00.0", "02:00.0", "02:00.1", "03:00.0", "04:00.0", "04:00.1"),
    ]
    assert shells.bash(tmp_path, "vfioctl ", shells.ALL).split() == ["vfioctl", *children("")]


#: The same of zsh.
ZSH = [
    ("vfioctl list-g", "vfioctl list-groups "),
    ("vfioctl bind --meth", "vfioctl bind --method "),
    ("vfioctl bind --method n", "vfioctl bind --method new-id "),
    ("vfioctl list-groups --format=js", "vfioctl list-groups --format=json "),
    ("vfioctl --root @ show 0000:01", "vfioctl --root @ show 0000:01:00.0 "),
    ("vfioctl --root @ show 0000:01:0", "vfioctl --root @ show 0000:01:00.0 "),
    ("vfioctl --root @ bind 0000:01:00.0 01:", "vfioctl --root @ bind 0000:01:00.0 01:00.0 "),
    ("vfioctl --root @ check-viable 5", "vfioctl --root @ check-viable 5 "),
    ("vfioctl --root @/sys/cl", "vfioctl --root @/sys/class/"),
    ("vfioctl no-such-command ", "vfioctl no-such-command "),
]


@pytest.mark.parametrize(("typed", "completed"), ZSH)
def test_zsh(tmp_path: Path, host: str, typed: str, completed: str) -> None:
    need("zsh")
    assert shells.zsh(tmp_path, typed.replace("@", host)) == completed.replace("@", host)


#: What is typed, and what fish offers for it.
FISH = [
    ("vfioctl list-", ["list-devices", "list-groups"]),
    ("vfioctl bind --meth", ["--method"]),
    ("vfioctl bind --method ", ["new-id", "override"]),
    ("vfioctl list-groups --format=js", ["--format=json"]),
    ("vfioctl --root @ show 0000:01", ["0000:01:00.0"]),
    ("vfioctl --root @ show 0000:02:", ["0000:02:00.0", "0000:02:00.1"]),
    ("vfioctl --root @ bind 0000:01:00.0 03:", ["03:00.0"]),
    ("vfioctl --root @ check-viable 5", ["5"]),
    ("vfioctl --root @/sys/cl", ["@/sys/class/"]),
    ("vfioctl no-such-command ", []),
]


@pytest.mark.parametrize(("typed", "candidates"), FISH)
def test_fish(tmp_path: Path, host: str, typed: str, candidates: list[str]) -> None:
    need("fish")
    found = shells.fish(tmp_path, typed.replace("@", host))
    assert sorted(found) == [candidate.replace("@", host) for candidate in candidates]
